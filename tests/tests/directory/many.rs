//! Two thousand users: many of them gone at once, and what a held plan needs to be let go.

use anyhow::{Result, ensure};
use commpool_harness::directory::{Kind, Person};
use commpool_model::directory::RunResult;
use commpool_tests::directory::{Backend, Replica, directory, exit};
use commpool_tests::server::DOMAIN;

use crate::ready;

/// How many there are, and how many go.
const ALL: u32 = 2000;
const GONE: u32 = 500;

/// How many may sign in, and how many are waiting for their removal.
fn count(replica: &Replica) -> Result<(usize, usize)> {
    let users = replica.users()?;
    Ok((users.values().filter(|user| user.on).count(), users.values().filter(|user| user.lapsed).count()))
}

fn held(test: &str, kind: Kind) -> Result<()> {
    if !ready(test) {
        return Ok(());
    }
    let lab = directory(kind, ALL)?;
    let mut replica = Replica::new(Backend::Postgres, lab.access())?;
    replica.section.base_dn = kind.unit("People");
    let outcome = replica.synced()?;
    ensure!(outcome.counts.added == u64::from(ALL), "{outcome:?}");
    let written = replica.rows_written()?;
    ensure!(!replica.synced()?.counts.any() && replica.rows_written()? == written, "an unchanged directory wrote rows");

    let names: Vec<String> = (0..GONE).map(|number| Person::numbered(number, DOMAIN).login).collect();
    lab.delete(names.iter().map(String::as_str))?;
    lab.add(&[Person::new("newcomer", "Newcomer", DOMAIN)])?;
    let (code, steps) = replica.plan()?;
    ensure!(code == exit::HELD, "plan: exit code {code}, {:?}", steps.last());
    let (code, outcome) = replica.run()?;
    ensure!(code == exit::HELD && outcome.result == RunResult::DeletionHeld, "exit code {code}, {outcome:?}");
    ensure!(outcome.counts.missing == u64::from(GONE) && !outcome.plan_digest.is_empty(), "{outcome:?}");
    ensure!(count(&replica)? == (ALL as usize, 0), "{:?}", count(&replica)?);
    ensure!(replica.rows_written()? == written, "a held run wrote rows");

    replica.section.removal = "releaseDigest: \"0123456789abcdef\"".to_owned();
    ensure!(replica.run()?.0 == exit::HELD, "another plan's digest let it go");
    replica.section.removal = format!("releaseDigest: \"{}\"", outcome.plan_digest);
    let released = replica.synced()?;
    ensure!(released.counts.missing == u64::from(GONE) && released.counts.added == 1, "{released:?}");
    ensure!(count(&replica)? == ((ALL - GONE + 1) as usize, GONE as usize), "{:?}", count(&replica)?);

    // The digest lets that plan go and no other.
    let more: Vec<String> = (GONE..2 * GONE).map(|number| Person::numbered(number, DOMAIN).login).collect();
    lab.delete(more.iter().map(String::as_str))?;
    ensure!(replica.run()?.0 == exit::HELD, "an old digest let a new plan go");
    Ok(())
}

#[test]
fn five_hundred_of_two_thousand_gone_from_active_directory_are_held() -> Result<()> {
    held("five_hundred_of_two_thousand_gone_from_active_directory_are_held", Kind::Samba)
}

#[test]
fn five_hundred_of_two_thousand_gone_from_openldap_are_held() -> Result<()> {
    held("five_hundred_of_two_thousand_gone_from_openldap_are_held", Kind::OpenLdap)
}
