//! `bench`: figures of our server beside Kamailio, written to `docs/benchmarks.md`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use commpool_harness::Workspace;
use commpool_tests::bench::kamailio::{self, Variant};
use commpool_tests::bench::load::{self, Operation};
use commpool_tests::bench::report::{Measured, Part, Report, Row};
use commpool_tests::bench::subject::{Grounds, Kind};
use commpool_tests::bench::{calls, cluster, directory, idle};
use commpool_tests::link::Transport;

/// Measures our server beside Debian's Kamailio, in turn, on this machine.
#[derive(Parser, Debug)]
#[command(name = "bench")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// Rounds; in each, every server runs once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Operations that count, of each run.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1000..))]
    operations: u64,
    /// Idle TLS connections, at most 2,000.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Page that gets the figures; printed if absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything beside the peer.
    All,
    /// REGISTER with challenge over UDP and TCP.
    Register,
    /// MESSAGE with challenge over UDP and TCP.
    Message,
    /// REGISTER and MESSAGE with challenge through a pool of two front ends.
    Pool,
    /// Memory of idle TLS connections.
    Idle,
    /// Store calls per request.
    Calls,
    /// Pools, operator and images on a cluster, in a part of the page of its own; never among `all`.
    Cluster,
    /// The User Replicator with Samba and OpenLDAP, in a part of the page of its own; never among `all`.
    Directory,
}

/// One comparison to make: operation, transport, and peers with the ratio aimed at.
type Comparison = (Operation, Transport, &'static [(Variant, Option<f64>)]);

/// On PostgreSQL: first the peer that shares its users with others as ours does.
const ON_POSTGRES: &[(Variant, Option<f64>)] =
    &[(Variant::PostgresOnly, Some(0.4)), (Variant::PostgresWriteThrough, None)];

const MESSAGE_ON_POSTGRES: &[(Variant, Option<f64>)] =
    &[(Variant::PostgresOnly, Some(0.6)), (Variant::PostgresWriteThrough, None)];

const POOL: &[Comparison] = &[
    (Operation::Register, Transport::Udp, ON_POSTGRES),
    (Operation::Register, Transport::Tcp, ON_POSTGRES),
    (Operation::Message, Transport::Udp, MESSAGE_ON_POSTGRES),
    (Operation::Message, Transport::Tcp, MESSAGE_ON_POSTGRES),
    (Operation::MessageElsewhere, Transport::Udp, MESSAGE_ON_POSTGRES),
    (Operation::MessageElsewhere, Transport::Tcp, MESSAGE_ON_POSTGRES),
];

/// The second peer keeps registrations in memory only: less work than ours, for orientation.
const REGISTER_PEERS: &[(Variant, Option<f64>)] = &[(Variant::SqliteWriteThrough, Some(0.5)), (Variant::Memory, None)];

const REGISTER: &[Comparison] =
    &[(Operation::Register, Transport::Udp, REGISTER_PEERS), (Operation::Register, Transport::Tcp, REGISTER_PEERS)];

const MESSAGE: &[Comparison] = &[
    (Operation::Message, Transport::Udp, &[(Variant::Memory, Some(0.8))]),
    (Operation::Message, Transport::Tcp, &[(Variant::Memory, Some(0.6)), (Variant::MemoryOneWorker, Some(0.6))]),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.what {
        What::Directory => return directories(&arguments),
        What::Cluster => return on_a_cluster(&arguments),
        _ => {}
    }
    let mut report = Report {
        command: command(&arguments),
        operations: arguments.operations,
        rounds: arguments.rounds,
        peer: kamailio::version(),
        ..Report::default()
    };
    if report.peer.is_none() {
        say(
            "Kamailio is not installed (Debian: kamailio, kamailio-sqlite-modules, kamailio-postgres-modules, kamailio-tls-modules, sqlite3): ours alone",
        )?;
    }
    let grounds = Grounds::new()?;
    let wants = |what| arguments.what == What::All || arguments.what == what;
    for (wanted, comparisons) in [(What::Register, REGISTER), (What::Message, MESSAGE)] {
        if wants(wanted) {
            report.rows.extend(compare(&grounds, &arguments, Kind::Ours, comparisons, report.peer.is_some())?);
        }
    }
    if wants(What::Pool) {
        report.pool = compare(&grounds, &arguments, Kind::Pool, POOL, report.peer.is_some())?;
    }
    if wants(What::Idle) {
        report.idle = idle_memory(&grounds, &arguments, report.peer.is_some())?;
    }
    if wants(What::Calls) {
        report.calls = calls::run()?;
    }
    match &arguments.out {
        Some(page) => Part::Peer.write(page, &report.markdown()),
        None => say(&report.markdown()),
    }
}

fn on_a_cluster(arguments: &Arguments) -> Result<()> {
    let figures = cluster::run(&Workspace::find()?, arguments.rounds)?;
    let text = cluster::markdown(&format!("cargo xtask bench -- cluster --rounds {}", arguments.rounds), &figures);
    match &arguments.out {
        Some(page) => Part::Cluster.write(page, &text),
        None => say(&text),
    }
}

/// Directories of some sizes; only OpenLDAP is quick enough for the largest.
fn directories(arguments: &Arguments) -> Result<()> {
    use commpool_harness::directory::Kind::{OpenLdap, Samba};
    let sizes = [(Samba, 1_000), (Samba, 10_000), (OpenLdap, 1_000), (OpenLdap, 10_000), (OpenLdap, 100_000)];
    let mut all = Vec::new();
    for (kind, users) in sizes {
        say(&format!("{}, {users} users", kind.name()))?;
        all.push(directory::run(directory::Case { kind, users, rounds: arguments.rounds })?);
    }
    let command = format!("cargo xtask bench -- directory --rounds {}", arguments.rounds);
    let text = directory::markdown(&command, &all);
    match &arguments.out {
        Some(page) => Part::Directory.write(page, &text),
        None => say(&text),
    }
}

/// The command that measures the same again.
fn command(arguments: &Arguments) -> String {
    let Arguments { what, rounds, operations, connections, .. } = arguments;
    let what = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    format!("cargo xtask bench -- {what} --rounds {rounds} --operations {operations} --connections {connections}")
}

/// Runs every server of every comparison once a round, so that what the machine does meanwhile meets all alike.
fn compare(
    grounds: &Grounds,
    arguments: &Arguments,
    ours: Kind,
    comparisons: &[Comparison],
    peer: bool,
) -> Result<Vec<Row>> {
    let measured = |(kind, aim): (Kind, Option<f64>)| (kind, Measured { name: kind.name(), aim, samples: Vec::new() });
    let servers = |peers: &[(Variant, Option<f64>)]| {
        let peers = peers.iter().filter(|_| peer).map(|(variant, aim)| (Kind::Peer(*variant), *aim));
        std::iter::once((ours, None)).chain(peers).map(measured).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let row = |(operation, transport, peers): &Comparison| {
        let (kinds, servers) = servers(peers);
        (kinds, Row { operation: *operation, transport: *transport, servers })
    };
    let mut rows: Vec<(Vec<Kind>, Row)> = comparisons.iter().map(row).collect();
    for round in 1..=arguments.rounds {
        for (kinds, row) in &mut rows {
            for (kind, server) in kinds.iter().zip(&mut row.servers) {
                let subject = grounds.start(*kind)?;
                let sample = load::run(&subject, row.operation, row.transport, arguments.operations)?;
                subject.check()?;
                say(&format!(
                    "round {round}: {} {} {}: {:.3} s/1000, {:.0}/s, p50 {:.1} ms, generator {:.3} s/1000",
                    row.operation.name(),
                    row.transport,
                    server.name,
                    sample.cpu_per_thousand,
                    sample.rate,
                    sample.median.as_secs_f64() * 1000.0,
                    sample.generator
                ))?;
                server.samples.push(sample);
            }
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn idle_memory(grounds: &Grounds, arguments: &Arguments, peer: bool) -> Result<Vec<(&'static str, Vec<idle::Cost>)>> {
    // Ours first: its certificate serves the peer's TLS too.
    let kinds = if peer { vec![Kind::Ours, Kind::Peer(Variant::MemoryOneWorker)] } else { vec![Kind::Ours] };
    let mut costs: Vec<_> = kinds.iter().map(|kind| (kind.name(), Vec::new())).collect();
    for round in 1..=arguments.rounds {
        for (kind, (name, list)) in kinds.iter().zip(&mut costs) {
            let subject = grounds.start(*kind)?;
            let cost = idle::run(&subject, arguments.connections)?;
            say(&format!("round {round}: idle TLS {name}: {:.1} KiB each", cost.each() / 1024.0))?;
            list.push(cost);
        }
    }
    Ok(costs)
}

/// Prints a line to standard output.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}
