//! Servers and replicators that die at any moment, and two replicators at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_harness::directory::{Directory, Kind, Ldif, Person};
use commpool_model::directory::RunResult;
use commpool_tests::directory::{Backend, Replica, User, directory, exit, outcome};
use commpool_tests::server::DOMAIN;
use rustix::process::Signal;

use crate::ready;

const CROWD: u32 = 2000;
/// How often a replicator is killed after some time, whatever it is about.
const KILLS: u32 = 10;
/// Where it is killed for sure: while it takes the lease, reads who is known, puts rows aside; as the first and the last of
/// what it applies is written.
const PLACES: [&str; 5] = [
    "lease in exclusive mode",
    "identity in access exclusive mode",
    "incoming in exclusive mode",
    "account in exclusive mode",
    "source in exclusive mode",
];
const END: Duration = Duration::from_secs(60);

/// Those who are in the directory, as the store has them.
fn present(replica: &Replica) -> Result<BTreeMap<String, User>> {
    Ok(replica.users()?.into_iter().filter(|(_, user)| !user.lapsed).collect())
}

fn server_killed(test: &str, kind: Kind) -> Result<()> {
    if !ready(test) {
        return Ok(());
    }
    let mut lab = directory(kind, CROWD)?;
    let mut replica = Replica::new(Backend::Sqlite, lab.access())?;
    replica.section.page = 50;
    let start = Instant::now();
    let (code, _, _) = replica.replicator(&["plan", "--format", "json"])?;
    ensure!(code == exit::CHANGES, "plan: exit code {code}");
    let whole = start.elapsed();
    let mut in_the_middle = 0;
    for tenths in [2, 4, 6, 8] {
        let mut run = replica.begin(&["run"])?;
        std::thread::sleep(whole * tenths / 10);
        lab.kill9()?;
        let status = run.wait(END)?;
        let outcome = outcome(&run.text(commpool_harness::process::Stream::Out))?;
        if status.code() == Some(exit::DONE) {
            // It had read everything by then.
            break;
        }
        ensure!(status.code() == Some(exit::FAILED), "{status}, {outcome:?}");
        ensure!(matches!(outcome.result, RunResult::DirectoryUnavailable | RunResult::ReadIncomplete), "{outcome:?}");
        ensure!(replica.users()?.is_empty(), "part of the directory was taken for all of it");
        in_the_middle += 1;
        lab.start_again()?;
    }
    ensure!(in_the_middle > 0, "the server was never killed before all was read, {whole:?}");
    lab.stop()?;
    lab.start_again()?;
    replica.synced()?;
    ensure!(replica.users()?.len() == CROWD as usize);
    Ok(())
}

#[test]
fn an_active_directory_killed_while_it_is_read() -> Result<()> {
    server_killed("an_active_directory_killed_while_it_is_read", Kind::Samba)
}

#[test]
fn an_openldap_killed_while_it_is_read() -> Result<()> {
    server_killed("an_openldap_killed_while_it_is_read", Kind::OpenLdap)
}

/// Each time many users change, two swap their addresses, one goes and one comes.
fn changed(lab: &Directory, kind: Kind, number: u32) -> Result<()> {
    let (attribute, prefix) = kind.sip_attribute();
    let login = |offset: u32| Person::numbered(number * 40 + offset, DOMAIN).login;
    let titles = (0..30).fold(Ldif::new(), |ldif, offset| {
        ldif.replace(&kind.dn(&login(offset)), "title", &[format!("Title {number}")])
    });
    let address = |offset: u32| format!("{prefix}{}@{DOMAIN}", login(offset));
    let changes = titles
        .replace(&kind.dn(&login(31)), attribute, &[address(32)])
        .replace(&kind.dn(&login(32)), attribute, &[address(31)])
        .delete(&kind.dn(&login(33)))
        .insert(&Person::new(&format!("new{number}"), "New", DOMAIN).entry(kind));
    lab.apply(&changes)
}

#[test]
fn a_replicator_killed_at_any_moment_leaves_what_a_fresh_read_would() -> Result<()> {
    if !ready("a_replicator_killed_at_any_moment_leaves_what_a_fresh_read_would") {
        return Ok(());
    }
    let kind = Kind::OpenLdap;
    let lab = directory(kind, CROWD)?;
    let mut replica = Replica::new(Backend::Postgres, lab.access())?;
    // What runs that were killed did not do may be more than a day's changes.
    replica.section.removal = "maxPercent: 100\nmaxCount: 1000".to_owned();
    replica.synced()?;
    changed(&lab, kind, 0)?;
    let start = Instant::now();
    replica.synced()?;
    let whole = start.elapsed();
    let mut numbers = 1..;
    let mut change = || changed(&lab, kind, numbers.next().unwrap_or_default());
    for part in 0..KILLS {
        change()?;
        let mut run = replica.begin(&["run"])?;
        std::thread::sleep(whole * (part * 3 % KILLS) / KILLS);
        // Some have ended by then, and did what they were to do.
        let _ = run.signal(Signal::KILL);
        run.wait(END)?;
        replica.deserted()?;
        replica.expire_lease()?;
    }
    for place in PLACES {
        change()?;
        replica.killed_at(place).with_context(|| place.to_owned())?;
        if place != PLACES[PLACES.len() - 1] {
            replica.expire_lease()?;
        }
    }
    // The last one's lease has most of its minute left, and nobody gives it back.
    ensure!(replica.leased()?, "the last one was killed before it had the lease");
    replica.synced()?;
    let fresh = Replica::new(Backend::Sqlite, lab.access())?;
    fresh.synced()?;
    let (kept, read) = (present(&replica)?, present(&fresh)?);
    let differ = read.iter().find(|(address, user)| kept.get(*address) != Some(user));
    ensure!(kept == read, "{} and {} users; {differ:?}", kept.len(), read.len());
    ensure!(!replica.synced()?.counts.any());
    Ok(())
}

#[test]
fn of_two_replicators_at_once_one_runs_and_then_the_other() -> Result<()> {
    if !ready("of_two_replicators_at_once_one_runs_and_then_the_other") {
        return Ok(());
    }
    let lab = directory(Kind::OpenLdap, CROWD)?;
    let replica = Replica::new(Backend::Postgres, lab.access())?;
    let mut runs = [replica.begin(&["run"])?, replica.begin(&["run"])?];
    let mut results = Vec::new();
    for run in &mut runs {
        let code = run.wait(END)?.code();
        let outcome = outcome(&run.text(commpool_harness::process::Stream::Out))?;
        results.push((code, outcome.result, outcome.counts.added));
    }
    // Whoever comes second finds everybody there, or has seen the first one take long: never do both read and write.
    results.sort_by_key(|(_, _, added)| *added);
    let done = |added| (Some(exit::DONE), RunResult::Synced, added);
    let second = [done(0), (Some(exit::BUSY), RunResult::Busy, 0)];
    ensure!(second.contains(&results[0]) && results[1] == done(u64::from(CROWD)), "{results:?}");
    ensure!(replica.users()?.len() == CROWD as usize);
    ensure!(!replica.synced()?.counts.any());
    Ok(())
}
