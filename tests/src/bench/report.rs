//! Writes what was measured as Markdown, into its own part of a page that others write to as well.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::calls::Calls;
use super::idle::Cost;
use super::load::Operation;
use super::{Sample, Spread};
use crate::link::Transport;

/// A part of the page that belongs to this program: the name in the lines around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Figures beside a peer.
    Peer,
    /// Figures of the User Replicator.
    Directory,
    /// Figures on a cluster.
    Cluster,
}

impl Part {
    const fn lines(self) -> (&'static str, &'static str) {
        match self {
            Self::Peer => ("<!-- cargo xtask bench: begin -->", "<!-- cargo xtask bench: end -->"),
            Self::Directory => {
                ("<!-- cargo xtask bench -- directory: begin -->", "<!-- cargo xtask bench -- directory: end -->")
            }
            Self::Cluster => {
                ("<!-- cargo xtask bench -- cluster: begin -->", "<!-- cargo xtask bench -- cluster: end -->")
            }
        }
    }

    /// Puts a text into this part of a page, which is made if it is not there.
    ///
    /// # Errors
    /// When the page cannot be read or written.
    pub fn write(self, page: &Path, text: &str) -> Result<()> {
        let old = if page.exists() { fs::read_to_string(page)? } else { HEADING.to_owned() };
        fs::write(page, self.replaced(&old, text)).with_context(|| format!("cannot write {}", page.display()))
    }

    /// A page with this part replaced, or added at the end.
    fn replaced(self, page: &str, text: &str) -> String {
        let (begin, end) = self.lines();
        let own = format!("{begin}\n\n{text}\n{end}");
        match (page.split_once(begin), page.split_once(end)) {
            (Some((before, _)), Some((_, after))) => format!("{before}{own}{after}"),
            _ => format!("{page}\n{own}\n"),
        }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub operation: Operation,
    /// How it was carried.
    pub transport: Transport,
    /// What each server showed, ours first.
    pub servers: Vec<Measured>,
}

/// All runs of one server in a comparison.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Name of the server.
    pub name: &'static str,
    /// The ratio to this peer that is aimed at, if any.
    pub aim: Option<f64>,
    /// One sample a round.
    pub samples: Vec<Sample>,
}

/// Everything measured in one go.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Comparisons.
    pub rows: Vec<Row>,
    /// Those of a pool on PostgreSQL.
    pub pool: Vec<Row>,
    /// Memory of idle TLS connections, by server.
    pub idle: Vec<(&'static str, Vec<Cost>)>,
    /// Store calls.
    pub calls: Vec<Calls>,
    /// The command line.
    pub command: String,
    /// Operations that counted, of each run.
    pub operations: u64,
    /// Rounds.
    pub rounds: u32,
    /// First line of the peer's version.
    pub peer: Option<String>,
}

impl Report {
    /// The page's part.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.machine(&mut out);
        if !self.rows.is_empty() {
            self.comparison(&mut out);
            throughput(&self.rows, &mut out);
        }
        if !self.pool.is_empty() {
            self.pool(&mut out);
            throughput(&self.pool, &mut out);
        }
        self.idle(&mut out);
        self.calls(&mut out);
        out
    }

    fn machine(&self, out: &mut String) {
        let _ = writeln!(out, "Command: `{}`\n", self.command);
        let _ = writeln!(out, "| | |\n|---|---|");
        for (name, value) in machine() {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        if let Some(peer) = &self.peer {
            let _ = writeln!(out, "| peer | {peer}, Debian's package |");
        }
    }

    fn comparison(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n### Processor time of the server\n\nSeconds for 1,000 operations, all processes of the server, median of \
             {} alternating rounds (least–most); {} operations each after a tenth as many to warm up; 200 clients, 32 \
             operations under way. REGISTER is challenged (401) each time; MESSAGE is challenged (407) each time and \
             counts until the receiver's 200 is back at the sender. Both servers offer MD5 only.\n",
            self.rounds, self.operations
        );
        ratios(&self.rows, out);
        out.push_str(DURABILITY);
    }

    fn pool(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n### Processor time of a pool on PostgreSQL\n\nAs above, with two front ends of ours and one Kamailio \
             of two workers for each transport; all processes of servers and database, the database's share in \
             brackets after each.\n"
        );
        ratios(&self.pool, out);
        out.push_str(POOL_DURABILITY);
    }

    fn idle(&self, out: &mut String) {
        if self.idle.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\n### Memory of an idle TLS connection\n\nConnections that are signed in and silent; proportional set size \
             of all processes with them less without them, each. Kernel memory of sockets is not in it.\n\n\
             | server | connections | KiB each | whole, MiB |\n|---|---|---|---|"
        );
        for (name, costs) in &self.idle {
            let connections = costs.first().map_or(0, |cost| cost.connections);
            let _ = writeln!(
                out,
                "| {name} | {connections} | {} | {} |",
                spread(Spread::of(costs.iter().map(|cost| cost.each() / 1024.0)), 1),
                spread(Spread::of(costs.iter().map(|cost| cost.after as f64 / 1_048_576.0)), 1)
            );
        }
    }

    fn calls(&self, out: &mut String) {
        if self.calls.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\n### Store calls\n\nCounted by the server itself, for one accepted request.\n\n| request | calls |\n|---|---|"
        );
        for calls in &self.calls {
            let each: Vec<String> = calls.each.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let each = if each.is_empty() { "none".to_owned() } else { each.join(", ") };
            let _ = writeln!(out, "| {} | {each} |", calls.request);
        }
    }
}

/// One line for each peer of each comparison.
fn ratios(rows: &[Row], out: &mut String) {
    let _ = writeln!(out, "| operation | Commpool | peer | ratio | aim |\n|---|---|---|---|---|");
    for row in rows {
        let Some((ours, peers)) = row.servers.split_first() else { continue };
        let cpu = |of: &Measured| Spread::of(of.samples.iter().map(|sample| sample.cpu_per_thousand));
        let figure = |of: &Measured| {
            let database = Spread::of(of.samples.iter().map(|sample| sample.database)).filter(|s| s.most > 0.0);
            let share = database.map_or_else(String::new, |s| format!(" [{:.3}]", s.median));
            format!("{}{share}", spread(cpu(of), 3))
        };
        let (what, own) = (format!("{} {}", row.operation.name(), row.transport), figure(ours));
        for peer in peers {
            let ratio = cpu(ours).zip(cpu(peer)).map_or(f64::NAN, |(own, peer)| own.median / peer.median);
            let aim = peer.aim.map_or_else(|| "–".to_owned(), |aim| format!("≤ {aim}"));
            let _ = writeln!(out, "| {what} | {own} | {}: {} | **{ratio:.2}** | {aim} |", peer.name, figure(peer));
        }
        if peers.is_empty() {
            let _ = writeln!(out, "| {what} | {own} | not installed | – | – |");
        }
    }
}

fn throughput(rows: &[Row], out: &mut String) {
    let _ = writeln!(
        out,
        "\n#### Throughput and latency of the same runs\n\nOf a shared machine, and with the generator on it: for \
         orientation only.\n\n| operation | server | operations/s | p50 ms | p99 ms | failed | generator s/1000 |\n|---|---|---|---|---|---|---|"
    );
    for row in rows {
        for server in &row.servers {
            let of = |figure: fn(&Sample) -> f64| Spread::of(server.samples.iter().map(figure));
            let failed: u64 = server.samples.iter().map(|sample| sample.failed).sum();
            let _ = writeln!(
                out,
                "| {} {} | {} | {} | {} | {} | {failed} | {} |",
                row.operation.name(),
                row.transport,
                server.name,
                spread(of(|sample| sample.rate), 0),
                spread(of(|sample| sample.median.as_secs_f64() * 1000.0), 1),
                spread(of(|sample| sample.slow.as_secs_f64() * 1000.0), 1),
                spread(of(|sample| sample.generator), 3),
            );
        }
    }
}

const HEADING: &str = "# Figures

Measured beside Debian's Kamailio on one machine, in turn. Compare within a table only: another day or another machine
gives other numbers. The figure to hold on to is processor time for 1,000 operations; on a machine that does other work
too it moves by some 20 %, throughput and latency by far more.

`cargo xtask bench` builds server and generator with optimisation, runs everything below and writes this part of the page.
";

const DURABILITY: &str = "\nWhat each promises: Commpool writes a registration to SQLite before it answers, without \
waiting for the disk (`synchronous = NORMAL` in WAL mode: it survives the end of the process, the last moments may be \
lost with the power; a client's next refresh brings them back). Kamailio `sqlite-wt` writes each one in a transaction of \
its own with SQLite's default, which waits for the disk. `mem` keeps registrations in memory and reads the password's \
hash from SQLite for every request; its database is in WAL mode too, which is cheaper to read than SQLite's default.\n";

const POOL_DURABILITY: &str = "\nWhat each promises: Commpool commits a registration to PostgreSQL before it answers \
and does not wait for the disk (`synchronous_commit = off` for what clients renew by themselves; if the database loses \
its last moments, every front end says again what it holds). Kamailio commits each registration with PostgreSQL's \
default, which waits. `pg-db` asks the database for every message where somebody is, as a pool must; `pg-wt` knows from \
its own memory, which another front end could not.\n";

fn spread(spread: Option<Spread>, digits: usize) -> String {
    spread
        .map_or_else(|| "–".to_owned(), |s| format!("{:.digits$} ({:.digits$}–{:.digits$})", s.median, s.least, s.most))
}

/// The machine in a few rows.
fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once([':', '=']).map(|(_, v)| v.trim().trim_matches('"').to_owned()))
    };
    let cpu = read("/proc/cpuinfo");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = field(&cpu, "model name").unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    vec![
        ("processor", format!("{cores} × {model}")),
        ("memory", memory),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("system", field(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_default()),
        ("load average at the end", load),
        ("build", format!("Commpool {}, {}", commpool_harness::workspace::VERSION, profile())),
    ]
}

const fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug build: these figures say nothing" } else { "release profile" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_part_of_a_page_changes() {
        let first = Part::Peer.replaced("# Page\n", "one");
        let both = Part::Directory.replaced(&format!("{first}\n## Others\n"), "three");
        let second = Part::Peer.replaced(&both, "two");
        assert!(second.starts_with("# Page\n") && second.contains("## Others\n") && second.contains("three"));
        assert!(second.contains("two") && !second.contains("one"));
    }
}
