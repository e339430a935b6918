//! Two Linphones on machines of their own talk through the VIP, and find back when the pod under them goes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_harness::command::say;
use commpool_tests::client::Identity;
use commpool_tests::link::Transport;
use commpool_tests::linphone::{COMES_BACK, Linphone, PATIENCE};
use serde_json::json;

use crate::lab::{Pool, TO_READY, cluster};

/// Both sign in, watch each other and see each other.
pub(crate) async fn meet(pool: &Pool, people: &[Identity; 2], transport: Transport) -> Result<[Linphone; 2]> {
    let mut alice = pool.phone(&people[0], transport).await?;
    let mut bob = pool.phone(&people[1], transport).await?;
    alice.sign_in().await?;
    bob.sign_in().await?;
    alice.watch(&pool.aor("bob")).await?;
    bob.watch(&pool.aor("alice")).await?;
    alice.sees(&pool.aor("bob"), "open", None, PATIENCE).await?;
    bob.sees(&pool.aor("alice"), "open", None, PATIENCE).await?;
    Ok([alice, bob])
}

/// Each says something that the other hears, and is told that it arrived.
pub(crate) async fn talk(pool: &Pool, [alice, bob]: &mut [Linphone; 2], round: &str) -> Result<()> {
    let (there, back) = (format!("hello bob, {round}"), format!("hello alice, {round}"));
    alice.say(&pool.aor("bob"), &there, &format!("a {round}")).await?;
    bob.hears(&pool.aor("alice"), &there).await?;
    ensure!(alice.outcome(&format!("a {round}")).await?.starts_with("delivered"), "alice was not told");
    bob.say(&pool.aor("alice"), &back, &format!("b {round}")).await?;
    alice.hears(&pool.aor("bob"), &back).await?;
    ensure!(bob.outcome(&format!("b {round}")).await?.starts_with("delivered"), "bob was not told");
    Ok(())
}

fn people(pool: &Pool) -> Result<[Identity; 2]> {
    Ok([pool.add_user("alice")?, pool.add_user("bob")?])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_tls_and_over_the_loss_of_the_pod() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "talk-tls")?;
    let took = pool.start(&json!({}))?;
    say(&format!("kubectl apply to Ready: {:.1} s", took.as_secs_f64()));
    ensure!(took <= TO_READY, "Ready after {took:?}");
    let people = people(&pool)?;
    let mut phones = meet(&pool, &people, Transport::Tls).await?;
    talk(&pool, &mut phones, "first").await?;

    // With externalTrafficPolicy Local the server sees the clients themselves, not the node.
    let listed = pool.server(&["endpoints", "list"])?;
    for person in ["alice", "bob"] {
        let address = pool.machine(person)?.address().to_owned();
        ensure!(listed.contains(&address), "{person} at {address} is not in\n{listed}");
    }

    phones[0].publish("open", "busy", Some("in a meeting")).await?;
    phones[1].sees(&pool.aor("alice"), "open", Some("busy"), PATIENCE).await?;

    // Both within the time that is promised, from the moment the pod is told to go.
    let back = Instant::now() + COMES_BACK;
    pool.kubectl(&["delete", "pod", &format!("{}-front-end-0", pool.name), "--wait=false"])?;
    for phone in &phones {
        phone.signed_in(back.saturating_duration_since(Instant::now())).await?;
    }
    talk(&pool, &mut phones, "after the pod's end").await?;
    phones[0].publish("open", "away", None).await?;
    phones[1].sees(&pool.aor("alice"), "open", Some("away"), PATIENCE).await?;
    let [alice, bob] = phones;
    alice.quit(false).await?;
    bob.sees(&pool.aor("alice"), "closed", None, PATIENCE).await?;
    bob.quit(false).await?;
    pool.finish()
}

/// One that sends its keep-alive every 30 s, as Linphone does, loses its way over UDP unless the server keeps it open.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_udp_after_a_hundred_quiet_seconds() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "talk-udp")?;
    pool.start(&json!({"service": {"listeners": {"tls": 5061, "tcp": 5060, "udp": 5060}}}))?;
    let mut phones = meet(&pool, &people(&pool)?, Transport::Udp).await?;
    talk(&pool, &mut phones, "first").await?;
    // The quiet itself is what is tested; there is no event to wait for.
    tokio::time::sleep(Duration::from_secs(100)).await;
    talk(&pool, &mut phones, "after the quiet").await?;
    let [alice, bob] = phones;
    alice.quit(false).await?;
    bob.sees(&pool.aor("alice"), "closed", None, PATIENCE).await?;
    bob.quit(false).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_tcp() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "talk-tcp")?;
    pool.start(&json!({"service": {"listeners": {"tls": 5061, "tcp": 5060}}}))?;
    let mut phones = meet(&pool, &people(&pool)?, Transport::Tcp).await?;
    talk(&pool, &mut phones, "first").await?;
    for phone in phones {
        phone.quit(false).await?;
    }
    pool.finish()
}
