//! `pool status`: the front ends, their leases, connections and links.

use std::path::Path;

use clap::Subcommand;
use commpool_store::ops::Outcome;
use commpool_store::ops::front_ends::{List, State, Status};

use super::accounts::{call, unexpected};
use super::configuration::open_store;
use super::serve::runtime;
use super::{Done, EXIT_OTHER, Failure, print};

/// `pool …`
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Show every front end that is remembered, the dead ones for a day.
    Status {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(path: &Path, command: &Command) -> Done {
    let Command::Status { json } = command;
    let (_, store) = open_store(path)?;
    let listed = match runtime()?.block_on(call(&store, List.into()))? {
        Outcome::FrontEnds(listed) => listed,
        other => return Err(unexpected(&other)),
    };
    let alive = listed.front_ends.iter().filter(|f| f.dead_ms.is_none()).count();
    let line = |status: &Status| if *json { as_json(status) } else { as_text(status, alive.saturating_sub(1)) };
    print(listed.front_ends.iter().map(line))?;
    if alive == 0 {
        return Err(Failure::new(
            EXIT_OTHER,
            "no front end is alive: start one, or look at the logs of those that should be",
        ));
    }
    Ok(())
}

const fn state(status: &Status) -> &'static str {
    match status.state {
        State::Starting => "starting",
        State::Serving => "serving",
        State::Draining => "draining",
        State::Dead => "dead",
    }
}

fn as_json(status: &Status) -> String {
    serde_json::json!({
        "frontEnd": status.fe.0,
        "pod": status.pod,
        "address": status.address,
        "build": status.build,
        "state": state(status),
        "leaseSeconds": status.lease_ms / 1000,
        "deadSeconds": status.dead_ms.map(|ms| ms / 1000),
        "connections": status.load.connections,
        "endpoints": status.endpoints,
        "links": status.load.links,
    })
    .to_string()
}

fn as_text(status: &Status, others: usize) -> String {
    let Status { fe, pod, address, build, lease_ms, endpoints, load, .. } = status;
    let life = match (status.dead_ms, *lease_ms) {
        (Some(ms), _) => format!("dead for {} s", ms / 1000),
        (None, 0) => format!("{}, lease ran out", state(status)),
        (None, ms) => format!("{}, lease {} s", state(status), ms / 1000),
    };
    let at = if address.is_empty() { String::new() } else { format!(" {address}") };
    format!(
        "{}  {pod}{at}  {build}  {life}  {} connections, {endpoints} endpoints, {} of {others} links",
        fe.0, load.connections, load.links
    )
}
