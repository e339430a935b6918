//! Servers that refuse, fall silent, are lost or talk nonsense: nothing changes, and the outcome says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use commpool_model::config::Directory;
use commpool_model::directory::{Outcome, RunResult};
use commpool_replicator::check::{Line, Status, check};
use commpool_replicator::cycle;
use commpool_replicator::entry::Entry;
use tokio_util::sync::CancellationToken;

use crate::lists::{Pool, people, person, plain};
use crate::stub::{Ask, Deed, Manner, PASSWORD, Script, Stub, done, entry, message};

async fn run(pool: &Pool) -> Outcome {
    cycle::run(pool.job(), "test", &CancellationToken::new()).await
}

/// The script's answer to the n-th page of the search for users, everything else as it should be.
fn at_page(n: usize, answer: impl Fn(u32) -> Vec<Deed> + Send + Sync + 'static) -> Script {
    let pages = AtomicUsize::new(0);
    Arc::new(move |id, ask| {
        let users = matches!(ask, Ask::Search { scope: 2, .. });
        (users && pages.fetch_add(1, Ordering::SeqCst) + 1 >= n).then(|| answer(id))
    })
}

/// Silence that is waited for, in seconds: long enough for a machine that stands still for a while to secure, bind and ask
/// before that.
const SILENCE: u32 = 10;
const SILENT: &str = "silent for 10 s";
/// Longer than anything takes that does come.
const PATIENCE: u32 = 60;

/// A pool with users 1–9, whose directory then behaves like this; asserts that nobody lost anything, and returns the
/// outcome.
async fn spoilt(script: Script) -> Outcome {
    spoilt_within(PATIENCE, script).await
}

/// The same with a directory that may be silent for so many seconds.
async fn spoilt_within(seconds: u32, script: Script) -> Outcome {
    let mut pool = Pool::new();
    pool.synced(&people(1..=9)).await;
    let before = pool.known().await;
    let stub = Stub::new(Manner { entries: people(1..=9), script: Some(script), ..Manner::default() }).await;
    pool.config = stub.configuration();
    pool.config.ldap.timeout_seconds = seconds;
    let outcome = run(&pool).await;
    assert_eq!(pool.known().await, before, "{outcome:?}");
    assert!(outcome.message.contains(&stub.url) || !outcome.message.contains("ldap"), "{outcome:?}");
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_asked_for_until_the_last() {
    let stub = Stub::new(Manner { entries: people(1..=8), ..Manner::default() }).await;
    let mut pool = Pool::new();
    pool.config = stub.configuration();
    let outcome = run(&pool).await;
    assert_eq!((outcome.result, outcome.found, outcome.counts.added), (RunResult::Synced, 8, 8), "{outcome:?}");
    let seen = stub.seen();
    let cookies: Vec<&[u8]> = seen
        .iter()
        .filter_map(|ask| if let Ask::Search { cookie, size: 3, .. } = ask { Some(cookie.as_slice()) } else { None })
        .collect();
    assert_eq!(cookies, [&b""[..], b"3", b"6"]);
    assert!(!run(&pool).await.counts.any());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_the_middle_of_a_page() {
    let cut = |id| {
        let whole = entry(id, &plain(4));
        vec![Deed::Send(entry(id, &plain(7))), Deed::Send(whole[..whole.len() / 2].to_vec()), Deed::HangUp]
    };
    let outcome = spoilt(at_page(2, cut)).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete);
    assert!(outcome.message.contains("the connection was lost"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_between_pages() {
    let outcome = spoilt(at_page(2, |_| vec![Deed::HangUp])).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_server() {
    for (code, result, word) in [
        (4, RunResult::ReadIncomplete, "sizeLimitExceeded"),
        (3, RunResult::ReadIncomplete, "timeLimitExceeded"),
        (11, RunResult::ReadIncomplete, "adminLimitExceeded"),
        (51, RunResult::ReadIncomplete, "busy"),
        (10, RunResult::DirectoryRefused, "referral"),
        (32, RunResult::DirectoryRefused, "noSuchObject"),
        (50, RunResult::DirectoryRefused, "insufficientAccessRights"),
        (12, RunResult::DirectoryRefused, "unavailableCriticalExtension"),
    ] {
        let end = move |id| vec![Deed::Send(entry(id, &plain(1))), Deed::Send(done(id, 0x65, code, "as told", None))];
        let outcome = spoilt(at_page(1, end)).await;
        assert_eq!(outcome.result, result, "{outcome:?}");
        assert!(outcome.message.contains(&format!("{code} {word}: as told")), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed() {
    let page = |n| at_page(n, |id| vec![Deed::Send(entry(id, &plain(1))), Deed::Silence]);
    let bind: Script = Arc::new(|_, ask| matches!(ask, Ask::Bind { .. }).then(|| vec![Deed::Silence]));
    let [first, second, bind] = [page(1), page(2), bind].map(|script| spoilt_within(SILENCE, script));
    let (first, second, bind) = tokio::join!(first, second, bind);
    for (outcome, result) in [
        (first, RunResult::ReadIncomplete),
        (second, RunResult::ReadIncomplete),
        (bind, RunResult::DirectoryUnavailable),
    ] {
        assert_eq!(outcome.result, result, "{outcome:?}");
        assert!(outcome.message.contains(SILENT), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_answer() {
    let nested = |depth: usize| {
        let mut octets = Vec::new();
        for _ in 0..depth {
            octets.extend([0x30, 0x84, 0, 0x7f, 0xff, 0xff]);
        }
        octets
    };
    let answers: Vec<(Vec<u8>, &str)> = vec![
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "begins with something else"),
        (vec![0x30, 0x80, 0, 0], "indefinite"),
        (vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], "longer than 8 MiB"),
        (vec![0x30, 3, 2, 1, 9], "cut off"),
        (message(2, 0x65, |_| ()), "cut off"),
        (message(2, 0x64, |_| ()), "cut off"),
        (message(2, 0x7e, |_| ()), "no known kind"),
        // An answer to nothing that was asked is passed over.
        (done(77, 0x65, 0, "", None), SILENT),
        (done(2, 0x61, 0, "", None), "an answer to another question"),
        // A parser that follows what is nested would run out of its stack here.
        ([vec![0x30, 0x84, 0, 0x40, 0, 0], nested(0x40_0000 / 6 + 1)].concat(), "does not speak LDAP"),
    ];
    for (octets, cause) in answers {
        let sent = octets.clone();
        let seconds = if cause == SILENT { SILENCE } else { PATIENCE };
        let answer = at_page(1, move |_| vec![Deed::Send(sent.clone()), Deed::Silence]);
        let outcome = spoilt_within(seconds, answer).await;
        assert_eq!(outcome.result, RunResult::ReadIncomplete, "{cause}: {outcome:?}");
        assert!(outcome.message.contains(cause), "{cause}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_octet_of_an_answer_is_survived() {
    let good = [entry(2, &plain(1)), done(2, 0x65, 0, "", Some(b""))].concat();
    for (at, flip) in (0..good.len()).flat_map(|at| [(at, 0x01), (at, 0x80)]) {
        let mut bad = good.clone();
        bad[at] ^= flip;
        let script = at_page(1, move |_| vec![Deed::Send(bad.clone()), Deed::HangUp]);
        let stub = Stub::new(Manner { script: Some(script), ..Manner::default() }).await;
        let mut pool = Pool::new();
        pool.config = stub.configuration();
        let outcome = run(&pool).await;
        assert_ne!(outcome.result, RunResult::InternalError, "octet {at}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_why_it_hangs_up() {
    let notice = |_| vec![Deed::Send(done(0, 0x78, 52, "shutting down", None)), Deed::HangUp];
    let outcome = spoilt(at_page(2, notice)).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete);
    assert!(outcome.message.contains("it hangs up (52 unavailable: shutting down)"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_end() {
    for entries in [people(1..=3), Vec::new()] {
        let again = move |id| {
            let mut deeds: Vec<Deed> = entries.iter().map(|known| Deed::Send(entry(id, known))).collect();
            deeds.push(Deed::Send(done(id, 0x65, 0, "", Some(b"again"))));
            deeds
        };
        let outcome = spoilt(at_page(1, again)).await;
        assert_eq!(outcome.result, RunResult::ReadIncomplete);
        assert!(outcome.message.contains("told nothing new"), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_pages_tells_everything_at_once() {
    let all = |id| {
        let mut deeds: Vec<Deed> = (1..=9).map(|n| Deed::Send(entry(id, &plain(n)))).collect();
        deeds.push(Deed::Send(done(id, 0x65, 0, "", None)));
        deeds
    };
    let outcome = spoilt(at_page(1, all)).await;
    assert_eq!((outcome.result, outcome.found), (RunResult::Synced, 9), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_would_fill_the_memory() {
    let mut huge = plain(1);
    huge.add("displayName", vec![vec![b'a'; 4 << 20]]);
    let all = move |id| (0..20).map(|_| Deed::Send(entry(id, &huge))).collect();
    let outcome = spoilt(at_page(1, all)).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete);
    assert!(outcome.message.contains("a page is longer than 64 MiB"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once() {
    let stubs = [Stub::new(Manner::default()).await, Stub::new(Manner::default()).await];
    let mut pool = Pool::new();
    pool.config = stubs[0].configuration();
    pool.config.ldap.urls.push(stubs[1].url.clone());
    std::fs::write(&pool.config.ldap.password_file, "wrong").unwrap();
    let outcome = run(&pool).await;
    assert_eq!(outcome.result, RunResult::DirectoryRefused);
    assert!(outcome.message.contains("wrong password (49 invalidCredentials"), "{outcome:?}");
    assert!(!outcome.message.contains("wrong\"") && !outcome.message.contains(PASSWORD));
    assert_eq!((stubs[0].binds(), stubs[1].binds()), (1, 0), "each attempt is a step towards a locked account");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_tried_when_one_is_lost() {
    let lost = at_page(2, |id| vec![Deed::Send(entry(id, &plain(77))), Deed::HangUp]);
    let first = Stub::new(Manner { entries: people(1..=9), script: Some(lost), ..Manner::default() }).await;
    let second = Stub::new(Manner { entries: people(1..=4), ..Manner::default() }).await;
    let mut pool = Pool::new();
    pool.config = second.configuration();
    let closed = "ldaps://127.0.0.1:1".to_owned();
    // The first one's certificate is of another CA; what it said counts for nothing in any case.
    pool.config.ldap.urls = vec![closed.clone(), first.url.clone(), second.url.clone()];
    let outcome = run(&pool).await;
    assert_eq!((outcome.result, outcome.found), (RunResult::Synced, 4), "{outcome:?}");
    pool.config = first.configuration();
    pool.config.ldap.urls = vec![closed.clone(), first.url.clone(), closed];
    let before = pool.known().await;
    let outcome = run(&pool).await;
    assert_eq!((outcome.result, pool.known().await), (RunResult::ReadIncomplete, before));
    assert_eq!(outcome.message.matches("cannot be reached: Connection refused").count(), 2, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_asked_for_by_its_escaped_name() {
    let group = "CN=Chat (all)*,DC=example,DC=com";
    let members = people([2, 3]).into_iter().map(|mut member| {
        member.attributes.retain(|(name, _)| name == "objectguid");
        member
    });
    let manner = Manner { entries: people(1..=4), members: members.collect(), ..Manner::default() };
    let stub = Stub::new(manner).await;
    let mut pool = Pool::new();
    pool.config = stub.configuration();
    pool.config.mapping.enabled.group = group.to_owned();
    pool.config.mapping.enabled.nested = true;
    let outcome = run(&pool).await;
    assert_eq!((outcome.result, pool.users().await), (RunResult::Synced, vec!["p2 on".to_owned(), "p3 on".to_owned()]));
    let seen = stub.seen();
    assert!(seen.iter().any(|ask| matches!(ask, Ask::Search { scope: 0, base, .. } if base == group)));
    let asked = seen.iter().any(|ask| match ask {
        Ask::Search { filter, attributes, .. } => {
            let text = String::from_utf8_lossy(filter);
            text.contains("1.2.840.113556.1.4.1941") && text.contains(group) && attributes.len() == 2
        }
        _ => false,
    });
    assert!(asked, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_there_is_said_to_be_so() {
    let mut pool = Pool::new();
    let script: Script = Arc::new(|id, ask| {
        matches!(ask, Ask::Search { scope: 0, .. }).then(|| vec![Deed::Send(done(id, 0x65, 32, "", None))])
    });
    let stub = Stub::new(Manner { entries: people(1..=4), script: Some(script), ..Manner::default() }).await;
    pool.config = stub.configuration();
    pool.config.mapping.enabled.group = "CN=Nobody".to_owned();
    let outcome = run(&pool).await;
    assert_eq!(outcome.result, RunResult::DirectoryRefused);
    assert!(outcome.message.contains("the group `CN=Nobody` (mapping.enabled.group) cannot be read"), "{outcome:?}");
}

async fn checked(stub: &Stub) -> (bool, Vec<Line>) {
    checked_with(stub, |_| ()).await
}

async fn checked_with(stub: &Stub, change: impl FnOnce(&mut Directory)) -> (bool, Vec<Line>) {
    let mut config = stub.configuration();
    change(&mut config);
    let mut lines = Vec::new();
    let domains = ["example.com".to_owned()];
    let good = check(&config, &domains, None, |line| lines.push(line.clone())).await.unwrap();
    (good, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_each_step() {
    let mut entries = people(1..=4);
    entries.push(Entry::new("CN=Nobody", &[("objectGUID", &["0123456789abcdef"]), ("userAccountControl", &["514"])]));
    let stub = Stub::new(Manner { entries, ..Manner::default() }).await;
    let (good, lines) = checked(&stub).await;
    let steps: Vec<(&str, Status)> = lines.iter().map(|line| (line.step, line.status)).collect();
    use Status::{Good, Warning};
    let expected =
        [("tls", Good), ("bind", Good), ("read", Good), ("users", Good), ("addresses", Good), ("enabled", Good)];
    assert_eq!((good, &steps[..6]), (true, &expected[..]), "{lines:?}");
    assert!(lines[0].detail.contains("is for 127.0.0.1 until 20"), "{lines:?}");
    assert!(lines[3].detail.starts_with("5 entries"), "{lines:?}");
    assert_eq!(lines[4].detail, "4 with an address, 0 with one that cannot be used, 1 with none");
    assert_eq!(lines[5].detail, "4 may sign in by their own entry, 1 are switched off, 0 are not enabled");
    assert_eq!((lines[6].step, lines[6].status), ("attributes", Warning));
    assert!(lines[6].detail.starts_with("no entry has msRTCSIP-PrimaryUserAddress, proxyAddresses"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_is_in_the_way() {
    let stub = Stub::new(Manner::default()).await;
    let (good, lines) = checked(&stub).await;
    assert!(!good && lines.last().unwrap().detail.ends_with("finds nobody"), "{lines:?}");
    let off = |n| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["514"])]);
    let elsewhere = |n| person(n, "", &[("msRTCSIP-PrimaryUserAddress", &["sip:a@elsewhere.example"])]);
    for (entries, group, step) in [
        ((1..=3).map(|n| person(n, "", &[])).collect(), "", "addresses"),
        ((1..=3).map(elsewhere).collect(), "", "addresses"),
        ((1..=3).map(off).collect(), "", "enabled"),
        (people(1..=3), "CN=Domain Users,DC=example,DC=com", "group"),
    ] {
        let stub = Stub::new(Manner { entries, ..Manner::default() }).await;
        let (good, lines) = checked_with(&stub, |config| config.mapping.enabled.group = group.to_owned()).await;
        let failed: Vec<&str> =
            lines.iter().filter(|line| line.status == Status::Failed).map(|line| line.step).collect();
        assert_eq!((good, failed), (false, vec![step]), "{lines:?}");
    }
    let mut veiled = people(1..=3);
    veiled[1].attributes.retain(|(name, _)| name != "useraccountcontrol");
    let veiled = Stub::new(Manner { entries: veiled, ..Manner::default() }).await;
    let (good, lines) = checked(&veiled).await;
    let failed: Vec<&Line> = lines.iter().filter(|line| line.status == Status::Failed).collect();
    assert!(!good && failed.len() == 1 && failed[0].detail.starts_with("1 entries do not show"), "{lines:?}");
    let flawed = Stub::new(Manner { flaw: crate::pki::Flaw::Expired, ..Manner::default() }).await;
    let (good, lines) = checked(&flawed).await;
    assert!(!good && lines.len() == 1 && lines[0].detail.contains("has expired"), "{lines:?}");
    let limited = at_page(2, |id| vec![Deed::Send(done(id, 0x65, 4, "", None))]);
    let limited = Stub::new(Manner { entries: people(1..=9), script: Some(limited), ..Manner::default() }).await;
    let (good, lines) = checked(&limited).await;
    let last = lines.last().unwrap();
    assert!(!good && last.status == Status::Failed && last.detail.contains("sizeLimitExceeded"), "{lines:?}");
}
