//! What becomes of users from their first run to their removal, on each directory and each store.

use anyhow::{Context as _, Result, ensure};
use commpool_harness::directory::{Directory, Kind, Ldif, Person, people};
use commpool_model::directory::{Outcome, RunResult};
use commpool_tests::directory::{Backend, Replica, User, directory, exit};
use commpool_tests::server::DOMAIN;
use serde_json::Value;

use crate::ready;

fn user(person: &Person) -> User {
    User {
        on: true,
        name: person.name.clone(),
        card: [&person.phone, &person.title, &person.company, &person.office].map(String::clone),
        lapsed: false,
    }
}

fn at(login: &str) -> String {
    format!("{login}@{DOMAIN}")
}

/// One user, who must be there.
fn one(replica: &Replica, login: &str) -> Result<User> {
    replica.users()?.remove(&at(login)).with_context(|| format!("there is no {login}"))
}

/// Whether a user has a password.
pub(crate) fn has_password(replica: &Replica, login: &str) -> Result<bool> {
    let listed = replica.administered(&["user", "list", &at(login), "--json"])?;
    let row: Value = serde_json::from_str(listed.lines().next().context("he is not listed")?)?;
    row["password"].as_bool().context("no such field")
}

/// A run that changes exactly so many, and leaves nothing to do.
fn changes(replica: &Replica, what: &str, so: impl Fn(&Outcome) -> bool) -> Result<Outcome> {
    let outcome = replica.synced()?;
    ensure!(so(&outcome), "{what}: {outcome:?}");
    let (code, steps) = replica.plan()?;
    ensure!(code == exit::DONE, "{what}: there is still something to do: {steps:?}");
    Ok(outcome)
}

fn life(test: &str, kind: Kind, backend: Backend) -> Result<()> {
    if !ready(test) {
        return Ok(());
    }
    let lab = directory(kind, 0)?;
    let demo = people::demo(DOMAIN);
    lab.add(&demo)?;
    let mut replica = Replica::new(backend, lab.access())?;

    let (code, out, err) = replica.replicator(&["check"])?;
    ensure!(code == exit::DONE, "check: exit code {code}\n{out}{err}");
    let (code, steps) = replica.plan()?;
    ensure!(code == exit::CHANGES, "plan: exit code {code}, {steps:?}");
    let added = steps.iter().filter(|step| step["step"] == "add").count();
    // Whom the directory has disabled and the pool has never known is nobody to it.
    let enabled: Vec<&Person> = demo.iter().filter(|person| !person.disabled).collect();
    ensure!(added == enabled.len(), "{added} of {} would be added: {steps:?}", enabled.len());
    ensure!(replica.users()?.is_empty(), "a plan changed the store");

    changes(&replica, "first run", |outcome| outcome.found as usize >= demo.len())?;
    let expected = enabled.iter().map(|person| (at(&person.login), user(person))).collect();
    ensure!(replica.users()? == expected, "not as in the directory: {:#?}", replica.users()?);
    unchanged(&mut replica, backend, enabled.len())?;
    if backend == Backend::Postgres {
        counted(&lab, &mut replica, kind)?;
    }

    for login in ["alice", "bob", "carol", "dave", "yuki", "noa"] {
        replica.administered(&["user", "passwd", login])?;
        ensure!(has_password(&replica, login)?);
    }
    named_otherwise(&lab, &replica, kind)?;
    enabled_and_disabled(&lab, &replica, kind)?;
    gone_and_back(&lab, &mut replica, kind)?;
    made_again(&lab, &mut replica)
}

/// A run that has nothing to do writes no row.
fn unchanged(replica: &mut Replica, backend: Backend, users: usize) -> Result<()> {
    let before = (backend == Backend::Postgres).then(|| replica.rows_written()).transpose()?;
    let outcome = replica.synced()?;
    ensure!(!outcome.counts.any() && outcome.counts.unchanged as usize == users, "{outcome:?}");
    if let Some(before) = before {
        ensure!(replica.rows_written()? == before, "rows were written");
    }
    Ok(())
}

/// Who counts no rows at all would find none in the run before either.
fn counted(lab: &Directory, replica: &mut Replica, kind: Kind) -> Result<()> {
    let before = replica.rows_written()?;
    lab.apply(&Ldif::new().replace(&kind.dn("alice"), "title", &["Dr"]))?;
    changes(replica, "a title", |outcome| outcome.counts.changed == 1)?;
    ensure!(replica.rows_written()? > before, "a change wrote no row");
    Ok(())
}

/// Rename, move, other attributes, a swap of addresses.
fn named_otherwise(lab: &Directory, replica: &Replica, kind: Kind) -> Result<()> {
    let dn = |login: &str| kind.dn(login);
    // The entry's name alone is nothing of a user's.
    let renamed = if kind == Kind::Samba { "CN=robert" } else { "uid=robert" };
    lab.apply(&Ldif::new().rename(&dn("bob"), renamed))?;
    changes(replica, "another name of the entry", |outcome| !outcome.counts.any())?;
    lab.apply(&Ldif::new().move_below(&dn("robert"), &kind.unit("Elsewhere")))?;
    changes(replica, "another place of the entry", |outcome| !outcome.counts.any())?;

    lab.apply(&Ldif::new().replace(&dn("alice"), "displayName", &["Alice Baker"]).replace(
        &dn("alice"),
        "telephoneNumber",
        &[] as &[&str],
    ))?;
    changes(replica, "a name and a number", |outcome| outcome.counts.changed == 1)?;
    let alice = one(replica, "alice")?;
    ensure!(alice.name == "Alice Baker" && alice.card[0].is_empty(), "{alice:?}");
    ensure!(has_password(replica, "alice")?, "her password went with a change of her name");

    let (attribute, prefix) = kind.sip_attribute();
    let address = |login: &str| format!("{prefix}{}", at(login));
    let swap = Ldif::new().replace(&dn("alice"), attribute, &[address("carol")]).replace(
        &dn("carol"),
        attribute,
        &[address("alice")],
    );
    lab.apply(&swap)?;
    changes(replica, "a swap of addresses", |outcome| outcome.counts.changed == 2)?;
    let (alice, carol) = (one(replica, "carol")?, one(replica, "alice")?);
    ensure!(alice.name == "Alice Baker" && carol.name == "Carol Clarke", "{alice:?} {carol:?}");
    ensure!(!has_password(replica, "alice")?, "a password of the old address is left");
    let back = Ldif::new().replace(&dn("alice"), attribute, &[address("alice")]).replace(
        &dn("carol"),
        attribute,
        &[address("carol")],
    );
    lab.apply(&back)?;
    changes(replica, "a swap back", |outcome| outcome.counts.changed == 2).map(drop)
}

fn enabled_and_disabled(lab: &Directory, replica: &Replica, kind: Kind) -> Result<()> {
    lab.apply(&kind.enable("dave", false))?;
    changes(replica, "dave is disabled", |outcome| outcome.counts.disabled == 1)?;
    ensure!(!one(replica, "dave")?.on);
    ensure!(
        !replica.administer(&["user", "enable", "dave"])?.status.success(),
        "a user of the directory was enabled by hand"
    );
    lab.apply(&kind.enable("dave", true))?;
    changes(replica, "dave is enabled", |outcome| outcome.counts.any())?;
    ensure!(one(replica, "dave")?.on && has_password(replica, "dave")?);
    ensure!(
        !replica.administer(&["user", "disable", "dave"])?.status.success(),
        "a user of the directory was disabled by hand"
    );
    ensure!(
        !replica.administer(&["user", "add", "dave"])?.status.success(),
        "a user of the directory was added by hand"
    );
    replica.administered(&["user", "disable", "local"]).map(drop)
}

/// Out of the part that is read and back: the same user, with what he had.
fn gone_and_back(lab: &Directory, replica: &mut Replica, kind: Kind) -> Result<()> {
    replica.section.base_dn = kind.unit("People");
    let outcome = changes(replica, "another base", |outcome| outcome.counts.missing == 1)?;
    ensure!(outcome.result == RunResult::Synced);
    let bob = one(replica, "bob")?;
    ensure!(bob.lapsed && !bob.on && has_password(replica, "bob")?, "{bob:?}");
    let there = kind.dn("robert").replacen("People", "Elsewhere", 1);
    lab.apply(&Ldif::new().move_below(&there, &kind.unit("People")))?;
    changes(replica, "bob is back", |outcome| outcome.counts.added == 1)?;
    let bob = one(replica, "bob")?;
    ensure!(bob.on && !bob.lapsed && has_password(replica, "bob")?, "{bob:?}");
    Ok(())
}

/// Deleted, and made again with the same address: somebody else, who has the address at once.
fn made_again(lab: &Directory, replica: &mut Replica) -> Result<()> {
    lab.delete(["yuki", "noa"])?;
    changes(replica, "two are deleted", |outcome| outcome.counts.missing == 2)?;
    ensure!(one(replica, "yuki")?.lapsed);
    lab.add(&[Person::new("yuki", "Yuki II", DOMAIN)])?;
    changes(replica, "one of them is made again", |outcome| outcome.counts.added == 1)?;
    let yuki = one(replica, "yuki")?;
    ensure!(yuki.on && yuki.name == "Yuki II" && !has_password(replica, "yuki")?, "{yuki:?}");
    ensure!(one(replica, "noa")?.lapsed);

    // Where the grace is over, the next run removes for good.
    replica.section.removal = "graceDays: 0".to_owned();
    lab.delete(["omar"])?;
    replica.synced()?;
    let outcome = replica.synced()?;
    ensure!(!replica.users()?.contains_key(&at("omar")), "{outcome:?}");
    Ok(())
}

#[test]
fn from_active_directory_into_postgresql() -> Result<()> {
    life("from_active_directory_into_postgresql", Kind::Samba, Backend::Postgres)
}

#[test]
fn from_openldap_into_postgresql() -> Result<()> {
    life("from_openldap_into_postgresql", Kind::OpenLdap, Backend::Postgres)
}

#[test]
fn from_active_directory_into_sqlite() -> Result<()> {
    life("from_active_directory_into_sqlite", Kind::Samba, Backend::Sqlite)
}

#[test]
fn from_openldap_into_sqlite() -> Result<()> {
    life("from_openldap_into_sqlite", Kind::OpenLdap, Backend::Sqlite)
}
