//! Presence: PUBLISH, SUBSCRIBE, NOTIFY, aggregation and grace (RFC 3903, RFC 6665, RFC 3856).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_tests::client::{Client, Device, PATIENCE, PIDF, expect};
use commpool_tests::link::{Reply, Transport};
use commpool_tests::presence::published;
use commpool_tests::server::Server;
use commpool_tests::watch::{Notice, Watch};

/// How long a silence is looked at where something must not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// Presence outlives a lost connection by this.
const GRACE: Duration = Duration::from_secs(15);

async fn watching(server: &Server, watcher: &Client, friend: &str) -> Result<Watch> {
    let mut watch = watcher.watch(&server.aor(friend)).await?;
    watcher.notice(&mut watch, "the first NOTIFY", PATIENCE, |notice| notice.state == "active").await?;
    Ok(watch)
}

async fn sees(watcher: &Client, watch: &mut Watch, what: &str, wanted: impl Fn(&Notice) -> bool) -> Result<Notice> {
    watcher.notice(watch, what, PATIENCE, wanted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_in_and_out_is_seen() -> Result<()> {
    let server = Server::start()?;
    for transport in Transport::ALL {
        let bob = server.signed_in("bob", transport).await?;
        let mut watch = bob.watch(&server.aor("alice")).await?;
        let first = sees(&bob, &mut watch, "the first NOTIFY", |_| true).await?;
        ensure!(first.state == "active" && first.is_closed(), "nobody there, but {first:?}");
        ensure!(first.expires.is_some_and(|seconds| seconds <= watch.granted), "expires of {first:?}");
        ensure!((540..=600).contains(&watch.granted), "600 s asked, {} granted", watch.granted);
        let alice = server.signed_in("alice", transport).await?;
        sees(&bob, &mut watch, "alice signed in", Notice::is_plainly_open).await?;
        let left = Instant::now();
        alice.sign_out().await?;
        let gone = sees(&bob, &mut watch, "alice signed out", Notice::is_closed).await?;
        ensure!(gone.at - left < Duration::from_secs(3), "signing out acts at once, not after {:?}", gone.at - left);
        bob.rewatch(&watch, 0).await?;
        bob.sign_out().await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_state_is_seen_changed_and_withdrawn() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Udp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let mut watch = watching(&server, &bob, "alice").await?;
    let tag = alice.publish("open", Some("busy"), Some("writing"), None).await?;
    let busy = sees(&bob, &mut watch, "busy", |notice| notice.is_doing("busy")).await?;
    ensure!(busy.document.context("no document")?.notes().contains(&"writing"), "the note is lost");
    let next = alice.publish("open", Some("on-the-phone"), None, Some(&tag)).await?;
    ensure!(next != tag, "every success makes a new entity tag (RFC 3903 §6)");
    sees(&bob, &mut watch, "on the phone", |notice| notice.is_doing("on-the-phone")).await?;
    let refreshed = expect(alice.exchange(alice.publication(None, Some(&next), 600)).await?, 200)?;
    let last = refreshed.need("SIP-ETag")?.to_owned();
    ensure!(last != next, "a refresh makes a new entity tag too");
    bob.no_notice(&watch, A_WHILE).await.context("a refresh changes nothing")?;
    expect(alice.exchange(alice.publication(None, Some(&last), 0)).await?, 200)?;
    sees(&bob, &mut watch, "signed in and nothing more", Notice::is_plainly_open).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_lost_its_tag_replaces_what_it_said() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let mut watch = watching(&server, &bob, "alice").await?;
    alice.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "busy", |notice| notice.is_doing("busy")).await?;
    // Clients publish anew without SIP-If-Match after a restart; nobody may stay busy for an hour by that.
    alice.publish("open", Some("away"), None, None).await?;
    let away = sees(&bob, &mut watch, "away", |notice| notice.is_doing("away")).await?;
    ensure!(away.document.context("no document")?.tuples.len() == 1, "the old state is still there");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_available_device_comes_first() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    let desk = server.signed_in("alice", Transport::Tcp).await?;
    let phone = server.signed_in("alice", Transport::Tls).await?;
    desk.publish("open", Some("away"), None, None).await?;
    sees(&bob, &mut watch, "away", |notice| notice.is_doing("away")).await?;
    let tag = phone.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "busy before away", |notice| notice.is_doing("busy")).await?;
    phone.publish("open", None, None, Some(&tag)).await?;
    let two = sees(&bob, &mut watch, "available before away", Notice::is_plainly_open).await?;
    let tuples = two.document.context("no document")?.tuples;
    let mut ids: Vec<_> = tuples.iter().map(|tuple| tuple.id.clone()).collect();
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == tuples.len(), "ids of tuples are not unique: {tuples:?}");
    phone.sign_out().await?;
    let one = sees(&bob, &mut watch, "away again", |notice| notice.is_doing("away")).await?;
    let left = one.document.context("no document")?.tuples;
    ensure!(left.len() < tuples.len(), "the departed device's tuple is still there: {left:?}");
    // A device that says closed takes nothing from one that is open.
    phone.sign_in().await?;
    phone.publish("closed", None, None, None).await?;
    let closed = bob.notice(&mut watch, "a change to closed", A_WHILE, Notice::is_closed).await;
    ensure!(closed.is_err(), "one device closed made the user closed");
    desk.sign_out().await?;
    sees(&bob, &mut watch, "closed by what is left", Notice::is_closed).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_outlives_a_lost_connection_by_its_grace() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Udp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    // A device that can be recognised, as Linphone's: an instance without reg-id.
    let device = Device::Instance("urn:uuid:34343434-2222-4333-8444-555555555555".to_owned());
    let alice = server.device("alice", Transport::Tls, device).await?;
    alice.sign_in().await?;
    alice.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "busy", |notice| notice.is_doing("busy")).await?;
    // Away and back within the grace: watchers hear nothing.
    alice.link().close().await;
    let alice = alice.reconnect().await?;
    alice.sign_in().await?;
    bob.no_notice(&watch, GRACE + Duration::from_secs(3)).await.context("a reconnect was told to watchers")?;
    // Away for good: closed, when the grace is over and not before.
    let lost = Instant::now();
    alice.link().close().await;
    let end = bob.notice(&mut watch, "closed", GRACE + PATIENCE, Notice::is_closed).await?;
    let after = end.at - lost;
    ensure!(after >= GRACE - Duration::from_millis(200), "closed after {after:?} already");
    ensure!(after < GRACE + Duration::from_secs(5), "closed only after {after:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_has_a_longer_grace() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    let device = Device::Outbound("urn:uuid:12121212-2222-4333-8444-555555555555".to_owned(), 1);
    let alice = server.device("alice", Transport::Tcp, device).await?;
    alice.sign_in().await?;
    sees(&bob, &mut watch, "open", Notice::is_open).await?;
    let lost = Instant::now();
    alice.link().close().await;
    let end = bob.notice(&mut watch, "closed", Duration::from_secs(50), Notice::is_closed).await?;
    let after = end.at - lost;
    ensure!(after >= Duration::from_millis(34_800) && after < Duration::from_secs(40), "closed after {after:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_word_of_a_subscription() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let _alice = server.signed_in("alice", Transport::Tcp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    // A refresh is followed by a NOTIFY at once (RFC 6665 §4.2.1.2), an end by one with the state.
    bob.rewatch(&watch, 300).await?;
    let refreshed = sees(&bob, &mut watch, "a NOTIFY after the refresh", |_| true).await?;
    ensure!(refreshed.state == "active" && refreshed.is_open() && refreshed.expires <= Some(300), "{refreshed:?}");
    bob.rewatch(&watch, 0).await?;
    let last = sees(&bob, &mut watch, "the last NOTIFY", |_| true).await?;
    ensure!(last.state == "terminated" && last.reason.as_deref() == Some("timeout") && last.is_open(), "{last:?}");
    bob.no_notice(&watch, A_WHILE).await?;
    // Asking once: Expires 0 without a dialog.
    let (request, answer) = bob.exchange_kept(bob.subscription(&server.aor("alice"), 0)).await?;
    let mut once = Watch::new(&request, &expect(answer.packet, 200)?)?;
    let only = sees(&bob, &mut once, "the only NOTIFY", |_| true).await?;
    ensure!(only.state == "terminated" && only.is_open(), "{only:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_says_481_is_left_alone() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    bob.link().reply("NOTIFY", Reply::Status(481));
    let tag = alice.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "the NOTIFY that is refused", |notice| notice.is_doing("busy")).await?;
    // Any later answer to alice comes after the 481 was read.
    alice.publish("open", Some("away"), None, Some(&tag)).await?;
    bob.no_notice(&watch, A_WHILE).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_the_server() -> Result<()> {
    let mut server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let watch = watching(&server, &bob, "alice").await?;
    server.restart()?;
    let bob = bob.reconnect().await?;
    bob.sign_in().await?;
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    // The row may be lost, the dialog is not: rebuilt from the request, never 481.
    let mut watch = watch;
    bob.rewatch(&watch, 600).await?;
    sees(&bob, &mut watch, "alice, after the restart", Notice::is_open).await?;
    alice.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "busy, after the restart", |notice| notice.is_doing("busy")).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_bodies_and_tags_that_are_not_ours() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let other = bob.subscription(&alice.aor(), 600).set("Event", "dialog");
    ensure!(expect(bob.exchange(other).await?, 489)?.need("Allow-Events")?.contains("presence"));
    let other = alice.publication(Some(&published(&alice.aor(), "open", None, None)), None, 600).set("Event", "dialog");
    ensure!(expect(alice.exchange(other).await?, 489)?.need("Allow-Events")?.contains("presence"));
    let picky = bob.subscription(&alice.aor(), 600).set("Accept", "text/html");
    expect(bob.exchange(picky).await?, 406)?;
    let text = alice.publication(None, None, 600).with_body("text/plain", "busy");
    ensure!(expect(alice.exchange(text).await?, 415)?.need("Accept")?.contains(PIDF));
    let broken = alice.publication(None, None, 600).with_body(PIDF, "<presence");
    expect(alice.exchange(broken).await?, 400)?;
    for unknown in ["no-tag-of-ours", "AAAAAAAAAAAAAAAAAAAAAA"] {
        expect(alice.exchange(alice.publication(None, Some(unknown), 600)).await?, 412)?;
    }
    let brief = expect(
        alice.exchange(alice.publication(Some(&published(&alice.aor(), "open", None, None)), None, 1)).await?,
        423,
    )?;
    brief.need("Min-Expires")?;
    let brief = expect(bob.exchange(bob.subscription(&alice.aor(), 1)).await?, 423)?;
    brief.need("Min-Expires")?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) =
        (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
    let mut watch = watching(&server, &bob, "alice").await?;
    let carol = server.signed_in("carol", Transport::Tcp).await?;
    let document = published(&alice.aor(), "closed", None, Some("gone for good"));
    let forged = carol.publication(Some(&document), None, 600).set("To", format!("<{}>", alice.aor()));
    expect(carol.exchange(forged.aimed_at(&alice.aor())).await?, 403)?;
    let tag = alice.publish("open", Some("busy"), None, None).await?;
    sees(&bob, &mut watch, "busy", |notice| notice.is_doing("busy")).await?;
    // Another's entity tag is worth nothing.
    let stolen = carol.exchange(carol.publication(None, Some(&tag), 0)).await?;
    ensure!(stolen.status() == Some(412), "{stolen}");
    bob.no_notice(&watch, A_WHILE).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_real_clients_publish_is_taken() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let mut watch = watching(&server, &bob, "alice").await?;
    // Publishes before it registers, and says "unknown" first.
    let alice = server.client("alice", Transport::Udp).await?;
    let tag = alice.publish("unknown", None, None, None).await?;
    alice.sign_in().await?;
    let tag = alice.publish("open", None, None, Some(&tag)).await?;
    sees(&bob, &mut watch, "open", Notice::is_open).await?;
    // Withdraws over UDP without a Content-Length.
    let request = alice.publication(None, Some(&tag), 0);
    let answer = alice.transact(&request).await?;
    let request = alice.answered(request, &answer)?;
    let octets = request.octets();
    let text = String::from_utf8(octets)?.replace("Content-Length: 0\r\n", "");
    alice.link().send(text.as_bytes()).await?;
    expect(alice.final_answer(&request, PATIENCE).await?.packet, 200)?;
    alice.sign_out().await?;
    sees(&bob, &mut watch, "closed", Notice::is_closed).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifies_over_udp_fit_a_datagram() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Udp).await?;
    let mut watch = bob.watch(&server.aor("alice")).await?;
    let mut devices = Vec::new();
    for number in 0..8 {
        let device = server.signed_in("alice", Transport::Tcp).await?;
        device.publish("open", Some("busy"), Some(&format!("{number}{}", "n".repeat(400))), None).await?;
        devices.push(device);
    }
    sees(&bob, &mut watch, "busy", |notice| notice.is_doing("busy")).await?;
    for device in &devices {
        device.sign_out().await?;
    }
    sees(&bob, &mut watch, "closed", Notice::is_closed).await?;
    ensure!(watch.longest <= 1300, "a NOTIFY of {} octets over UDP", watch.longest);
    server.finish()
}
