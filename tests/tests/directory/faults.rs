//! Servers and replicators that die at any moment, and two replicators at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_harness::directory::{Kind, Ldif, Person};
use commpool_model::directory::RunResult;
use commpool_tests::directory::{Backend, Replica, User, directory, exit, outcome};
use commpool_tests::server::DOMAIN;
use rustix::process::Signal;

use crate::ready;

const CROWD: u32 = 2000;
/// How often a replicator is killed.
const KILLS: u32 = 20;
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

#[test]
fn a_replicator_killed_at_any_moment_leaves_what_a_fresh_read_would() -> Result<()> {
    if !ready("a_replicator_killed_at_any_moment_leaves_what_a_fresh_read_would") {
        return Ok(());
    }
    let kind = Kind::OpenLdap;
    let lab = directory(kind, CROWD)?;
    let mut replica = Replica::new(Backend::Postgres, lab.access())?;
    let start = Instant::now();
    replica.synced()?;
    let whole = start.elapsed();
    let (attribute, prefix) = kind.sip_attribute();
    let mut killed = 0;
    for number in 0..KILLS {
        // Each time many users change, two swap their addresses, one goes and one comes.
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
        lab.apply(&changes)?;
        let mut run = replica.begin(&["run"])?;
        std::thread::sleep(whole * (number * 7 % KILLS) / KILLS);
        if run.signal(Signal::KILL).is_ok() {
            killed += 1;
        }
        run.wait(END)?;
        replica.expire_lease()?;
    }
    ensure!(killed > KILLS / 2, "only {killed} were killed before they ended");
    replica.section.removal = "maxPercent: 100".to_owned();
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
    // Whoever comes second finds everybody there: he did not read and write beside the first.
    results.sort_by_key(|(_, _, added)| *added);
    let done = |added| (Some(exit::DONE), RunResult::Synced, added);
    ensure!(results == [done(0), done(u64::from(CROWD))], "{results:?}");
    ensure!(replica.users()?.len() == CROWD as usize);
    ensure!(!replica.synced()?.counts.any());
    Ok(())
}
