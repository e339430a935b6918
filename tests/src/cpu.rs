//! What a process group has used: processor time and memory, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Clock ticks a second of /proc on Linux; fixed for user space.
const TICKS: u64 = 100;

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
/// When the group has no process or the kernel does not tell.
pub fn memory_of_group(group: u32) -> Result<u64> {
    let mut total = 0;
    for process in members(group)? {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("Pss")?;
        total += kib * 1024;
    }
    Ok(total)
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
}
