//! F4: every front end is replaced while people talk: nobody loses a word, nobody seems to have gone. And so is the
//! certificate between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_harness::command::say;
use commpool_harness::pki::Authority;
use commpool_harness::wait;
use commpool_tests::client::{PATIENCE, expect, unique};
use commpool_tests::link::Transport;
use commpool_tests::pool::{Pool, Setup};
use commpool_tests::roamer::Roamer;
use commpool_tests::watch::{Notice, Watch};

/// From SIGTERM to the end, seconds: time for the VIP to look away, for clients to move, and for what waits for them.
const DRAIN: u32 = 30;

/// One who talks to another until told to stop: texts, how each was answered, and how long that took.
async fn talk(from: Arc<Roamer>, to: String, stop: Arc<AtomicBool>) -> Result<BTreeMap<String, (u16, Duration)>> {
    let mut said = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let text = unique("text ");
        let (answer, took) = from.say(&to, &text).await?;
        said.insert(text, (answer.status().unwrap_or_default(), took));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(said)
}

/// Everybody watches the next one.
async fn watch_each_other(people: &[Arc<Roamer>]) -> Result<Vec<Watch>> {
    let mut watches = Vec::new();
    for (n, one) in people.iter().enumerate() {
        let client = one.now();
        let mut watch = client.watch(&people[(n + 1) % people.len()].aor()).await?;
        client.notice(&mut watch, "the first state", PATIENCE, Notice::is_open).await?;
        watches.push(watch);
    }
    Ok(watches)
}

/// Talks while `replace` is carried out, and judges what everybody saw.
async fn under_load(pool: Pool, replace: impl AsyncFnOnce(&mut Pool) -> Result<()>, most: usize) -> Result<()> {
    let mut pool = pool;
    let mut people = Vec::new();
    for (n, user) in ["alice", "bob", "carol", "dave", "erin", "frank"].iter().enumerate() {
        let transport = [Transport::Tls, Transport::Tcp][n / 3];
        people.push(Arc::new(pool.roamer(user, n % 3, transport).await?));
    }
    let mut watches = watch_each_other(&people).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let talkers: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(n, one)| tokio::spawn(talk(Arc::clone(one), people[(n + 1) % people.len()].aor(), Arc::clone(&stop))))
        .collect();
    let start = Instant::now();
    replace(&mut pool).await?;
    say(&format!("F4: replaced after {:?}", start.elapsed()));
    stop.store(true, Ordering::Relaxed);
    let (mut texts, mut slowest, mut refused) = (0, Duration::ZERO, Vec::new());
    for (n, talker) in talkers.into_iter().enumerate() {
        let hearer = &people[(n + 1) % people.len()];
        for (text, (status, took)) in talker.await?? {
            (texts, slowest) = (texts + 1, slowest.max(took));
            let heard = hearer.times_heard(&text)?;
            ensure!(heard <= 1, "{} heard a text {heard} times", hearer.aor());
            ensure!(status != 200 || heard == 1, "answered 200 and not heard by {}", hearer.aor());
            if status != 200 {
                refused.push((hearer.aor(), status, heard, took));
            }
        }
    }
    let returns: Vec<_> = people.iter().map(|one| (one.aor(), one.returns())).collect();
    let number: usize = returns.iter().map(|(_, returns)| returns.len()).sum();
    say(&format!("F4: {texts} texts, the slowest answered after {slowest:?}; refused: {refused:?}"));
    let longest = returns.iter().flat_map(|(_, returns)| returns).map(|back| back.took).max();
    say(&format!("F4: {number} reconnects of {} clients, the slowest {longest:?}", people.len()));
    ensure!(refused.is_empty(), "failed between people who came back: {refused:?}");
    ensure!(returns.iter().all(|(_, returns)| (1..=most).contains(&returns.len())), "reconnects: {returns:?}");
    for (watcher, watch) in people.iter().zip(&mut watches) {
        watcher.notices(watch)?;
        ensure!(watch.ends == 0, "{} saw a false end {} times", watcher.aor(), watch.ends);
    }
    // What each watches has followed.
    for one in &people {
        one.now().publish("open", Some("meeting"), None, None).await?;
    }
    for (watcher, watch) in people.iter().zip(&mut watches) {
        watcher.sees(watch, "a change afterwards", PATIENCE, |notice| notice.is_doing("meeting")).await?;
    }
    drop(people);
    pool.finish()
}

fn setup() -> Setup {
    let users = ["erin", "frank"].map(|user| (user.to_owned(), unique("password"))).to_vec();
    Setup { spares: 3, drain: Some(DRAIN), users, ..Setup::default() }
}

const ENDED: Duration = Duration::from_secs(DRAIN as u64 + 10);

/// As a Deployment with a full surge does it: each that is ready relieves one of the old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_all_are_replaced_by_as_many_new_ones() -> Result<()> {
    let replace = async |pool: &mut Pool| {
        for n in 0..3 {
            pool.front_end_mut(3 + n).start()?;
            pool.front_end_mut(n).tell_to_end()?;
        }
        for n in 0..3 {
            pool.front_end_mut(n).until_ended(ENDED)?;
        }
        Ok(())
    };
    under_load(Pool::with(setup())?, replace, 1).await
}

/// One after the other in place, as on machines without room for more: who is moved to one that goes later moves again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_each_is_restarted_after_the_other() -> Result<()> {
    let replace = async |pool: &mut Pool| {
        for n in 0..3 {
            pool.front_end_mut(n).tell_to_end()?;
            pool.front_end_mut(n).until_ended(ENDED)?;
            pool.front_end_mut(n).start()?;
        }
        Ok(())
    };
    under_load(Pool::with(setup())?, replace, 3).await
}

/// The front ends that run have taken up so many certificates.
fn have_taken_up(pool: &Pool, certificates: usize) -> Result<()> {
    let taken = |n: usize| pool.front_end(n).log().matches("certificate between front ends replaced").count();
    wait::until("the new certificate being taken up", Duration::from_secs(30), || {
        Ok((0..2).all(|n| taken(n) >= certificates).then_some(()))
    })
}

/// As the operator does it: for a while both authorities are trusted. Front ends that came before the change and after it
/// reach each other all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_between_them_is_renewed_by_another_authority() -> Result<()> {
    let mut pool = Pool::start()?;
    let configuration = pool.configuration(0)?;
    let name =
        configuration.lines().find_map(|line| line.trim().strip_prefix("serverName:")).context("no name")?.trim();
    let folder = tempfile::tempdir()?;
    let authority = Authority::make(folder.path(), "authority")?;
    authority.issue("peers", "/CN=peers", "serverAuth,clientAuth", Some(&format!("DNS:{name}")))?;
    let old = std::fs::read_to_string(pool.data().join("peers-ca.crt"))?;
    let new = std::fs::read_to_string(authority.certificate())?;

    std::fs::write(pool.data().join("peers-ca.crt"), old + &new)?;
    have_taken_up(&pool, 1)?;
    for ending in ["key", "crt"] {
        let to = pool.data().join(format!("peers-tls.{ending}"));
        std::fs::copy(folder.path().join(format!("peers.{ending}")), to)?;
    }
    have_taken_up(&pool, 2)?;
    std::fs::write(pool.data().join("peers-ca.crt"), new)?;
    // It knows nothing but the new authority, and those that were there before are reached and let it in.
    pool.front_end_mut(2).kill()?;
    pool.front_end_mut(2).start()?;
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    let bob = pool.signed_in("bob", 2, Transport::Tls).await?;
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let text = unique("across ");
        expect(from.say(&to.aor(), &text).await?, 200)?;
        to.hears(&text).await?;
    }
    for n in 0..3 {
        let log = pool.front_end(n).log();
        ensure!(!log.contains("its certificate is not of this pool"), "front end {n} let somebody not in:\n{log}");
    }
    pool.finish()
}
