//! MESSAGE: it reaches every device unchanged, and the sender learns the truth (RFC 3428, RFC 3261 §16, RFC 4320).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_tests::client::{expect, unique};
use commpool_tests::link::{Reply, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::server::{Server, own_address};

/// "At once": no timer of the server's own runs before the answer.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_all_transports() -> Result<()> {
    let server = Server::start()?;
    for from in Transport::ALL {
        for to in Transport::ALL {
            let (alice, bob) = (server.client("alice", from).await?, server.signed_in("bob", to).await?);
            let text = unique("ünïcode, \u{1f600} and <xml/> ");
            let request = alice.message(&bob.aor(), &text).with("X-Unknown", "kept  as it is");
            let request = request.set("Max-Forwards", "69");
            expect(alice.exchange(request).await?, 200)?;
            let heard = bob.hears(&text).await?;
            check_forwarded(&heard, &alice.aor(), &bob.contact_uri())?;
            bob.sign_out().await?;
        }
    }
    server.finish()
}

/// What the pool must and must not change in a request it passes on.
fn check_forwarded(heard: &Packet, sender: &str, contact: &str) -> Result<()> {
    ensure!(heard.uri() == Some(contact), "Request-URI is not the Contact as registered:\n{heard}");
    ensure!(heard.headers("Via").count() == 2, "not one Via more:\n{heard}");
    ensure!(heard.need("Max-Forwards")? == "68", "Max-Forwards not one less:\n{heard}");
    ensure!(heard.need("X-Unknown")? == "kept  as it is", "an unknown header was changed:\n{heard}");
    ensure!(heard.need("Content-Type")? == "text/plain", "Content-Type:\n{heard}");
    ensure!(heard.need("From")?.contains(sender), "From:\n{heard}");
    for gone in ["Authorization", "Proxy-Authorization", "Record-Route", "Route"] {
        ensure!(heard.header(gone).is_none(), "{gone} reached the device:\n{heard}");
    }
    ensure!(heard.need("P-Asserted-Identity")?.contains(sender), "no identity of the sender:\n{heard}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_gets_it_once() -> Result<()> {
    let server = Server::start()?;
    let alice = server.client("alice", Transport::Tcp).await?;
    let mut devices = Vec::new();
    for transport in Transport::ALL {
        devices.push(server.signed_in("bob", transport).await?);
    }
    expect(alice.say(&server.aor("bob"), "to all of you").await?, 200)?;
    for device in &devices {
        device.hears("to all of you").await?;
    }
    for device in &devices {
        let again = |a: &commpool_tests::link::Arrival| a.packet.method() == Some("MESSAGE");
        device.link().none("a second copy", Duration::from_millis(300), again).await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octets_of_a_body_are_kept() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) = (server.client("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tls).await?);
    let body: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let request = alice.request("MESSAGE", &bob.aor()).with_body("application/octet-stream", body.clone());
    expect(alice.exchange(request).await?, 200)?;
    let heard = bob.link().take("the body", AT_ONCE, |a| a.packet.method() == Some("MESSAGE")).await?;
    ensure!(heard.packet.body() == body, "the body was changed");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_signed_in_is_said_at_once() -> Result<()> {
    let server = Server::start()?;
    let alice = server.client("alice", Transport::Udp).await?;
    let start = Instant::now();
    expect(alice.say(&server.aor("bob"), "are you there?").await?, 480)?;
    ensure!(start.elapsed() < AT_ONCE, "after {:?}", start.elapsed());
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    expect(alice.say(&bob.aor(), "now you are there").await?, 200)?;
    bob.sign_out().await?;
    expect(alice.say(&bob.aor(), "and gone again").await?, 480)?;
    // A connection that ends without a word counts as gone at once too.
    let bob = server.signed_in("bob", Transport::Tls).await?;
    bob.link().close().await;
    let start = Instant::now();
    expect(alice.say(&bob.aor(), "cut off?").await?, 480)?;
    ensure!(start.elapsed() < AT_ONCE, "after {:?}", start.elapsed());
    let nobody = alice.say(&server.aor("nobody"), "who are you?").await?;
    ensure!(matches!(nobody.status(), Some(404 | 480)), "{nobody}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_is_checked() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) = (server.client("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    for from in [server.aor("carol"), "sip:alice@elsewhere.test".to_owned(), "sip:bob@commpool.test".to_owned()] {
        let forged = alice.message(&bob.aor(), "not from me").set("From", format!("<{from}>;tag=x"));
        let answer = alice.exchange(forged).await?;
        ensure!(answer.status() == Some(403), "From {from}:\n{answer}");
    }
    let asserted = alice.message(&bob.aor(), "truly mine");
    let asserted = asserted.with("P-Asserted-Identity", format!("<{}>", server.aor("carol")));
    expect(alice.exchange(asserted).await?, 200)?;
    let heard = bob.hears("truly mine").await?;
    ensure!(!heard.headers("P-Asserted-Identity").any(|row| row.contains("carol")), "a forged identity:\n{heard}");
    bob.link().none("a forged message", Duration::from_millis(300), |a| a.packet.text() == "not from me").await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_out_of_the_pool() -> Result<()> {
    let server = Server::start()?;
    // Whoever is named in Route, Request-URI or Via must hear nothing.
    let outside = tokio::net::UdpSocket::bind((own_address(), 0)).await?;
    let elsewhere = outside.local_addr()?;
    let (alice, _bob) = (server.client("alice", Transport::Udp).await?, server.signed_in("bob", Transport::Udp).await?);
    let foreign = alice.message("sip:friend@elsewhere.test", "please relay");
    expect(alice.exchange(foreign).await?, 403)?;
    let address = alice.message(&format!("sip:bob@{elsewhere}"), "please relay");
    let answer = alice.exchange(address).await?;
    ensure!(matches!(answer.status(), Some(403 | 404)), "{answer}");
    let routed = alice.message(&server.aor("bob"), "please relay").with("Route", format!("<sip:{elsewhere};lr>"));
    expect(alice.exchange(routed).await?, 403)?;
    let via = alice.message(&server.aor("bob"), "answer there");
    let via = via.set("Via", format!("SIP/2.0/UDP {elsewhere};branch={}", unique("z9hG4bK")));
    alice.link().send(&via.octets()).await?;
    let answer = alice.link().take("an answer to the source", AT_ONCE, |a| a.packet.status().is_some()).await?;
    ensure!(answer.packet.need("Via")?.contains("received=127.0.0.1"), "no received:\n{}", answer.packet);
    let silence = tokio::time::timeout(Duration::from_millis(500), outside.recv(&mut [0; 2048])).await;
    ensure!(silence.is_err(), "something went to an address read from a message");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hops_and_extensions() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) = (server.client("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let request = alice.message(&bob.aor(), "no hops left").set("Max-Forwards", "0");
    expect(alice.exchange(request).await?, 483)?;
    let request = alice.message(&bob.aor(), "demanding").with("Proxy-Require", "unheard-of");
    let refused = expect(alice.exchange(request).await?, 420)?;
    ensure!(refused.need("Unsupported")?.contains("unheard-of"), "{refused}");
    let request = alice.message(&bob.aor(), "as in 2543").without("Max-Forwards");
    expect(alice.exchange(request).await?, 200)?;
    bob.hears("as in 2543").await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_answer_of_the_devices_goes_back() -> Result<()> {
    let server = Server::start()?;
    let alice = server.client("alice", Transport::Tcp).await?;
    let (one, two) = (server.signed_in("bob", Transport::Udp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let set = |first, second| {
        one.link().reply("MESSAGE", Reply::Status(first));
        two.link().reply("MESSAGE", Reply::Status(second));
    };
    // No credentials cross users, no 408 to a MESSAGE (RFC 4320 §4.2), a device's 503 is not the pool's.
    for (first, second, best) in [
        (486, 200, 200),
        (200, 486, 200),
        (486, 486, 486),
        (404, 600, 600),
        (500, 415, 415),
        (401, 401, 403),
        (407, 407, 403),
        (503, 503, 500),
        (408, 408, 480),
    ] {
        set(first, second);
        let answer = alice.say(&server.aor("bob"), &unique("text ")).await?;
        ensure!(answer.status() == Some(best), "{first} and {second} became\n{answer}");
        ensure!(best / 100 != 5 || answer.header("Retry-After").is_some(), "5xx without Retry-After:\n{answer}");
        ensure!(answer.header("WWW-Authenticate").is_none() && answer.header("Proxy-Authenticate").is_none());
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_datagram_can_carry_is_refused() -> Result<()> {
    let server = Server::start()?;
    let (alice, _bob) = (server.client("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Udp).await?);
    expect(alice.say(&server.aor("bob"), &"x".repeat(2000)).await?, 200)?;
    expect(alice.say(&server.aor("bob"), &"x".repeat(9000)).await?, 513)?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_outlive_a_crash_and_connections_do_not() -> Result<()> {
    let mut server = Server::start()?;
    let _bob = server.signed_in("bob", Transport::Udp).await?;
    server.crash()?;
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    // The flow died with its front end: nobody pretends to have delivered.
    expect(alice.say(&server.aor("bob"), "did you survive?").await?, 480)?;
    let bob = server.signed_in("bob", Transport::Udp).await?;
    expect(alice.say(&bob.aor(), "welcome back").await?, 200)?;
    bob.hears("welcome back").await?;
    server.finish()
}
