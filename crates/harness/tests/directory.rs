//! Both directories are made, changed, killed, found again, and stand in a network of their own.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use commpool_harness::Workspace;
use commpool_harness::command::{output, succeeds};
use commpool_harness::directory::{Access, Directory, Kind, Ldif, Person, Place, Settings, can_run, left, people};
use commpool_harness::netns::Namespace;

const DOMAIN: &str = "example.com";

/// An address of this test program's own.
fn address(number: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, number, high, low)
}

/// What a search as `bind_dn` prints: distinguished names, and what is asked for.
fn search(access: &Access, bind_dn: &std::path::Path, url: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ldapsearch");
    command.env("LDAPTLS_CACERT", &access.ca_file).args(["-x", "-LLL", "-o", "ldif_wrap=no", "-H", url]);
    if url.starts_with("ldap:") {
        command.arg("-ZZ");
    }
    command.arg("-D").arg(std::fs::read_to_string(bind_dn)?).arg("-y").arg(&access.password_file);
    command.args(["-E", "pr=500/noprompt", "-b", &access.kind.unit("People")]).args(arguments);
    output(&mut command)
}

fn check(kind: Kind, number: u8) -> Result<()> {
    let settings = Settings { crowd: 1200, ..Settings::new(Place::here(address(number)), DOMAIN) };
    let mut directory = Directory::start(&Workspace::find()?, kind, &settings)?;
    let access = directory.access().clone();
    directory.add(&people::demo(DOMAIN))?;
    let dn = kind.dn("alice");
    directory.apply(&Ldif::new().replace(&dn, "title", &["Chief"]))?;
    directory.apply(&Ldif::new().move_below(&kind.dn("bob"), &kind.unit("Elsewhere")))?;
    directory.add(&[Person::new("yan", "Yan", DOMAIN)])?;
    directory.apply(&kind.enable("carol", false))?;
    directory.delete(["dave"])?;
    directory.apply(&Ldif::new().insert(&kind.group("staff", std::slice::from_ref(&dn))))?;
    let (attribute, prefix) = kind.sip_attribute();
    for url in [&access.ldaps, &access.ldap] {
        let found =
            search(&access, &access.bind_dn_file, url, &["(telephoneNumber=*)", "title", attribute, "memberOf"])?;
        assert_eq!(found.matches("dn:").count(), 1200 + 9, "{found}");
        assert!(found.contains("title: Chief") && found.contains(&format!("{attribute}: {prefix}alice@{DOMAIN}")));
        assert!(found.to_lowercase().contains("memberof: cn=staff"), "{found}");
    }
    let blind = search(&access, &access.blind_dn_file, &access.ldaps, &["(telephoneNumber=*)", "title"]);
    assert!(!blind.as_ref().is_ok_and(|text| text.contains("dn:")), "somebody without rights sees {blind:?}");

    directory.kill9()?;
    assert!(search(&access, &access.bind_dn_file, &access.ldaps, &["(cn=x)"]).is_err());
    directory.start_again()?;
    let again = search(&access, &access.bind_dn_file, &access.ldaps, &["(title=Chief)", "title"])?;
    assert_eq!(again.matches("dn:").count(), 1);

    let taken = Directory::start(&Workspace::find()?, kind, &settings).map(drop).unwrap_err().to_string();
    assert!(taken.contains("is taken by") && taken.contains("another address"), "{taken}");
    Ok(())
}

#[test]
fn samba_is_made_and_changed() -> Result<()> {
    if !can_run("samba_is_made_and_changed") {
        return Ok(());
    }
    check(Kind::Samba, 201)
}

#[test]
fn openldap_is_made_and_changed() -> Result<()> {
    if !can_run("openldap_is_made_and_changed") {
        return Ok(());
    }
    check(Kind::OpenLdap, 202)
}

#[test]
fn one_in_a_namespace_runs_on_when_left_and_is_found() -> Result<()> {
    if !can_run("one_in_a_namespace_runs_on_when_left_and_is_found") {
        return Ok(());
    }
    let id = std::process::id();
    let (near, far) = (Namespace::create(&format!("cp{id}n"))?, Namespace::create(&format!("cp{id}f"))?);
    near.connect(("eth0", "198.18.3.1/30"), &far, ("eth0", "198.18.3.2/30"))?;
    for kind in [Kind::Samba, Kind::OpenLdap] {
        let folder = tempfile::tempdir()?;
        let place = Place::within(&near, Ipv4Addr::new(198, 18, 3, 1));
        let settings = Settings { folder: Some(folder.path().to_owned()), ..Settings::new(place, DOMAIN) };
        let directory = Directory::start(&Workspace::find()?, kind, &settings)?;
        let ldap = directory.access().ldap.clone();
        directory.leave()?;
        let ask =
            || succeeds(far.command("ldapsearch").args(["-x", "-H", &ldap, "-b", "", "-s", "base", "namingContexts"]));
        assert!(ask(), "{} is not reached from the other network", kind.name());
        left(folder.path()).context("it is not found")?.end(Duration::from_secs(20))?;
        assert!(left(folder.path()).is_none() && !ask());
    }
    Ok(())
}
