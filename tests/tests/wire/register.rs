//! REGISTER: who may sign in, what is granted, what is answered (RFC 3261 §10, RFC 5626, RFC 7616, RFC 8760).

use anyhow::{Context as _, Result, ensure};
use commpool_tests::client::{Client, Device, PATIENCE, eventually, expect, unique};
use commpool_tests::digest::{Algorithm, Challenge};
use commpool_tests::link::{Arrival, Transport};
use commpool_tests::packet::{Packet, parameter};
use commpool_tests::server::{Server, Setup};

/// Contacts of a 200, in their order.
fn contacts(answer: &Packet) -> Vec<String> {
    answer.headers("Contact").map(str::to_owned).collect()
}

/// Seconds granted to the binding of a client.
fn granted(answer: &Packet, client: &Client) -> Result<u32> {
    let own = client.contact();
    let row = answer.headers("Contact").find(|row| row.starts_with(&own));
    let row = row.with_context(|| format!("{own} is not in\n{answer}"))?;
    Ok(parameter(row, "expires").context("no expires")?.parse()?)
}

async fn bindings(client: &Client) -> Result<Vec<String>> {
    Ok(contacts(&expect(client.exchange(client.query()).await?, 200)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_in_by_every_transport_and_algorithm() -> Result<()> {
    let server = Server::start()?;
    for transport in Transport::ALL {
        for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
            let client = server.client("alice", transport).await?;
            client.only(algorithm);
            let answer = client.sign_in().await?;
            let seconds = granted(&answer, &client)?;
            // Short, because clients exist that do not notice a dead connection; up to a tenth is cut at random.
            let longest = if transport == Transport::Udp { 120 } else { 600 };
            ensure!(seconds <= longest && seconds >= longest * 9 / 10, "{transport}: {seconds} s granted");
            ensure!(answer.need("Expires")?.parse::<u32>()? >= seconds, "Expires below the binding's:\n{answer}");
            ensure!(answer.tag("To").is_some(), "no To tag:\n{answer}");
            client.sign_out().await?;
        }
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_strongest_first() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Tcp).await?;
    let answer = expect(client.transact(&client.register(600)).await?, 401)?;
    let offered: Vec<_> =
        Challenge::all(&answer)?.into_iter().map(|c| (c.algorithm, c.qop, c.stale, c.realm)).collect();
    let realm = server.ready().domain.clone();
    let row = |algorithm| (algorithm, true, false, realm.clone());
    ensure!(offered == [row(Algorithm::Sha256), row(Algorithm::Md5)], "offered {offered:?}");
    server.finish()?;

    let server = Server::with(Setup { digest: Some("MD5".to_owned()), ..Setup::default() })?;
    let client = server.client("alice", Transport::Udp).await?;
    let answer = expect(client.transact(&client.register(600)).await?, 401)?;
    let offered: Vec<_> = Challenge::all(&answer)?.into_iter().map(|c| c.algorithm).collect();
    ensure!(offered == [Algorithm::Md5], "offered {offered:?}");
    client.sign_in().await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_has_several_devices() -> Result<()> {
    let server = Server::start()?;
    let udp = server.signed_in("alice", Transport::Udp).await?;
    let tcp = server.signed_in("alice", Transport::Tcp).await?;
    let tls = server.signed_in("alice", Transport::Tls).await?;
    let all = bindings(&udp).await?;
    ensure!(all.len() == 3, "{all:?}");
    for client in [&udp, &tcp, &tls] {
        let own = client.contact();
        ensure!(all.iter().any(|row| row.starts_with(&own)), "{own} is not told back octet for octet: {all:?}");
    }
    let left = contacts(&tcp.sign_out().await?);
    ensure!(left.len() == 2 && !left.iter().any(|row| row.starts_with(&tcp.contact())), "{left:?}");
    let star = tls.register(0).set("Contact", "*");
    let none = contacts(&expect(tls.exchange(star).await?, 200)?);
    ensure!(none.is_empty(), "{none:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_needs_expires_0() -> Result<()> {
    let server = Server::start()?;
    let client = server.signed_in("alice", Transport::Tcp).await?;
    expect(client.exchange(client.register(60).set("Contact", "*")).await?, 400)?;
    expect(client.exchange(client.register(0).without("Expires").set("Contact", "*")).await?, 400)?;
    ensure!(bindings(&client).await?.len() == 1, "the binding is gone");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_devices_and_no_more() -> Result<()> {
    let server = Server::start()?;
    let mut devices = Vec::new();
    for _ in 0..10 {
        devices.push(server.signed_in("alice", Transport::Tcp).await?);
    }
    let one_more = server.client("alice", Transport::Tcp).await?;
    expect(one_more.exchange(one_more.register(600)).await?, 403)?;
    ensure!(bindings(&one_more).await?.len() == 10);
    devices.remove(0).sign_out().await?;
    one_more.sign_in().await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_out_of_order_change_nothing() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Udp).await?;
    let (first, answer) = client.exchange_kept(client.register(600)).await?;
    expect(answer.packet.clone(), 200)?;
    // The same request once more: a retransmission, answered by the same octets.
    client.link().send(&first.octets()).await?;
    let again = client.final_answer(&first, PATIENCE).await?;
    ensure!(again.octets == answer.octets, "another answer:\n{}", again.packet);
    // The same CSeq as another transaction: out of order.
    let (number, _) = first.cseq()?;
    let challenge = client.challenge(&client.transact(&client.register(0)).await?)?;
    let late = client.register(0);
    let credentials = client.credentials(&challenge, &late, 1)?;
    let late = client.with_credentials(late, &credentials, false)?.set("CSeq", format!("{number} REGISTER"));
    let refused = expect(client.transact(&late).await?, 500)?;
    refused.need("Retry-After")?;
    ensure!(bindings(&client).await?.len() == 1, "the binding is gone");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_contacts_of_a_request_or_none() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Tcp).await?;
    // A contact that leads back to the pool would be a loop.
    let back = format!("<sip:alice@{}>", server.target(Transport::Tcp)?.address);
    let both = client.register(600).with("Contact", back.clone());
    expect(client.exchange(both).await?, 403)?;
    expect(client.exchange(client.register(600).set("Contact", back)).await?, 403)?;
    expect(client.exchange(client.register(600).with("Contact", "<tel:+1234>")).await?, 400)?;
    ensure!(bindings(&client).await?.is_empty());
    let two = client.register(600).with("Contact", "<sip:alice@192.0.2.7>;q=0.5");
    let rows = contacts(&expect(client.exchange(two).await?, 200)?);
    ensure!(rows.len() == 2 && rows.iter().any(|row| row.contains("q=0.5")), "{rows:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifetimes_too_brief_are_refused_with_the_least() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Tcp).await?;
    let refused = expect(client.exchange(client.register(1)).await?, 423)?;
    let least: u32 = refused.need("Min-Expires")?.parse()?;
    let answer = expect(client.exchange(client.register(least)).await?, 200)?;
    ensure!(granted(&answer, &client)? <= least, "more granted than asked for:\n{answer}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_gets_longer_and_is_told_so() -> Result<()> {
    let server = Server::start()?;
    let device = Device::Outbound("urn:uuid:11111111-2222-4333-8444-555555555555".to_owned(), 1);
    let first = server.device("alice", Transport::Tls, device.clone()).await?;
    let answer = first.sign_in().await?;
    ensure!(answer.headers("Require").any(|row| row.contains("outbound")), "no Require: outbound in\n{answer}");
    answer.need("Flow-Timer")?;
    let seconds = granted(&answer, &first)?;
    ensure!((1620..=1800).contains(&seconds), "{seconds} s granted");
    // The same instance and reg-id from elsewhere is the same device (RFC 5626 §6).
    let second = server.device("alice", Transport::Tcp, device).await?;
    let rows = contacts(&second.sign_in().await?);
    ensure!(rows.len() == 1 && rows[0].starts_with(&second.contact()), "{rows:?}");
    let plain = server.signed_in("bob", Transport::Tcp).await?;
    ensure!(plain.sign_in().await?.header("Require").is_none(), "Require without outbound");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_without_reg_id_evicts_only_the_dead() -> Result<()> {
    let server = Server::start()?;
    // Clients exist that make the instance from the host's name: two of them on one host must both be reached.
    let device = Device::Instance("urn:uuid:99999999-2222-4333-8444-555555555555".to_owned());
    let first = server.device("alice", Transport::Tcp, device.clone()).await?;
    first.sign_in().await?;
    let second = server.device("alice", Transport::Tcp, device.clone()).await?;
    ensure!(contacts(&second.sign_in().await?).len() == 2, "a live device was evicted");
    first.link().close().await;
    let third = server.device("alice", Transport::Tcp, device).await?;
    eventually("the dead device's binding to go", async || {
        let rows = contacts(&third.sign_in().await?);
        Ok(rows.len() == 2)
    })
    .await?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_registers_for_another() -> Result<()> {
    let server = Server::start()?;
    let bob = server.signed_in("bob", Transport::Tcp).await?;
    let alice = server.client("alice", Transport::Tcp).await?;
    let for_bob = alice.register(600).set("To", format!("<{}>", bob.aor()));
    expect(alice.exchange(for_bob).await?, 403)?;
    let as_bob = for_bob_as_bob(&alice, &bob);
    let answer = alice.exchange(as_bob).await?;
    ensure!(matches!(answer.status(), Some(401 | 403)), "{answer}");
    let rows = bindings(&bob).await?;
    ensure!(rows.len() == 1 && rows[0].starts_with(&bob.contact()), "{rows:?}");
    server.finish()
}

/// REGISTER in another's name, to be answered with one's own password.
fn for_bob_as_bob(alice: &Client, bob: &Client) -> Packet {
    let request = alice.register(600).set("To", format!("<{}>", bob.aor())).set("Call-ID", unique("forged"));
    request.set("From", format!("<{}>;tag=forged", bob.aor()))
}

/// An answer with everything masked that differs from user to user or request to request.
fn masked(arrival: &Arrival, user: &str) -> String {
    let mut packet = arrival.packet.clone();
    for name in ["Via", "Call-ID", "CSeq", "Date"] {
        packet = packet.set(name, "masked");
    }
    let text = packet.to_string().replace(user, "USERS");
    let varies = |word: &str| word.contains("nonce=") || word.contains("tag=");
    let mask = |word: &str| if varies(word) { word.len().to_string() } else { word.to_owned() };
    text.split([' ', '\n', ';']).map(mask).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_learn_nothing_from_a_refusal() -> Result<()> {
    let server = Server::start()?;
    let done = server.command(&["user", "disable", "carol"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut seen = Vec::new();
    // Known with a wrong password, unknown, disabled with the right password: names of one length.
    for (user, password) in [("alice", Some("wrong-password")), ("zorro", Some("any-password")), ("carol", None)] {
        for method in ["REGISTER", "MESSAGE", "SUBSCRIBE", "PUBLISH"] {
            let mut identity = server.identity(if user == "zorro" { "alice" } else { user })?;
            identity.user = user.to_owned();
            identity.password = password.map_or(identity.password, str::to_owned);
            let client =
                Client::connect(&identity, &server.target(Transport::Tcp)?, Device::Plain, server.secrets()).await?;
            let request = match method {
                "REGISTER" => client.register(600),
                "MESSAGE" => client.message(&server.aor("bob"), "nobody hears this"),
                "SUBSCRIBE" => client.subscription(&server.aor("bob"), 600),
                _ => client.publication(
                    Some(&commpool_tests::presence::published(&client.aor(), "open", None, None)),
                    None,
                    600,
                ),
            };
            let (_, answer) = client.exchange_kept(request).await?;
            ensure!(matches!(answer.packet.status(), Some(401 | 407)), "{user} {method}:\n{}", answer.packet);
            seen.push((method, user, masked(&answer, user), answer.octets.len()));
        }
    }
    for (method, user, text, length) in &seen {
        let (_, _, like, octets) = seen.iter().find(|one| one.0 == *method).context("no first")?;
        ensure!(text == like && length == octets, "{method}: {user} is told\n{text}\nothers\n{like}");
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_authorization_rows_are_tried_in_turn() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Tcp).await?;
    // One row per challenge, as newer libre sends them; and a row of another scheme beside.
    let request = client.register(600);
    let answer = client.transact(&request).await?;
    let all = Challenge::all(&answer)?;
    let mut answered = client.again(request)?.with("Authorization", "Bearer nothing");
    for challenge in all.iter().rev() {
        let credentials = client.credentials(challenge, &answered, 1)?;
        answered = answered.with("Authorization", credentials.header("REGISTER"));
    }
    expect(client.transact(&answered).await?, 200)?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonce_counts_are_hexadecimal_and_used_once() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Tcp).await?;
    let answer = client.transact(&client.register(600)).await?;
    let challenge = client.challenge(&answer)?;
    for count in [1, 9, 10, 0x1f, 0x20] {
        let request = client.register(600);
        let credentials = client.credentials(&challenge, &request, count)?;
        expect(client.transact(&client.with_credentials(request, &credentials, false)?).await?, 200)?;
    }
    let request = client.register(0);
    let credentials = client.credentials(&challenge, &request, 10)?;
    let refused = expect(client.transact(&client.with_credentials(request, &credentials, false)?).await?, 401)?;
    ensure!(Challenge::all(&refused)?.iter().all(|c| c.stale), "a client would ask for the password again:\n{refused}");
    ensure!(bindings(&client).await?.len() == 1, "the replay took the binding away");
    server.finish()
}
