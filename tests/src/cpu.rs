//! What a process group has used: processor time and memory, from /proc.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Clock ticks a second of /proc on Linux; fixed for user space.
const TICKS: u64 = 100;

/// ESRCH, which reading a zombie's memory answers.
const NO_SUCH_PROCESS: i32 = 3;

/// Processor time, user and system, of all live processes of a group and of the children they have reaped.
///
/// # Errors
/// When the group has no process.
pub fn time_of_group(group: u32) -> Result<Duration> {
    // A process that ends between the two looks has its time added to the parent that reaps it.
    let times = members(group)?.into_iter().filter_map(stat).map(|fields| ticks_of(&fields, 11..15));
    Ok(times.sum())
}

/// Processor time of the calling process so far.
///
/// # Errors
/// When /proc does not tell.
pub fn own_time() -> Result<Duration> {
    let fields = stat(std::process::id()).context("no /proc/self/stat")?;
    Ok(ticks_of(&fields, 11..13))
}

/// Sum of some of the times of a process.
fn ticks_of(fields: &[String], which: std::ops::Range<usize>) -> Duration {
    let ticks: u64 = which.filter_map(|field| fields.get(field)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Proportional set size of all processes of a group, octets: memory shared by several counts in parts.
///
/// # Errors
/// When the group has no process with memory or the kernel does not tell.
pub fn memory_of_group(group: u32) -> Result<u64> {
    let total = members(group)?.into_iter().map(memory_of).sum::<Result<u64>>()?;
    ensure!(total > 0, "no process of group {group} has memory left");
    Ok(total)
}

/// Proportional set size of one process, octets; nothing for one that has ended since it was listed.
fn memory_of(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS) => {
            return Ok(0);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
    };
    let line =
        text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("no Pss line in {path}"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("Pss")?;
    Ok(kib * 1024)
}

/// Process ids of a group.
fn members(group: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("no /proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        if stat(process).is_some_and(|fields| fields.get(2) == Some(&group.to_string())) {
            found.push(process);
        }
    }
    ensure!(!found.is_empty(), "no process in group {group}");
    Ok(found)
}

/// Fields of /proc/PID/stat after the name: 0 is the state, 2 the group, 11–14 the times.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_has_time_and_memory() {
        let fields = stat(std::process::id()).unwrap();
        let group = fields[2].parse().unwrap();
        assert!(memory_of_group(group).unwrap() > 1 << 16);
        assert!(time_of_group(group).is_ok());
    }

    #[test]
    fn a_process_that_has_ended_has_no_memory() {
        // Not waited for, it stays a zombie, which is listed but has nothing to measure.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while stat(child.id()).unwrap()[0] != "Z" {
            std::thread::yield_now();
        }
        assert_eq!(memory_of(child.id()).unwrap(), 0);
        child.wait().unwrap();
        assert_eq!(memory_of(child.id()).unwrap(), 0);
    }
}
