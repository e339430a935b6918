//! Replicated users sign in, talk, and are out within a cycle when the directory disables them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commpool_harness::directory::{Kind, Ldif, people};
use commpool_tests::client::{Client, Device, Identity, PATIENCE, eventually, expect};
use commpool_tests::directory::{Backend, Replica, directory};
use commpool_tests::link::{Target, Transport};
use commpool_tests::secrets::Secrets;
use commpool_tests::server::DOMAIN;
use commpool_tests::watch::Notice;

use crate::ready;

/// How long a change of the store may take to be felt by a running server.
const EFFECT: Duration = Duration::from_secs(15);

/// Gives a replicated user a password.
fn identity(replica: &Replica, login: &str) -> Result<Identity> {
    let told = replica.administered(&["user", "passwd", login])?;
    let password = told.trim().rsplit(' ').next().context("no password was told")?.to_owned();
    Ok(Identity { user: login.to_owned(), password, domain: DOMAIN.to_owned() })
}

async fn signed_in(identity: &Identity, target: &Target, secrets: &Secrets) -> Result<Client> {
    let client = Client::connect(identity, target, Device::Plain, secrets).await?;
    // A password takes effect within seconds where somebody has tried without one before.
    eventually("signing in", async || Ok(client.exchange(client.register(600)).await?.status() == Some(200))).await?;
    Ok(client)
}

async fn out_within_a_cycle(kind: Kind, backend: Backend) -> Result<()> {
    let lab = directory(kind, 0)?;
    lab.add(&people::demo(DOMAIN))?;
    let mut replica = Replica::new(backend, lab.access())?;
    let secrets = Secrets::default();
    let target = match backend {
        Backend::Postgres => {
            replica.pool().launch()?;
            replica.pool().target(0, Transport::Tls)
        }
        Backend::Sqlite => replica.server().target(Transport::Tls)?,
    };
    replica.synced()?;
    let stranger = Client::connect(
        &Identity { user: "alice".to_owned(), password: "guessed-0000".to_owned(), domain: DOMAIN.to_owned() },
        &target,
        Device::Plain,
        &secrets,
    )
    .await?;
    ensure!(stranger.exchange(stranger.register(600)).await?.status() != Some(200), "signed in without a password");

    let (alice_is, bob_is) = (identity(&replica, "alice")?, identity(&replica, "bob")?);
    let (alice, bob) = (signed_in(&alice_is, &target, &secrets).await?, signed_in(&bob_is, &target, &secrets).await?);
    expect(alice.say(&bob.aor(), "hello from the directory").await?, 200)?;
    bob.hears("hello from the directory").await?;
    let mut watch = bob.watch(&alice.aor()).await?;
    bob.notice(&mut watch, "open", PATIENCE, Notice::is_open).await?;

    // A run that changes something else about her disturbs nobody.
    lab.apply(&Ldif::new().replace(&kind.dn("alice"), "title", &["Chief"]))?;
    replica.synced()?;
    expect(bob.say(&alice.aor(), "still there").await?, 200)?;
    alice.hears("still there").await?;

    lab.apply(&kind.enable("alice", false))?;
    replica.synced()?;
    bob.notice(&mut watch, "closed", EFFECT, Notice::is_closed).await?;
    expect(bob.say(&alice.aor(), "gone?").await?, 480)?;
    ensure!(
        alice.link().is_closed() || alice.exchange(alice.register(600)).await?.status() != Some(200),
        "a disabled user signed in"
    );

    lab.apply(&kind.enable("alice", true))?;
    replica.synced()?;
    eventually("alice signing in again", async || {
        let again = Client::connect(&alice_is, &target, Device::Plain, &secrets).await?;
        Ok(again.exchange(again.register(600)).await?.status() == Some(200))
    })
    .await?;
    bob.notice(&mut watch, "open again", PATIENCE, Notice::is_open).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_in_active_directory_is_out_of_a_pool() -> Result<()> {
    if !ready("disabled_in_active_directory_is_out_of_a_pool") {
        return Ok(());
    }
    out_within_a_cycle(Kind::Samba, Backend::Postgres).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_in_openldap_is_out_of_standard_edition() -> Result<()> {
    if !ready("disabled_in_openldap_is_out_of_standard_edition") {
        return Ok(());
    }
    out_within_a_cycle(Kind::OpenLdap, Backend::Sqlite).await
}
