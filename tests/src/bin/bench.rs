//! `bench`: figures of our server beside Kamailio, written to `docs/benchmarks.md`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use commpool_tests::bench::kamailio::{self, Variant};
use commpool_tests::bench::load::{self, Operation};
use commpool_tests::bench::report::{Report, Row};
use commpool_tests::bench::subject::{Grounds, Kind};
use commpool_tests::bench::{calls, idle};
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
    /// Everything.
    All,
    /// REGISTER with challenge over UDP and TCP.
    Register,
    /// MESSAGE with challenge over UDP and TCP.
    Message,
    /// Memory of idle TLS connections.
    Idle,
    /// Store calls per request.
    Calls,
}

/// One comparison to make: operation, transport, aimed ratio, peers.
type Comparison = (Operation, Transport, f64, &'static [Variant]);

const REGISTER: &[Comparison] = &[
    (Operation::Register, Transport::Udp, 0.5, &[Variant::SqliteWriteThrough]),
    (Operation::Register, Transport::Tcp, 0.5, &[Variant::SqliteWriteThrough]),
];

const MESSAGE: &[Comparison] = &[
    (Operation::Message, Transport::Udp, 0.8, &[Variant::Memory]),
    (Operation::Message, Transport::Tcp, 0.6, &[Variant::Memory, Variant::MemoryOneWorker]),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report {
        command: std::env::args()
            .enumerate()
            .map(|(n, a)| if n == 0 { "bench".to_owned() } else { a })
            .collect::<Vec<_>>()
            .join(" "),
        operations: arguments.operations,
        rounds: arguments.rounds,
        peer: kamailio::version(),
        ..Report::default()
    };
    if report.peer.is_none() {
        say(
            "Kamailio is not installed (Debian: kamailio, kamailio-sqlite-modules, kamailio-tls-modules, sqlite3): ours alone",
        )?;
    }
    let grounds = Grounds::new()?;
    let wants = |what| arguments.what == What::All || arguments.what == what;
    for (wanted, comparisons) in [(What::Register, REGISTER), (What::Message, MESSAGE)] {
        if wants(wanted) {
            report.rows.extend(compare(&grounds, &arguments, comparisons, report.peer.is_some())?);
        }
    }
    if wants(What::Idle) {
        report.idle = idle_memory(&grounds, &arguments, report.peer.is_some())?;
    }
    if wants(What::Calls) {
        report.calls = calls::run()?;
    }
    match &arguments.out {
        Some(page) => report.write(page),
        None => say(&report.markdown()),
    }
}

/// Runs every server of every comparison once a round, so that what the machine does meanwhile meets all alike.
fn compare(grounds: &Grounds, arguments: &Arguments, comparisons: &[Comparison], peer: bool) -> Result<Vec<Row>> {
    let servers = |peers: &[Variant]| {
        let peers = peers.iter().filter(|_| peer).map(|variant| Kind::Peer(*variant));
        std::iter::once(Kind::Ours).chain(peers).collect::<Vec<_>>()
    };
    let row = |(operation, transport, aim, peers): &Comparison| Row {
        operation: *operation,
        transport: *transport,
        aim: *aim,
        servers: servers(peers).into_iter().map(|kind| (kind.name(), Vec::new())).collect(),
    };
    let mut rows: Vec<Row> = comparisons.iter().map(row).collect();
    for round in 1..=arguments.rounds {
        for (row, (operation, transport, _, peers)) in rows.iter_mut().zip(comparisons) {
            for (kind, (name, samples)) in servers(peers).into_iter().zip(&mut row.servers) {
                let subject = grounds.start(kind)?;
                let sample = load::run(&subject, *operation, *transport, arguments.operations)?;
                subject.check()?;
                say(&format!(
                    "round {round}: {} {transport} {name}: {:.3} s/1000, {:.0}/s, p50 {:.1} ms, generator {:.3} s/1000",
                    operation.name(),
                    sample.cpu_per_thousand,
                    sample.rate,
                    sample.median.as_secs_f64() * 1000.0,
                    sample.generator
                ))?;
                samples.push(sample);
            }
        }
    }
    Ok(rows)
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
