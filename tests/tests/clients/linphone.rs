//! Two Linphones talk, see each other, come back; each over TLS, UDP and TCP.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use commpool_tests::client::PATIENCE as OURS;
use commpool_tests::link::Transport;
use commpool_tests::linphone::{Account, COMES_BACK, Linphone, PATIENCE};
use commpool_tests::server::Server;

async fn phone(server: &Server, user: &str, transport: Transport) -> Result<Linphone> {
    let folder = server.folder().join(format!("{user}-{transport}"));
    let account = Account::new(&server.identity(user)?, &server.target(transport)?, &folder)?;
    Linphone::start(&account, &[]).await
}

/// Both sign in, watch each other and see each other; what they say arrives.
async fn meet(server: &Server, transport: Transport) -> Result<(Linphone, Linphone)> {
    let (mut alice, mut bob) = (phone(server, "alice", transport).await?, phone(server, "bob", transport).await?);
    alice.sign_in().await?;
    bob.sign_in().await?;
    alice.watch(&server.aor("bob")).await?;
    bob.watch(&server.aor("alice")).await?;
    alice.sees(&server.aor("bob"), "open", None, PATIENCE).await?;
    bob.sees(&server.aor("alice"), "open", None, PATIENCE).await?;
    Ok((alice, bob))
}

async fn talk(server: &Server, alice: &mut Linphone, bob: &mut Linphone, round: &str) -> Result<()> {
    let there = format!("hello from alice, {round}: grüß dich");
    alice.say(&server.aor("bob"), &there, &format!("a{round}")).await?;
    bob.hears(&server.aor("alice"), &there).await?;
    ensure!(alice.outcome(&format!("a{round}")).await?.starts_with("delivered"), "alice was not told");
    let back = format!("hello from bob, {round}");
    bob.say(&server.aor("alice"), &back, &format!("b{round}")).await?;
    alice.hears(&server.aor("bob"), &back).await?;
    ensure!(bob.outcome(&format!("b{round}")).await?.starts_with("delivered"), "bob was not told");
    Ok(())
}

async fn conversation(transport: Transport) -> Result<()> {
    let server = Server::start()?;
    let (mut alice, mut bob) = meet(&server, transport).await?;
    talk(&server, &mut alice, &mut bob, "first").await?;
    alice.publish("open", "busy", Some("in a meeting")).await?;
    let shown = bob.sees(&server.aor("alice"), "open", Some("busy"), PATIENCE).await?;
    ensure!(shown["note"] == "in a meeting", "the note is lost: {shown}");
    alice.publish("open", "online", None).await?;
    bob.sees(&server.aor("alice"), "open", None, PATIENCE).await?;
    alice.publish("open", "away", None).await?;
    bob.sees(&server.aor("alice"), "open", Some("away"), PATIENCE).await?;
    talk(&server, &mut alice, &mut bob, "second").await?;
    alice.quit(false).await?;
    bob.sees(&server.aor("alice"), "closed", None, PATIENCE).await?;
    bob.say(&server.aor("alice"), "too late", "late").await?;
    ensure!(bob.outcome("late").await? == "not-delivered", "bob believes that it arrived");
    bob.sign_out().await?;
    bob.quit(false).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_talk_over_tls() -> Result<()> {
    conversation(Transport::Tls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_talk_over_udp() -> Result<()> {
    conversation(Transport::Udp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_talk_over_tcp() -> Result<()> {
    conversation(Transport::Tcp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transports_do_not_part_people() -> Result<()> {
    let server = Server::start()?;
    let (mut alice, mut bob) =
        (phone(&server, "alice", Transport::Tls).await?, phone(&server, "bob", Transport::Udp).await?);
    alice.sign_in().await?;
    bob.sign_in().await?;
    talk(&server, &mut alice, &mut bob, "across").await?;
    // A second device of bob's gets everything too.
    let second = server.signed_in("bob", Transport::Tcp).await?;
    alice.say(&server.aor("bob"), "to both devices", "both").await?;
    bob.hears(&server.aor("alice"), "to both devices").await?;
    second.hears("to both devices").await?;
    alice.quit(false).await?;
    bob.quit(false).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanishing_is_seen_after_the_grace() -> Result<()> {
    let server = Server::start()?;
    let (alice, bob) = meet(&server, Transport::Tls).await?;
    alice.quit(true).await?;
    bob.sees(&server.aor("alice"), "closed", None, Duration::from_secs(15) + OURS).await?;
    bob.quit(false).await?;
    server.finish()
}

async fn come_back(transport: Transport) -> Result<()> {
    let mut server = Server::start()?;
    let (mut alice, mut bob) = meet(&server, transport).await?;
    talk(&server, &mut alice, &mut bob, "before").await?;
    server.restart()?;
    // Nobody touches a client: its own rules bring it back, at worst with its second attempt.
    let back = Instant::now() + COMES_BACK;
    alice.signed_in(COMES_BACK).await?;
    bob.signed_in(back.saturating_duration_since(Instant::now())).await?;
    talk(&server, &mut alice, &mut bob, "after").await?;
    alice.publish("open", "busy", None).await?;
    bob.sees(&server.aor("alice"), "open", Some("busy"), PATIENCE).await?;
    alice.quit(false).await?;
    bob.quit(false).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_come_back_to_a_restarted_server_over_tls() -> Result<()> {
    come_back(Transport::Tls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_come_back_to_a_restarted_server_over_tcp() -> Result<()> {
    come_back(Transport::Tcp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_holds_for_minutes() -> Result<()> {
    let server = Server::start()?;
    let (mut alice, mut bob) = meet(&server, Transport::Udp).await?;
    // Longer than a registration over UDP (120 s at most) and several keep-alives of 30 s: refreshed, not lost. There
    // is nothing to wait for but the time itself.
    tokio::time::sleep(Duration::from_secs(130)).await;
    talk(&server, &mut alice, &mut bob, "after two minutes").await?;
    alice.quit(false).await?;
    bob.quit(false).await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused() -> Result<()> {
    let server = Server::start()?;
    for transport in Transport::ALL {
        let mut identity = server.identity("alice")?;
        identity.password = "not-her-password".to_owned();
        let folder = server.folder().join(format!("wrong-{transport}"));
        let account = Account::new(&identity, &server.target(transport)?, &folder)?;
        let mut wrong = Linphone::start(&account, &[]).await?;
        let code = wrong.is_refused().await?;
        ensure!(matches!(code, 401 | 403), "refused with {code}");
        wrong.quit(false).await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_not_trusted() -> Result<()> {
    let (server, other) = (Server::start()?, Server::start()?);
    let mut target = server.target(Transport::Tls)?;
    target.ca = other.target(Transport::Tls)?.ca;
    let folder = server.folder().join("distrust");
    let mut phone = Linphone::start(&Account::new(&server.identity("alice")?, &target, &folder)?, &[]).await?;
    phone.is_refused().await?;
    phone.quit(false).await?;
    other.finish()?;
    server.finish()
}
