//! Transactions: retransmissions are absorbed, answers are repeated octet for octet, 100 comes late (RFC 3261 §17, RFC 4320).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_tests::client::{PATIENCE, expect, unique};
use commpool_tests::link::{Arrival, Reply, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::presence::published;
use commpool_tests::server::Server;

/// How long a silence is looked at where something must not come.
const A_WHILE: Duration = Duration::from_millis(500);

fn is_message(arrival: &Arrival) -> bool {
    arrival.packet.method() == Some("MESSAGE")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retransmitted_message_reaches_nobody_twice() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    bob.link().reply("MESSAGE", Reply::Late(Duration::from_millis(700), 200));
    let alice = server.client("alice", Transport::Udp).await?;
    let request = alice.message(&bob.aor(), "only once, please");
    let challenged = alice.transact(&request).await?;
    let request = alice.answered(request, &challenged)?;
    // Three copies while the device thinks, one more after the answer.
    for _ in 0..3 {
        alice.link().send(&request.octets()).await?;
    }
    bob.link().take("the message", PATIENCE, is_message).await?;
    let first = alice.final_answer(&request, PATIENCE).await?;
    expect(first.packet.clone(), 200)?;
    alice.link().send(&request.octets()).await?;
    let again = alice.final_answer(&request, PATIENCE).await?;
    ensure!(again.octets == first.octets, "another answer to the same request:\n{}", again.packet);
    bob.link().none("a second copy", A_WHILE, is_message).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_answered_again_and_not_done_again() -> Result<()> {
    let server = Server::start()?;
    let alice = server.signed_in("alice", Transport::Udp).await?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let mut watch = bob.watch(&alice.aor()).await?;
    let document = published(&alice.aor(), "open", Some("busy"), None);
    for request in [
        alice.register(600),
        alice.publication(Some(&document), None, 600),
        alice.subscription(&bob.aor(), 600),
        alice.request("OPTIONS", &format!("sip:{}", server.ready().domain)),
    ] {
        let (accepted, first) = alice.exchange_kept(request).await?;
        expect(first.packet.clone(), 200)?;
        alice.link().send(&accepted.octets()).await?;
        let again = alice.final_answer(&accepted, PATIENCE).await?;
        ensure!(again.octets == first.octets, "first\n{}\nthen\n{}", first.packet, again.packet);
    }
    bob.notice(&mut watch, "busy", PATIENCE, |notice| notice.is_doing("busy")).await?;
    bob.no_notice(&watch, A_WHILE).await?;
    let rows = expect(alice.exchange(alice.query()).await?, 200)?;
    ensure!(rows.headers("Contact").count() == 1, "{rows}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_repeated_keeps_its_tag() -> Result<()> {
    let server = Server::start()?;
    let alice = server.client("alice", Transport::Udp).await?;
    let request = alice.register(600);
    let first = expect(alice.transact(&request).await?, 401)?;
    let again = expect(alice.transact(&request).await?, 401)?;
    ensure!(first.tag("To").is_some() && first.tag("To") == again.tag("To"), "{first}\n{again}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_device_is_waited_for_and_the_sender_told() -> Result<()> {
    let server = Server::start()?;
    for transport in [Transport::Udp, Transport::Tcp] {
        let alice = server.client("alice", transport).await?;
        let bob = server.signed_in("bob", Transport::Tcp).await?;
        bob.link().reply("MESSAGE", Reply::Silence);
        let request = alice.message(&bob.aor(), &unique("anybody home? "));
        let challenged = alice.transact(&request).await?;
        let request = alice.answered(request, &challenged)?;
        let sent = Instant::now();
        alice.link().send(&request.octets()).await?;
        let trying = alice.link().take("100", PATIENCE, |a| a.packet.answers(&request)).await?;
        ensure!(trying.packet.status() == Some(100), "{transport}: {}", trying.packet);
        let after = trying.at - sent;
        ensure!(after >= Duration::from_millis(3400) && after < Duration::from_secs(5), "100 after {after:?}");
        let end = alice.final_answer(&request, PATIENCE).await?;
        // No 408 to a MESSAGE, ever (RFC 4320 §4.2).
        expect(end.packet.clone(), 480)?.need("Retry-After")?;
        let after = end.at - sent;
        ensure!(after >= Duration::from_secs(6) && after < Duration::from_secs(10), "told after {after:?}");
        bob.sign_out().await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_device_is_in_time() -> Result<()> {
    let server = Server::start()?;
    let alice = server.client("alice", Transport::Udp).await?;
    let (slow, lost) = (server.signed_in("bob", Transport::Tcp).await?, server.signed_in("bob", Transport::Udp).await?);
    slow.link().reply("MESSAGE", Reply::Late(Duration::from_secs(2), 200));
    lost.link().reply("MESSAGE", Reply::Silence);
    let request = alice.message(&server.aor("bob"), "take your time");
    let challenged = alice.transact(&request).await?;
    let request = alice.answered(request, &challenged)?;
    alice.link().send(&request.octets()).await?;
    // Nothing before 3.5 s but the answer itself.
    let first = alice.link().take("an answer", PATIENCE, |a| a.packet.answers(&request)).await?;
    expect(first.packet, 200)?;
    // Over UDP the pool itself retransmits to a device that says nothing: the same octets each time.
    let one = lost.link().take("the message", PATIENCE, is_message).await?;
    let two = lost.link().take("its retransmission", PATIENCE, is_message).await?;
    ensure!(one.octets == two.octets, "{}\n{}", one.packet, two.packet);
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_branch_are_served() -> Result<()> {
    let server = Server::start()?;
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    // As RFC 2543 clients write Via; matched by the other fields (RFC 3261 §17.2.3).
    let plain = |request: Packet| request.set("Via", format!("SIP/2.0/TCP {}", alice.link().local()));
    let wait =
        |number: String| move |a: &Arrival| a.packet.status() >= Some(200) && a.packet.header("CSeq") == Some(&number);
    let request = alice.message(&bob.aor(), "from an old friend");
    let first = plain(request.clone());
    alice.link().send(&first.octets()).await?;
    let challenged = alice.link().take("407", PATIENCE, wait(first.need("CSeq")?.to_owned())).await?;
    let answered = plain(alice.answered(request, &challenged.packet)?);
    for _ in 0..2 {
        alice.link().send(&answered.octets()).await?;
    }
    let end = alice.link().take("200", PATIENCE, wait(answered.need("CSeq")?.to_owned())).await?;
    expect(end.packet, 200)?;
    bob.hears("from an old friend").await?;
    bob.link().none("a second copy", A_WHILE, is_message).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_nobody_asked_for_go_nowhere() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Udp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let carol = server.signed_in("carol", Transport::Udp).await?;
    bob.link().reply("MESSAGE", Reply::Late(Duration::from_secs(1), 200));
    let request = alice.message(&bob.aor(), "whose answer counts?");
    let challenged = alice.transact(&request).await?;
    let request = alice.answered(request, &challenged)?;
    alice.link().send(&request.octets()).await?;
    let heard = bob.link().take("the message", PATIENCE, is_message).await?;
    // Carol answers in bob's place, with the right branch but from another flow.
    carol.link().send(&Packet::answer(&heard.packet, 603, "forged").octets()).await?;
    carol.link().send(&Packet::answer(&request, 603, "forged").octets()).await?;
    let end = alice.final_answer(&request, PATIENCE).await?;
    expect(end.packet, 200)?;
    server.finish()
}
