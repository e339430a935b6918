//! Figures of the User Replicator: time beside the directory's own, rows written, memory.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::directory::{Access, Directory, Kind};
use commpool_harness::packages;
use commpool_harness::postgres::Settings;
use commpool_harness::process::{Process, Stream};

use super::spread;
use crate::directory::{Backend, Replica, directory, outcome};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often memory is looked at; the kernel keeps the peak, only the last moment can be missed.
const LOOK: Duration = Duration::from_millis(5);

/// What the replicator asks of an entry, about.
const ATTRIBUTES: [&str; 10] = [
    "objectGUID",
    "entryUUID",
    "mail",
    "displayName",
    "cn",
    "telephoneNumber",
    "title",
    "company",
    "userAccountControl",
    "physicalDeliveryOfficeName",
];

/// A directory of a size.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Which directory.
    pub kind: Kind,
    /// People in it.
    pub users: u32,
    /// How often it is measured.
    pub rounds: u32,
}

/// One run of the replicator.
#[derive(Clone, Copy, Debug)]
struct Run {
    took: Duration,
    /// Peak of the resident memory, octets.
    peak: u64,
}

/// What a case showed, one a round.
#[derive(Clone, Debug)]
pub struct Figures {
    case: Case,
    /// The whole directory read by `ldapsearch`.
    read: Vec<Duration>,
    first: Vec<Run>,
    unchanged: Vec<Run>,
    /// Rows written by all unchanged runs.
    rows: u64,
}

/// Measures one case.
///
/// # Errors
/// When a run fails, or does not do what it should.
pub fn run(case: Case) -> Result<Figures> {
    let lab = directory(case.kind, case.users)?;
    let mut figures = Figures { case, read: Vec::new(), first: Vec::new(), unchanged: Vec::new(), rows: 0 };
    for _ in 0..case.rounds {
        let mut replica = replica(&lab)?;
        figures.read.push(own_read(lab.access(), case.users)?);
        figures.first.push(replicate(&replica, u64::from(case.users), 0)?);
        let before = replica.rows_written()?;
        figures.unchanged.push(replicate(&replica, 0, u64::from(case.users))?);
        figures.rows += replica.rows_written()? - before;
    }
    Ok(figures)
}

fn replica(lab: &Directory) -> Result<Replica> {
    let settings = Settings { durable: true, ..Settings::default() };
    let mut replica = Replica::with(Backend::Postgres, lab.access(), settings)?;
    replica.section.base_dn = lab.kind().unit("People");
    replica.section.timeout = 60;
    Ok(replica)
}

/// The directory's own time: the same pages of about the same attributes, read by a program in C that throws them away.
fn own_read(access: &Access, users: u32) -> Result<Duration> {
    let mut search = Command::new("ldapsearch");
    search.env("LDAPTLS_CACERT", &access.ca_file).args(["-x", "-LLL", "-H", &access.ldaps, "-E", "pr=500/noprompt"]);
    search.arg("-D").arg(access.bind_dn()?).arg("-y").arg(&access.password_file);
    search.args(["-b", &access.kind.unit("People"), "(displayName=*)"]).args(ATTRIBUTES);
    search.arg(access.kind.sip_attribute().0);
    let start = Instant::now();
    let found = search.stdin(Stdio::null()).output().context("ldapsearch cannot be run")?;
    let took = start.elapsed();
    let entries = found.stdout.windows(4).filter(|octets| *octets == b"\ndn:").count();
    ensure!(found.status.success() && entries + 1 >= users as usize, "ldapsearch found {entries}");
    Ok(took)
}

/// One run that must add so many and leave so many as they are.
fn replicate(replica: &Replica, added: u64, unchanged: u64) -> Result<Run> {
    let mut command = replica.command(&["run"])?;
    command.env("COMMPOOL_LOG", "info");
    let start = Instant::now();
    let mut process = Process::start("replicator", replica.folder(), &mut command)?;
    let mut peak = 0;
    while process.try_status()?.is_none() {
        ensure!(start.elapsed() < PATIENCE, "the replicator does not end");
        peak = high_water(process.pid()).unwrap_or(peak);
        std::thread::sleep(LOOK);
    }
    let took = start.elapsed();
    let outcome = outcome(&process.text(Stream::Out)).with_context(|| process.text(Stream::Err))?;
    let counts = outcome.counts;
    ensure!(counts.added == added && counts.unchanged == unchanged, "{outcome:?}");
    Ok(Run { took, peak })
}

/// Peak of a process's resident memory so far, octets.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The page's part about directories.
#[must_use]
pub fn markdown(command: &str, all: &[Figures]) -> String {
    let mut out = String::new();
    let versions: Vec<String> = [("Samba", Kind::Samba.package()), ("OpenLDAP", Kind::OpenLdap.package())]
        .into_iter()
        .filter_map(|(name, package)| Some(format!("{name} {}", packages::version(package)?)))
        .collect();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "## Directory\n\nCommand: `{command}`; {}, PostgreSQL 15 with disk writes waited for, all on one machine of two \
         cores. `ldapsearch` reads the same pages over TLS and throws them away: what the directory itself takes. Times \
         are seconds, memory is the peak of the replicator's resident memory in MB; median (least–most). \
         Aim: under 40 MB, not growing with the directory; no row written where nothing changed (the lease's own row \
         apart).\n\n\
         | directory | users | ldapsearch | first run | unchanged run | memory, first run | memory, unchanged run | rows \
         written by unchanged runs |\n|---|---|---|---|---|---|---|---|",
        versions.join(", ")
    );
    for figures in all {
        let seconds = |times: &mut dyn Iterator<Item = Duration>| spread(times.map(|time| time.as_secs_f64()));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            figures.case.kind.name(),
            figures.case.users,
            seconds(&mut figures.read.iter().copied()),
            seconds(&mut figures.first.iter().map(|run| run.took)),
            seconds(&mut figures.unchanged.iter().map(|run| run.took)),
            spread(figures.first.iter().map(|run| run.peak as f64 / 1e6)),
            spread(figures.unchanged.iter().map(|run| run.peak as f64 / 1e6)),
            figures.rows
        );
    }
    out
}
