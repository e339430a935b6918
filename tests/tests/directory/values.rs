//! Values that real directories hold and real people type, each with the state it must come to.

use anyhow::{Result, ensure};
use commpool_harness::directory::{Directory, Entry, Kind, Ldif, Person, people};
use commpool_model::directory::Outcome;
use commpool_tests::directory::{Backend, Replica, directory};
use commpool_tests::server::DOMAIN;

use crate::ready;

fn setting(kind: Kind, people: &[Person]) -> Result<(Directory, Replica)> {
    let lab = directory(kind, 0)?;
    lab.add(people)?;
    let replica = Replica::new(Backend::Sqlite, lab.access())?;
    Ok((lab, replica))
}

fn on_both(test: &str, check: impl Fn(Kind) -> Result<()>) -> Result<()> {
    if ready(test) { [Kind::Samba, Kind::OpenLdap].into_iter().try_for_each(check) } else { Ok(()) }
}

/// One conflict, whose line names all of these.
fn one_conflict(outcome: &Outcome, names: &[&str]) -> Result<()> {
    let line = outcome.conflicts.join("\n");
    ensure!(outcome.counts.conflicts == 1, "not one conflict: {outcome:?}");
    ensure!(names.iter().all(|name| line.contains(name)), "not {names:?} in {line}");
    Ok(())
}

#[test]
fn duplicates_in_mixed_case_have_one_stable_winner() -> Result<()> {
    on_both("duplicates_in_mixed_case_have_one_stable_winner", |kind| {
        let anna = Person::new("anna", "Anna One", DOMAIN);
        let upper = Person { login: "anna2".to_owned(), name: "Anna Two".to_owned(), ..Person::new("x", "", DOMAIN) };
        let upper = Person { address: format!("Anna@{}", DOMAIN.to_uppercase()), mail: String::new(), ..upper };
        let (lab, replica) = setting(kind, &[anna, upper])?;
        let outcome = replica.synced()?;
        one_conflict(&outcome, &["anna", "anna2"])?;
        let users = replica.users()?;
        ensure!(users.len() == 1, "{users:?}");
        let (address, winner) = users.first_key_value().map(|(a, u)| (a.clone(), u.name.clone())).unwrap_or_default();
        ensure!(address.eq_ignore_ascii_case(&format!("anna@{DOMAIN}")), "{address}");
        for _ in 0..2 {
            let again = replica.synced()?;
            ensure!(!again.counts.any() && again.counts.conflicts == 1, "{again:?}");
            ensure!(replica.users()? == users, "another winner");
        }
        // When the winner goes, the other one has it.
        let (goes, stays) = if winner == "Anna One" { ("anna", "Anna Two") } else { ("anna2", "Anna One") };
        lab.delete([goes])?;
        let outcome = replica.synced()?;
        ensure!(outcome.counts.conflicts == 0, "{outcome:?}");
        let names: Vec<String> = replica.users()?.into_values().filter(|user| user.on).map(|user| user.name).collect();
        ensure!(names == [stays], "{names:?}");
        Ok(())
    })
}

#[test]
fn the_address_of_a_user_added_by_hand_stays_his() -> Result<()> {
    on_both("the_address_of_a_user_added_by_hand_stays_his", |kind| {
        let (_lab, replica) = setting(kind, &[Person::new("local", "Somebody else", DOMAIN)])?;
        one_conflict(&replica.synced()?, &["local@"])?;
        ensure!(replica.users()?.is_empty(), "{:?}", replica.users()?);
        let listed = replica.administered(&["user", "list", "local"])?;
        ensure!(!listed.contains("Somebody else"), "{listed}");
        Ok(())
    })
}

#[test]
fn addresses_that_are_none_are_named_and_left_out() -> Result<()> {
    on_both("addresses_that_are_none_are_named_and_left_out", |kind| {
        let odd =
            |login: &str, address: String| Person { address, mail: String::new(), ..Person::new(login, login, DOMAIN) };
        let people = [
            odd("nobody", String::new()),
            odd("elsewhere", "elsewhere@another.test".to_owned()),
            odd("noat", "no-at-sign".to_owned()),
            odd("long", format!("{}@{DOMAIN}", "x".repeat(300))),
            Person::new("good", "Good", DOMAIN),
        ];
        let (_lab, replica) = setting(kind, &people)?;
        let outcome = replica.synced()?;
        ensure!(outcome.counts.conflicts == 3 && outcome.counts.added == 1, "{outcome:?}");
        let users: Vec<String> = replica.users()?.into_keys().collect();
        ensure!(users == [format!("good@{DOMAIN}")], "{users:?}");
        Ok(())
    })
}

#[test]
fn a_picture_in_place_of_a_text_is_no_text() -> Result<()> {
    on_both("a_picture_in_place_of_a_text_is_no_text", |kind| {
        let (_lab, mut replica) = setting(kind, &people::demo(DOMAIN))?;
        let photo = if kind == Kind::Samba { "thumbnailPhoto" } else { "jpegPhoto" };
        replica.section.mapping.push_str(&format!("title: {photo}\ndisplayName: [{photo}, displayName]\n"));
        replica.synced()?;
        for (address, user) in replica.users()? {
            ensure!(!user.card[1].contains("JFIF") && !user.name.contains("JFIF"), "{address}: {user:?}");
        }
        Ok(())
    })
}

#[test]
fn overlong_names_are_cut_at_a_character() -> Result<()> {
    if !ready("overlong_names_are_cut_at_a_character") {
        return Ok(());
    }
    // Active Directory itself takes no more than 256 characters.
    let name = "\u{96ea}".repeat(1000);
    let long = Person { name: name.clone(), ..Person::new("long", "", DOMAIN) };
    let (_lab, replica) = setting(Kind::OpenLdap, &[long])?;
    replica.synced()?;
    let users = replica.users()?;
    let user = users.get(&format!("long@{DOMAIN}"));
    ensure!(
        user.is_some_and(|user| user.name.len() <= 256 && user.name.len() > 250 && name.starts_with(&user.name)),
        "{users:?}"
    );
    ensure!(!replica.synced()?.counts.any());
    Ok(())
}

#[test]
fn proxy_addresses_mail_and_templates_give_addresses_in_their_order() -> Result<()> {
    if !ready("proxy_addresses_mail_and_templates_give_addresses_in_their_order") {
        return Ok(());
    }
    let lab = directory(Kind::Samba, 0)?;
    let entry = |login: &str| {
        Entry::new(Kind::Samba.dn(login))
            .with("objectClass", "user")
            .with("sAMAccountName", login)
            .with("userAccountControl", "544")
    };
    let people = Ldif::new()
        .insert(
            &entry("proxy")
                .with("proxyAddresses", format!("smtp:proxy@{DOMAIN}"))
                .with("proxyAddresses", format!("sip:second@{DOMAIN}"))
                .with("proxyAddresses", format!("SIP:first@{DOMAIN}")),
        )
        .insert(&entry("mailed").with("mail", format!("mailed@{DOMAIN}")))
        .insert(&entry("named"));
    lab.apply(&people)?;
    let mut replica = Replica::new(Backend::Sqlite, lab.access())?;
    replica.section.base_dn = Kind::Samba.unit("People");
    replica.section.mapping =
        format!("sipAddress: [msRTCSIP-PrimaryUserAddress, proxyAddresses, mail, \"{{sAMAccountName}}@{DOMAIN}\"]\n");
    replica.synced()?;
    let users: Vec<String> = replica.users()?.into_keys().collect();
    ensure!(users == ["first", "mailed", "named"].map(|name| format!("{name}@{DOMAIN}")), "{users:?}");
    Ok(())
}
