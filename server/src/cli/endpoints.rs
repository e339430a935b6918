//! `endpoints list`: who is signed in, from where, since when.

use std::path::Path;

use clap::Subcommand;
use commpool_process::Reader;
use commpool_store::ops::endpoints::{Find, Page};
use commpool_store::ops::{Endpoint, Outcome, Transport};

use super::accounts::{call, unexpected};
use super::configuration::open_store;
use super::serve::runtime;
use super::{Done, EXIT_USAGE, Failure, print};

const PAGE: u32 = 500;

/// `endpoints …`
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List signed-in devices.
    List {
        /// Only this user: name, or name@domain.
        user: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(path: &Path, command: &Command) -> Done {
    let Command::List { user, json } = command;
    let (config, store) = open_store(path)?;
    let domain = config.sip_domains.first().cloned().unwrap_or_default();
    let address = user.as_deref().map(|name| {
        commpool_model::address::Address::parse(name, Some(&domain))
            .map(|a| a.to_string())
            .map_err(|e| Failure::new(EXIT_USAGE, format!("{name}: {e}")))
    });
    let mut find = Find { address: address.transpose()?, after: None, limit: PAGE };
    runtime()?.block_on(async {
        loop {
            let page: Page = match call(&store, find.clone().into()).await? {
                Outcome::EndpointsFind(page) => page,
                other => return Err(unexpected(&other)),
            };
            let reader = print(page.rows.iter().map(|(address, endpoint)| line(address, endpoint, *json)))?;
            match page.rows.last() {
                Some((_, last)) if page.more && reader == Reader::Listens => find.after = Some(last.id),
                _ => break,
            }
        }
        Ok(())
    })
}

fn line(address: &str, endpoint: &Endpoint, json: bool) -> String {
    if json { as_json(address, endpoint) } else { as_text(address, endpoint) }
}

const fn transport(endpoint: &Endpoint) -> &'static str {
    match endpoint.flow.transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}

fn as_json(address: &str, endpoint: &Endpoint) -> String {
    serde_json::json!({
        "address": address,
        "endpoint": format!("{:016x}", endpoint.id.0),
        "transport": transport(endpoint),
        "remote": endpoint.flow.remote,
        "frontEnd": endpoint.flow.fe.0,
        "agent": endpoint.agent,
        "contact": endpoint.contact,
        "signedInSeconds": endpoint.age_ms / 1000,
        "expiresSeconds": endpoint.expires_ms / 1000,
        "lostSeconds": endpoint.lost_ms.map(|ms| ms / 1000),
    })
    .to_string()
}

fn as_text(address: &str, endpoint: &Endpoint) -> String {
    let state = match endpoint.lost_ms {
        Some(ms) => format!("lost {} s ago", ms / 1000),
        None => format!("expires in {} s", endpoint.expires_ms / 1000),
    };
    format!(
        "{address}  {} {}  since {} s  {state}  {}",
        transport(endpoint),
        endpoint.flow.remote,
        endpoint.age_ms / 1000,
        endpoint.agent
    )
}
