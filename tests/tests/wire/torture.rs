//! Torture messages over the wire: the project's own and the RFCs', a table of expected and seen, and a REGISTER after each.

#![allow(clippy::print_stdout, reason = "the table is the result, shown with --nocapture and kept in a file")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commpool_tests::client::{Client, PATIENCE, expect};
use commpool_tests::link::{Link, Transport};
use commpool_tests::server::Server;

#[path = "../../../crates/sip/tests/torture/table.rs"]
mod table;

use table::Case;

/// Methods that are asked for a proof of identity first.
const CHALLENGED: [&str; 4] = ["REGISTER", "MESSAGE", "PUBLISH", "SUBSCRIBE"];

/// How long a stream is watched where silence is right: nothing will ever come.
const SILENCE: Duration = Duration::from_millis(400);

/// What may come back.
#[derive(Debug, Default)]
struct Expected {
    statuses: Vec<u16>,
    never: Vec<u16>,
    /// Nothing at all, or the end of the connection.
    silence: bool,
    most: usize,
}

/// The part of a cell that is about datagrams or about streams, the whole where it makes no difference.
fn clause(cell: &str, stream: bool) -> &str {
    let wanted = if stream { "stream:" } else { "datagram:" };
    if !cell.contains("datagram:") {
        return cell;
    }
    cell.split(';').map(str::trim).find_map(|part| part.strip_prefix(wanted)).unwrap_or_default()
}

/// Numbers of exactly three digits.
fn statuses(text: &str) -> Vec<u16> {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 3);
    numbers.filter_map(|digits| digits.parse().ok()).collect()
}

impl Expected {
    fn of(case: &Case, stream: bool) -> Self {
        let text = clause(case.cell("server_answer"), stream);
        let never =
            case.cell("must_not").split(';').filter_map(|part| statuses(part.trim().get(..3)?).first().copied());
        let never = never.collect();
        if case.cell("server_answer").starts_with("(response)") {
            return Self { silence: true, never, ..Self::default() };
        }
        let invalid = !case.well_formed();
        let taken = !invalid || case.may_be_accepted();
        let mut expected = Self { statuses: statuses(text), never, silence: invalid, most: 1 };
        let method = case.octets.split(|octet| *octet == b' ').next().map(String::from_utf8_lossy).unwrap_or_default();
        if taken {
            expected.statuses.extend(policy(&method));
        }
        if stream && !has_length(&case.octets) {
            // Where a message ends on a stream only its Content-Length tells (RFC 3261 §20.14).
            return Self { statuses: vec![400], silence: true, most: 1, ..Self::default() };
        }
        if invalid {
            // Whatever is broken: a 400 is never wrong unless the table says so.
            expected.statuses.push(400);
        }
        if invalid && case.may_be_accepted() {
            expected.statuses.extend([200, 403, 404]);
        }
        if text.contains("two messages") || text.contains("two answers") {
            expected.most = 2;
        }
        expected.silence |= text.contains("wait");
        expected
    }

    fn fits(&self, seen: &Seen) -> bool {
        let right = |status: &u16| self.statuses.contains(status) && !self.never.contains(status);
        match seen.statuses.as_slice() {
            [] => self.silence,
            some => some.len() <= self.most && some.iter().take(1).all(right),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{:?}", self.statuses);
        if self.silence {
            text.push_str(" or silence");
        }
        text
    }
}

/// Whether the header has a Content-Length, under either name.
fn has_length(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets).trim_start().to_ascii_lowercase();
    let head = text.split_once("\r\n\r\n").map_or(text.as_str(), |(head, _)| head);
    head.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| matches!(name.trim(), "content-length" | "l"))
}

/// What this server says to a well-formed request it does not carry out: a challenge, 405, or 481.
fn policy(method: &str) -> Vec<u16> {
    match method {
        "MESSAGE" => vec![407],
        "OPTIONS" => vec![200],
        "CANCEL" | "NOTIFY" => vec![481],
        _ if CHALLENGED.contains(&method) => vec![401],
        _ => vec![405],
    }
}

/// What came back.
#[derive(Debug, Default)]
struct Seen {
    statuses: Vec<u16>,
    closed: bool,
}

impl Seen {
    fn text(&self) -> String {
        format!("{:?}{}", self.statuses, if self.closed { " closed" } else { "" })
    }
}

/// Sends a message as one datagram from an address that is signed in, so that nothing is held back from a stranger.
async fn by_datagram(client: &Client, case: &Case) -> Result<Seen> {
    client.link().send(&case.octets).await?;
    // The server reads its datagrams in order: when the probe is answered, the message has been.
    let probe = client.request("OPTIONS", &format!("sip:{}", client.identity().domain));
    expect(client.transact(&probe).await?, 200)?;
    let mut seen = Seen::default();
    for _ in client.link().left() {
        let arrival = client.link().take("what is left", PATIENCE, |_| true).await?;
        seen.statuses.extend(arrival.packet.status());
        ensure!(arrival.packet.method().is_none(), "a client was reached:\n{}", arrival.packet);
    }
    Ok(seen)
}

/// Sends a message over a connection of its own.
async fn by_stream(server: &Server, case: &Case, expected: &Expected) -> Result<Seen> {
    let link = Link::open(&server.target(Transport::Tcp)?).await?;
    // The server may close before the last octet is written.
    let _ = link.send(&case.octets).await;
    let limit = if expected.silence { SILENCE } else { PATIENCE };
    let mut seen = Seen::default();
    let first = link.take("an answer", limit, |_| true).await;
    for arrival in first.into_iter().chain(link.take("a second answer", SILENCE / 4, |_| true).await) {
        seen.statuses.extend(arrival.packet.status());
        ensure!(arrival.packet.method().is_none(), "a client was reached:\n{}", arrival.packet);
    }
    seen.closed = link.is_closed();
    Ok(seen)
}

async fn run(folder: &Path, stream: bool, title: &str) -> Result<()> {
    let server = Server::start()?;
    let alice = server.signed_in("alice", Transport::Udp).await?;
    let bob = server.signed_in("bob", Transport::Tls).await?;
    let (mut table, mut wrong) = (format!("{title}\n"), Vec::new());
    for case in table::cases(folder) {
        let expected = Expected::of(&case, stream);
        let seen = if stream { by_stream(&server, &case, &expected).await } else { by_datagram(&alice, &case).await };
        let seen = seen.with_context(|| case.name().to_owned())?;
        let verdict = if expected.fits(&seen) { "right" } else { "WRONG" };
        let line = format!(
            "{verdict}  {:<32} {:<14} expected {:<36} seen {}",
            case.name(),
            case.cell("class"),
            expected.text(),
            seen.text()
        );
        let _ = writeln!(table, "{line}");
        if verdict == "WRONG" {
            wrong.push(format!("{line}   ({}; must not: {})", case.cell("server_answer"), case.cell("must_not")));
        }
        let after =
            bob.exchange(bob.register(600)).await.with_context(|| format!("a REGISTER after {}", case.name()))?;
        expect(after, 200)?;
    }
    println!("{table}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{}.txt", title.replace(' ', "-")));
    std::fs::write(&file, &table).with_context(|| format!("cannot write {}", file.display()))?;
    ensure!(wrong.is_empty(), "{title}:\n{}", wrong.join("\n"));
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_messages_as_datagrams() -> Result<()> {
    run(&table::own_folder(), false, "own datagrams").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_messages_on_streams() -> Result<()> {
    run(&table::own_folder(), true, "own streams").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc_messages_as_datagrams() -> Result<()> {
    let Some(folder) = table::rfc_folder() else { return Ok(()) };
    run(&folder, false, "rfc datagrams").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc_messages_on_streams() -> Result<()> {
    let Some(folder) = table::rfc_folder() else { return Ok(()) };
    run(&folder, true, "rfc streams").await
}
