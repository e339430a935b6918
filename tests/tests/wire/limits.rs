//! Bounds: sizes at the limit and one beyond, slow senders, silent connections, keep-alives, XML made to hurt.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use commpool_tests::client::{Client, PATIENCE, PIDF, expect, unique};
use commpool_tests::link::{Link, Transport};
use commpool_tests::packet::Packet;
use commpool_tests::server::Server;

/// Largest message, octets.
const MESSAGE: usize = 65_536;
/// Most header rows.
const ROWS: usize = 128;
/// Longest header row, octets.
const ROW: usize = 8_192;

/// A request that the server answers by itself.
fn options(client: &Client) -> Packet {
    client.request("OPTIONS", &format!("sip:{}", client.identity().domain))
}

/// Sends over a connection of its own and gives the status, `None` if the connection ends without an answer.
async fn status(server: &Server, transport: Transport, make: impl Fn(&Client) -> Packet) -> Result<Option<u16>> {
    let client = server.client("alice", transport).await?;
    let request = make(&client);
    // The server may refuse and close before the last octet is written.
    let _ = client.link().send(&request.octets()).await;
    match client.link().take("an answer", PATIENCE, |a| a.packet.status().is_some()).await {
        Ok(arrival) => Ok(arrival.packet.status()),
        Err(_) if client.link().is_closed() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refused with an error that fits, or by closing.
fn refused(status: Option<u16>) -> bool {
    matches!(status, None | Some(400 | 413 | 513))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_up_to_the_limit() -> Result<()> {
    let server = Server::start()?;
    let of_size = |size: usize| {
        move |client: &Client| {
            let body = |length: usize| options(client).with_body("text/plain", "x".repeat(length));
            let rest = body(10_000).octets().len() - 10_000;
            body(size - rest)
        }
    };
    for transport in [Transport::Tcp, Transport::Tls] {
        let at = status(&server, transport, of_size(MESSAGE)).await?;
        ensure!(at == Some(200), "{transport}: a message of {MESSAGE} octets got {at:?}");
        let beyond = status(&server, transport, of_size(MESSAGE + 1)).await?;
        ensure!(refused(beyond), "{transport}: a message of {} octets got {beyond:?}", MESSAGE + 1);
    }
    let large = status(&server, Transport::Udp, of_size(60_000)).await?;
    ensure!(large == Some(200), "a datagram of 60,000 octets got {large:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_rows_up_to_the_limit() -> Result<()> {
    let server = Server::start()?;
    let of_rows = |count: usize| {
        move |client: &Client| {
            // Seven rows are there already, Content-Length among them.
            (0..count - 7).fold(options(client), |packet, number| packet.with("X-Row", number.to_string()))
        }
    };
    let of_length =
        |length: usize| move |client: &Client| options(client).with("X-Long", "y".repeat(length - "X-Long: ".len()));
    for transport in [Transport::Udp, Transport::Tcp] {
        let at = status(&server, transport, of_rows(ROWS)).await?;
        ensure!(at == Some(200), "{transport}: {ROWS} rows got {at:?}");
        let beyond = status(&server, transport, of_rows(ROWS + 1)).await?;
        ensure!(refused(beyond), "{transport}: {} rows got {beyond:?}", ROWS + 1);
        let at = status(&server, transport, of_length(ROW)).await?;
        ensure!(at == Some(200), "{transport}: a row of {ROW} octets got {at:?}");
        let beyond = status(&server, transport, of_length(ROW + 1)).await?;
        ensure!(refused(beyond), "{transport}: a row of {} octets got {beyond:?}", ROW + 1);
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_lie_cost_nothing() -> Result<()> {
    let server = Server::start()?;
    for length in ["1000000000", "18446744073709551615", "18446744073709551616", "-1", "+5", "0x10", ""] {
        let got = status(&server, Transport::Tcp, |client| options(client).with("Content-Length", length)).await?;
        ensure!(refused(got), "Content-Length {length:?} got {got:?}");
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_may_take_ten_seconds() -> Result<()> {
    let server = Server::start()?;
    let client = server.signed_in("alice", Transport::Tcp).await?;
    let octets = options(&client).octets();
    let (first, rest) = octets.split_at(40);
    let start = Instant::now();
    client.link().send(first).await?;
    // One octet a second: every read brings something, the message never ends.
    let drip = async {
        for octet in rest {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if client.link().send(&[*octet]).await.is_err() {
                break;
            }
        }
    };
    let end = tokio::select! {
        () = drip => start.elapsed(),
        end = client.link().closed(Duration::from_secs(20)) => end? - start,
    };
    ensure!(end >= Duration::from_secs(9) && end < Duration::from_secs(15), "closed after {end:?}");
    // In pieces, but in time: served.
    let client = server.signed_in("alice", Transport::Tcp).await?;
    let request = options(&client);
    for piece in request.octets().chunks(23) {
        client.link().send(piece).await?;
        tokio::task::yield_now().await;
    }
    expect(client.final_answer(&request, PATIENCE).await?.packet, 200)?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_nothing_is_put_out() -> Result<()> {
    let server = Server::start()?;
    for transport in [Transport::Tcp, Transport::Tls] {
        // The server's patience begins somewhere between these two moments.
        let before = Instant::now();
        let idle = Link::open(&server.target(transport)?).await?;
        let opened = Instant::now();
        let known = server.signed_in("alice", transport).await?;
        let closed = idle.closed(Duration::from_secs(45)).await?;
        let (most, least) = (closed - before, closed - opened);
        ensure!(most >= Duration::from_secs(25), "{transport}: closed after {most:?} at most");
        ensure!(least < Duration::from_secs(40), "{transport}: closed after {least:?} at least");
        ensure!(!known.link().is_closed(), "{transport}: a signed-in client was put out too");
        known.sign_out().await?;
    }
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered() -> Result<()> {
    let server = Server::start()?;
    for transport in [Transport::Tcp, Transport::Tls] {
        let client = server.signed_in("alice", transport).await?;
        client.link().send(b"\r\n\r\n").await?;
        client.link().pong(PATIENCE).await.context("CRLFCRLF in one piece")?;
        client.link().send(b"\r\n").await?;
        client.link().send(b"\r").await?;
        client.link().send(b"\n").await?;
        client.link().pong(PATIENCE).await.context("CRLFCRLF in three pieces")?;
        let request = options(&client);
        let octets = [b"\r\n\r\n".to_vec(), request.octets()].concat();
        client.link().send(&octets).await?;
        client.link().pong(PATIENCE).await.context("CRLFCRLF before a request")?;
        expect(client.final_answer(&request, PATIENCE).await?.packet, 200)?;
    }
    let client = server.signed_in("alice", Transport::Udp).await?;
    client.link().send(b"\r\n\r\n").await?;
    client.link().pong(PATIENCE).await.context("CRLFCRLF over UDP")?;
    server.finish()
}

/// A Binding request of STUN with this transaction, and what follows its head.
fn binding_request(transaction: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(attributes.len()).unwrap_or(u8::MAX);
    [&[0, 1, 0, length, 0x21, 0x12, 0xa4, 0x42], [transaction; 12].as_slice(), attributes].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stun_over_udp_is_answered_to_whom_is_known() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Udp).await?;
    client.link().send(&binding_request(1, &[])).await?;
    client.sign_in().await?;
    ensure!(client.link().stun(Duration::from_millis(200)).await.is_err(), "a stranger was answered");
    // Without the cookie, and with a wish that another address answers.
    let mut old = binding_request(2, &[]);
    old[4] = 0;
    client.link().send(&old).await?;
    client.link().send(&binding_request(3, &[0, 3, 0, 4, 0, 0, 0, 6])).await?;
    client.link().send(&binding_request(4, &[])).await?;
    let answer = client.link().stun(PATIENCE).await?;
    let SocketAddr::V4(own) = client.link().local() else { anyhow::bail!("IPv4 was wanted") };
    let (port, ip) = (own.port() ^ 0x2112, u32::from(*own.ip()) ^ 0x2112_a442);
    let mapped = [&[0, 0x20, 0, 8, 0, 1], port.to_be_bytes().as_slice(), &ip.to_be_bytes()].concat();
    let expected = [&[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42], [4; 12].as_slice(), &mapped].concat();
    ensure!(answer == expected, "{answer:02x?} and not {expected:02x?}");
    ensure!(client.link().stun(Duration::from_millis(200)).await.is_err(), "more than one answer");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_over_udp_are_kept_open() -> Result<()> {
    let server = Server::start()?;
    let client = server.signed_in("alice", Transport::Udp).await?;
    let start = Instant::now();
    client.link().ping(Duration::from_secs(30)).await?;
    client.link().ping(Duration::from_secs(30)).await?;
    let two = start.elapsed();
    // A path through a NAT or a VIP is forgotten after 30 s.
    ensure!(two < Duration::from_secs(50), "two pings took {two:?}");
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_answered_with_more_than_they_sent() -> Result<()> {
    let server = Server::start()?;
    let client = server.client("alice", Transport::Udp).await?;
    let short = format!(
        "OPTIONS sip:{} SIP/2.0\r\nv: SIP/2.0/UDP h;branch={}\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>\r\ni: 1\r\nCSeq: 1 OPTIONS\r\n\r\n",
        server.ready().domain,
        "z9hG4bK1"
    );
    ensure!(short.len() < 200);
    client.link().send(short.as_bytes()).await?;
    // The next request's answer comes after whatever the short one brought.
    let request = client.register(600);
    expect(client.transact(&request).await?, 401)?;
    ensure!(client.link().left().is_empty(), "a stranger's short datagram was answered: {:?}", client.link().left());
    let lengths = [0, 50, 100, 200].map(|more| request.clone().with("X-Padding", "p".repeat(more)));
    for request in lengths {
        let request = client.again(request)?;
        client.link().send(&request.octets()).await?;
        let answer = client.final_answer(&request, PATIENCE).await?;
        ensure!(
            answer.octets.len() <= 2 * request.octets().len(),
            "{} octets for {}",
            answer.octets.len(),
            request.octets().len()
        );
    }
    server.finish()
}

/// Documents that cost a careless reader seconds.
fn bombs() -> Vec<(&'static str, String)> {
    let root = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:alice@commpool.test'";
    let mut spaces = String::new();
    let mut depth = 0;
    while spaces.len() < 50_000 {
        let _ = write!(spaces, "<a xmlns:n{depth}='urn:n{depth}'>");
        depth += 1;
    }
    let attributes = (0..3_500).fold(String::new(), |mut out, number| {
        let _ = write!(out, " a{number}='{number}'");
        out
    });
    let entities = (1..12).fold("<!ENTITY e0 'lol'>".to_owned(), |mut out, number| {
        let previous = format!("&e{};", number - 1).repeat(10);
        let _ = write!(out, "<!ENTITY e{number} '{previous}'>");
        out
    });
    vec![
        ("nested namespaces", format!("{root}>{spaces}{}</presence>", "</a>".repeat(depth))),
        ("attributes", format!("{root}><tuple id='t'{attributes}/></presence>")),
        ("depth", format!("{root}>{}{}</presence>", "<a>".repeat(8_000), "</a>".repeat(8_000))),
        ("entities", format!("<!DOCTYPE p [{entities}]>{root}><note>&e11;</note></presence>")),
        (
            "external entity",
            format!("<!DOCTYPE p [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>{root}><note>&x;</note></presence>"),
        ),
        ("elements", format!("{root}>{}</presence>", "<a/>".repeat(14_000))),
        ("unclosed", format!("{root}><tuple id='t'><status>")),
        ("text", format!("{root}><note>{}</note>", "n".repeat(60_000))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xml_made_to_hurt_is_refused_at_no_cost() -> Result<()> {
    let server = Server::start()?;
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    for (name, bomb) in bombs() {
        let before = server.processor_time()?;
        for _ in 0..10 {
            let request = alice.publication(None, None, 600).with_body(PIDF, bomb.clone());
            let answer = alice.exchange(request).await?;
            ensure!(matches!(answer.status(), Some(400 | 413)), "{name}:\n{answer}");
        }
        let spent = server.processor_time()? - before;
        // The clock has steps of 10 ms, and each bomb crosses the wire twice: a bound, not a figure.
        ensure!(spent < Duration::from_millis(500), "{name}: ten of them cost {spent:?}");
    }
    let bob = server.client("bob", Transport::Tcp).await?;
    expect(bob.say(&alice.aor(), &unique("still there? ")).await?, 200)?;
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_strangers_do_not_keep_anybody_out() -> Result<()> {
    let server = Server::start()?;
    let target = server.target(Transport::Tcp)?;
    let mut strangers = Vec::new();
    for _ in 0..1000 {
        strangers.push(Link::open(&target).await?);
    }
    let alice = server.signed_in("alice", Transport::Tcp).await?;
    let bob = server.signed_in("bob", Transport::Udp).await?;
    expect(alice.say(&bob.aor(), "through the crowd").await?, 200)?;
    bob.hears("through the crowd").await?;
    drop(strangers);
    server.finish()
}
