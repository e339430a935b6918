//! Running a program to its end, with errors that show the command and what it said.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Most lines of a failed program's output that an error shows.
pub const TAIL: usize = 20;

/// Writes one line to standard error, where people read progress; standard output stays for results.
pub fn say(line: &str) {
    // A closed standard error must not end the work.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The command as one would type it, for messages.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output goes where ours goes.
///
/// # Errors
/// When it cannot be started or does not end with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and gives its standard output, trimmed.
///
/// # Errors
/// When it cannot be started or does not end with 0; the error shows the end of its output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`{}` failed: {}\n{}", shown(command), output.status, tail(&String::from_utf8_lossy(&said), TAIL));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command with `input` on its standard input and gives its standard output, trimmed.
///
/// # Errors
/// As [`output`].
pub fn output_of(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    let mut pipe = child.stdin.take().context("the child has no standard input")?;
    let input = input.to_owned();
    // Written by a thread of its own, so that a child that answers before it has read everything blocks nobody.
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output()?;
    // A child that ends without reading all closes the pipe; its exit status tells whether that was wrong.
    let _ = writer.join();
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`{}` failed: {}\n{}", shown(command), output.status, tail(&String::from_utf8_lossy(&said), TAIL));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a command ends with 0; what it says is thrown away.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Where a program lies, searched along `PATH` and in the folders of system programs, which an ordinary user's `PATH`
/// leaves out.
#[must_use]
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| is_program(file))
}

/// Whether the process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The last lines of a text, at most so many.
#[must_use]
pub fn tail(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

/// Whether a file can be executed by somebody.
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Message for a program that did not start.
fn cannot_start(command: &Command) -> String {
    format!("`{}` cannot be started", shown(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_command_status_and_words() {
        let error = output(Command::new("sh").args(["-c", "echo too bad >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains('3') && error.contains("too bad"), "{error}");
    }

    #[test]
    fn input_reaches_the_child() {
        let long = "x".repeat(1 << 20);
        assert_eq!(output_of(&mut Command::new("cat"), long.as_bytes()).unwrap(), long);
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_tail_is_short() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(tail(&text, TAIL).lines().next(), Some("80"));
    }
}
