//! Who may sign in by membership of a group, also through groups in it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use commpool_harness::directory::{Kind, Ldif, people};
use commpool_tests::directory::{Backend, Replica, directory};
use commpool_tests::server::DOMAIN;

use crate::ready;

/// Logins of those who may sign in.
fn on(replica: &Replica) -> Result<BTreeSet<String>> {
    let users = replica.users()?.into_iter().filter(|(_, user)| user.on);
    Ok(users.map(|(address, _)| address.split('@').next().unwrap_or_default().to_owned()).collect())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn groups(test: &str, kind: Kind) -> Result<()> {
    if !ready(test) {
        return Ok(());
    }
    let lab = directory(kind, 0)?;
    lab.add(&people::demo(DOMAIN))?;
    let (staff, chat) = (kind.group("staff", &[kind.dn("carol"), kind.dn("erin")]), "chat");
    // Erin is disabled, whatever group she is in.
    let chat = kind.group(chat, &[kind.dn("alice"), kind.dn("bob"), staff.dn().to_owned()]);
    lab.apply(&Ldif::new().insert(&staff).insert(&chat))?;
    let mut replica = Replica::new(Backend::Sqlite, lab.access())?;
    let (direct, through) = (set(&["alice", "bob"]), set(&["alice", "bob", "carol"]));
    let plain = replica.section.mapping.clone();
    let by_group = |nested: bool| {
        let own = if kind == Kind::Samba { "" } else { "attribute: labSipEnabled, " };
        let without: String =
            plain.lines().filter(|line| !line.starts_with("enabled")).map(|line| format!("{line}\n")).collect();
        format!("{without}enabled: {{{own}group: \"{}\", nested: {nested}}}\n", chat.dn())
    };
    replica.section.mapping = by_group(false);
    replica.synced()?;
    ensure!(on(&replica)? == direct, "{:?}", on(&replica)?);
    if kind == Kind::Samba {
        replica.section.mapping = by_group(true);
        replica.synced()?;
        ensure!(on(&replica)? == through, "{:?}", on(&replica)?);
        lab.apply(&Ldif::new().take(staff.dn(), "member", &kind.dn("carol")))?;
        replica.synced()?;
        ensure!(on(&replica)? == direct, "{:?}", on(&replica)?);
    }
    lab.apply(&Ldif::new().put(chat.dn(), "member", &kind.dn("dave")).take(chat.dn(), "member", &kind.dn("bob")))?;
    replica.synced()?;
    ensure!(on(&replica)? == set(&["alice", "dave"]), "{:?}", on(&replica)?);
    Ok(())
}

#[test]
fn members_of_a_group_of_an_active_directory() -> Result<()> {
    groups("members_of_a_group_of_an_active_directory", Kind::Samba)
}

#[test]
fn members_of_a_group_of_openldap() -> Result<()> {
    groups("members_of_a_group_of_openldap", Kind::OpenLdap)
}
