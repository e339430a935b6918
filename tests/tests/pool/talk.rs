//! Everybody reaches and sees everybody, on whichever front end each is; outward the pool is one SIP element.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_tests::client::{Device, PATIENCE, expect, unique};
use commpool_tests::link::{Arrival, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::pool::{Pool, Setup};
use commpool_tests::watch::Notice;

/// I12: however many front ends a request touched.
fn passed_one_element(heard: &Packet) -> Result<()> {
    ensure!(heard.headers("Via").count() == 2, "not one Via more:\n{heard}");
    ensure!(heard.need("Max-Forwards")? == "69", "Max-Forwards not one less:\n{heard}");
    ensure!(heard.header("Record-Route").is_none(), "Record-Route on a MESSAGE:\n{heard}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_reaches_and_sees_everybody() -> Result<()> {
    let pool = Pool::start()?;
    let everybody = [
        pool.signed_in("alice", 0, Transport::Tls).await?,
        pool.signed_in("bob", 1, Transport::Tcp).await?,
        pool.signed_in("carol", 2, Transport::Udp).await?,
        // And one who shares a front end with another.
        pool.signed_in("dave", 0, Transport::Tcp).await?,
    ];
    for from in &everybody {
        for to in &everybody {
            let text = unique("text ");
            expect(from.say(&to.aor(), &text).await?, 200)?;
            passed_one_element(&to.hears(&text).await?)?;
        }
    }
    for client in &everybody {
        client.publish("open", Some("busy"), None, None).await?;
    }
    for from in &everybody {
        for to in &everybody {
            let mut watch = from.watch(&to.aor()).await?;
            from.notice(&mut watch, "the state", PATIENCE, |notice| notice.is_doing("busy")).await?;
            to.publish("open", Some("away"), None, None).await?;
            let seen = Instant::now();
            from.notice(&mut watch, "the change", PATIENCE, |notice| notice.is_doing("away")).await?;
            ensure!(seen.elapsed() < Duration::from_secs(5), "pushed only after {:?}", seen.elapsed());
            from.rewatch(&watch, 0).await?;
            from.notice(&mut watch, "the end", PATIENCE, |notice| notice.state == "terminated").await?;
            to.publish("open", Some("busy"), None, None).await?;
        }
    }
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_gets_it_once_wherever_it_is() -> Result<()> {
    let pool = Pool::start()?;
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    let mut devices = Vec::new();
    for at in 0..3 {
        devices.push(pool.signed_in("bob", at, Transport::Tcp).await?);
    }
    expect(alice.say(&pool.aor("bob"), "to all of you").await?, 200)?;
    for device in &devices {
        passed_one_element(&device.hears("to all of you").await?)?;
    }
    let again = |arrival: &Arrival| arrival.packet.method() == Some("MESSAGE");
    for device in &devices {
        device.link().none("a second copy", Duration::from_millis(300), again).await?;
    }
    ensure!(pool.endpoints("bob")?.len() == 3, "not three devices");
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_that_has_just_joined_is_reached_at_once() -> Result<()> {
    let mut pool = Pool::with(Setup { front_ends: 2, spares: 1, ..Setup::default() })?;
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    pool.front_end_mut(2).start()?;
    let bob = pool.signed_in("bob", 2, Transport::Tls).await?;
    expect(alice.say(&bob.aor(), "welcome to the new one").await?, 200)?;
    bob.hears("welcome to the new one").await?;
    let mut watch = bob.watch(&alice.aor()).await?;
    alice.publish("open", Some("busy"), None, None).await?;
    bob.notice(&mut watch, "her state", Duration::from_secs(3), |notice| notice.is_doing("busy")).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retransmission_at_another_front_end_has_the_same_answer() -> Result<()> {
    let pool = Pool::start()?;
    let alice = pool.signed_in("alice", 0, Transport::Udp).await?;
    let bob = pool.signed_in("bob", 1, Transport::Tcp).await?;
    let (request, first) = alice.exchange_kept(alice.message(&bob.aor(), "said once")).await?;
    expect(first.packet.clone(), 200)?;
    bob.hears("said once").await?;
    // The VIP led the second copy elsewhere.
    let elsewhere = pool.device("alice", 2, Transport::Udp, Device::Plain).await?;
    elsewhere.link().send(&request.octets()).await?;
    let second = elsewhere.final_answer(&request, PATIENCE).await?;
    ensure!(second.packet.status() == Some(200), "another answer:\n{}", second.packet);
    let again = |arrival: &Arrival| arrival.packet.text() == "said once";
    bob.link().none("a second copy", Duration::from_millis(500), again).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_on_moves_the_endpoint_and_its_dialogs() -> Result<()> {
    let pool = Pool::start()?;
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    let bob = pool.signed_in("bob", 1, Transport::Tls).await?;
    let mut watch = alice.watch(&bob.aor()).await?;
    alice.notice(&mut watch, "bob", PATIENCE, Notice::is_open).await?;
    let mut seen_by_bob = bob.watch(&alice.aor()).await?;
    bob.notice(&mut seen_by_bob, "alice", PATIENCE, Notice::is_open).await?;
    alice.link().close().await;
    let moved = alice.moved(&pool.target(2, Transport::Tls)).await?;
    moved.sign_in().await?;
    ensure!(pool.where_is("alice")? == [pool.incarnation(2)?], "her row stayed behind");
    expect(bob.say(&moved.aor(), "there you are").await?, 200)?;
    moved.hears("there you are").await?;
    // I6: what she watches follows her without a SUBSCRIBE.
    bob.publish("open", Some("meeting"), None, None).await?;
    moved.notice(&mut watch, "his change", PATIENCE, |notice| notice.is_doing("meeting")).await?;
    // I7: nobody was told that she was away.
    let was_closed =
        |arrival: &Arrival| arrival.packet.method() == Some("NOTIFY") && arrival.packet.text().contains("closed");
    bob.link().none("a false offline", Duration::from_millis(300), was_closed).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f29_a_subscribe_inside_its_dialog_is_carried_out_at_any_front_end() -> Result<()> {
    let pool = Pool::start()?;
    let bob = pool.signed_in("bob", 1, Transport::Tcp).await?;
    bob.publish("open", Some("busy"), None, None).await?;
    let alice = pool.signed_in("alice", 0, Transport::Tls).await?;
    let mut watch = alice.watch(&bob.aor()).await?;
    alice.notice(&mut watch, "his state", PATIENCE, |notice| notice.is_doing("busy")).await?;
    for at in [1, 2, 0] {
        let there = alice.moved(&pool.target(at, Transport::Tls)).await?;
        there.rewatch(&watch, 600).await?;
        // Its own NOTIFY, with a CSeq that a strict client takes (the watch checks it).
        there.notice(&mut watch, "the state once more", PATIENCE, |notice| notice.is_doing("busy")).await?;
        let text = if at == 2 { "away" } else { "meeting" };
        bob.publish("open", Some(text), None, None).await?;
        there.notice(&mut watch, "his change", PATIENCE, |notice| notice.is_doing(text)).await?;
        bob.publish("open", Some("busy"), None, None).await?;
        there.notice(&mut watch, "his change back", PATIENCE, |notice| notice.is_doing("busy")).await?;
        alice.no_notice(&watch, Duration::from_millis(200)).await?;
    }
    let there = alice.moved(&pool.target(1, Transport::Tls)).await?;
    there.rewatch(&watch, 0).await?;
    there.notice(&mut watch, "the end", PATIENCE, |notice| notice.state == "terminated").await?;
    pool.finish()
}
