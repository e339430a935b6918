//! Store calls of a request, counted by the server itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::client::{Client, expect};
use crate::http;
use crate::link::Transport;
use crate::presence::published;
use crate::server::Server;

/// Requests of each kind.
const TIMES: u32 = 100;

/// Store calls per request by operation, of one kind of request.
#[derive(Clone, Debug)]
pub struct Calls {
    /// The request.
    pub request: &'static str,
    /// Calls of each operation for one request.
    pub each: BTreeMap<String, f64>,
}

/// Counts the calls of accepted REGISTER, MESSAGE, PUBLISH and refreshed SUBSCRIBE.
///
/// # Errors
/// When a request is refused.
pub fn run() -> Result<Vec<Calls>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::start()?;
    let counted = runtime.block_on(async {
        let (alice, bob) =
            (server.signed_in("alice", Transport::Tcp).await?, server.signed_in("bob", Transport::Tcp).await?);
        let mut tag = alice.publish("open", None, None, None).await?;
        let watch = bob.watch(&alice.aor()).await?;
        let mut counted = Vec::new();
        for request in ["REGISTER", "MESSAGE", "PUBLISH", "SUBSCRIBE in its dialog"] {
            let before = calls(&server)?;
            for turn in 0..TIMES {
                match request {
                    "REGISTER" => drop(alice.sign_in().await?),
                    "MESSAGE" => drop(expect(alice.say(&bob.aor(), &format!("text number {turn}")).await?, 200)?),
                    "PUBLISH" => tag = publish(&alice, &tag, turn).await?,
                    _ => drop(bob.rewatch(&watch, 600).await?),
                }
            }
            counted.push(Calls { request, each: difference(&before, &calls(&server)?) });
        }
        Ok::<_, anyhow::Error>(counted)
    })?;
    server.finish()?;
    Ok(counted)
}

async fn publish(client: &Client, tag: &str, turn: u32) -> Result<String> {
    let activity = if turn.is_multiple_of(2) { "busy" } else { "away" };
    let document = published(&client.aor(), "open", Some(activity), None);
    let answer = expect(client.exchange(client.publication(Some(&document), Some(tag), 600)).await?, 200)?;
    Ok(answer.need("SIP-ETag")?.to_owned())
}

fn calls(server: &Server) -> Result<BTreeMap<String, f64>> {
    let address = *server.ready().addresses.get("management").context("no management address")?;
    let (_, text) = http::get(address, "/metrics")?;
    let line = |line: &str| {
        let rest = line.strip_prefix("store_calls_total{operation=\"")?;
        let (operation, value) = rest.split_once("\"} ")?;
        Some((operation.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(|text| line(text.trim_start_matches("commpool_"))).collect())
}

fn difference(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let more = |(name, count): (&String, &f64)| {
        let each = (count - before.get(name).unwrap_or(&0.0)) / f64::from(TIMES);
        (each > 0.0).then(|| (name.clone(), each))
    };
    after.iter().filter_map(more).collect()
}
