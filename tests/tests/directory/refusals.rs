//! What keeps a run from reading: nothing changes, and the outcome names the cause.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::directory::{Directory, Kind, Place, Settings, people};
use commpool_harness::pki::Authority;
use commpool_model::directory::RunResult;
use commpool_tests::directory::{Backend, Replica, directory, exit};
use commpool_tests::server::{DOMAIN, own_address};

use crate::ready;

/// A run that fails with this result and one of these words, and changes nothing.
fn refused(replica: &Replica, what: &str, results: &[RunResult], words: &[&str]) -> Result<()> {
    let before = replica.users()?;
    let (code, outcome) = replica.run()?;
    ensure!(code == exit::FAILED && results.contains(&outcome.result), "{what}: exit code {code}, {outcome:?}");
    let text = outcome.message.to_lowercase();
    ensure!(words.iter().any(|word| text.contains(word)), "{what}: none of {words:?} in {}", outcome.message);
    ensure!(replica.users()? == before, "{what}: something changed");
    Ok(())
}

fn refusals(test: &str, kind: Kind) -> Result<()> {
    use RunResult::{DirectoryRefused, DirectoryUnavailable, ReadIncomplete};
    if !ready(test) {
        return Ok(());
    }
    let mut lab = directory(kind, 0)?;
    lab.add(&people::demo(DOMAIN))?;
    let mut replica = Replica::new(Backend::Sqlite, lab.access())?;
    let good = replica.section.clone();
    // By StartTLS, and by a second server when the first one is away.
    replica.section.urls = vec!["ldaps://127.0.0.1:9".to_owned(), lab.access().ldap.clone()];
    replica.synced()?;
    ensure!(replica.users()?.len() > 5);

    let wrong = replica.folder().join("wrong");
    std::fs::write(&wrong, "not-the-password-0815\n")?;
    replica.section.password_file = wrong;
    refused(&replica, "wrong password", &[DirectoryRefused], &["password"])?;
    replica.section = good.clone();

    replica.section.bind_dn_file = lab.access().blind_dn_file.clone();
    // An Active Directory shows such an account its own people, and none of those below.
    refused(&replica, "no right to read", &[DirectoryRefused, ReadIncomplete], &["may not see", "may not read"])?;
    replica.section = good.clone();

    replica.section.filter = "(title=nobody has this)".to_owned();
    refused(&replica, "an empty answer", &[ReadIncomplete], &["nobody", "no user", "empty", "found"])?;
    replica.section = good.clone();

    replica.section.base_dn = "OU=Missing,".to_owned() + kind.base();
    refused(
        &replica,
        "a base that is not there",
        &[DirectoryRefused, ReadIncomplete],
        &["nosuchobject", "no such object", "base"],
    )?;
    replica.section = good.clone();

    let other = Authority::make(&replica.folder().join("other"), "ca")?;
    replica.section.ca_file = other.certificate();
    for url in [lab.access().ldaps.clone(), lab.access().ldap.clone()] {
        replica.section.urls = vec![url];
        refused(&replica, "another CA", &[DirectoryUnavailable], &["certificate", "issuer", "ca"])?;
    }
    replica.section = good.clone();

    let std::net::IpAddr::V4(address) = own_address() else { anyhow::bail!("no IPv4 address") };
    let settings =
        Settings { names: Some("DNS:elsewhere.test".to_owned()), ..Settings::new(Place::here(address), DOMAIN) };
    let elsewhere = Directory::start(&Workspace::find()?, kind, &settings)?;
    replica.section.urls = vec![elsewhere.access().ldaps.clone()];
    replica.section.ca_file = elsewhere.access().ca_file.clone();
    refused(&replica, "a certificate of another host", &[DirectoryUnavailable], &["name", "host"])?;
    replica.section = good.clone();

    // Only here silence is waited for.
    replica.section.timeout = 3;
    lab.pause()?;
    let start = Instant::now();
    refused(
        &replica,
        "a server that stands still",
        &[DirectoryUnavailable, ReadIncomplete],
        &["answer", "time", "silent", "seconds"],
    )?;
    ensure!(start.elapsed() < Duration::from_secs(20), "given up only after {:?}", start.elapsed());
    lab.resume()?;
    replica.section = good;
    ensure!(!replica.synced()?.counts.any());

    lab.kill9()?;
    refused(&replica, "no server", &[DirectoryUnavailable], &["refused", "reach", "connect"])?;
    lab.start_again()?;
    ensure!(!replica.synced()?.counts.any());
    Ok(())
}

#[test]
fn an_active_directory_that_cannot_be_read_changes_nothing() -> Result<()> {
    refusals("an_active_directory_that_cannot_be_read_changes_nothing", Kind::Samba)
}

#[test]
fn an_openldap_that_cannot_be_read_changes_nothing() -> Result<()> {
    refusals("an_openldap_that_cannot_be_read_changes_nothing", Kind::OpenLdap)
}
