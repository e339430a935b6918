//! A guard over a program that runs beside us: its output goes to files, its process group ends with the guard.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::command::{TAIL, shown, tail};
use crate::wait;

/// One of a program's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, in `NAME.out`.
    Out,
    /// Standard error, in `NAME.err`.
    Err,
}

/// A running program in a process group of its own. Dropping it kills the whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    name: String,
    folder: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program with its output in `folder`/`name`.out and .err.
    ///
    /// # Errors
    /// When the files cannot be written or the program cannot be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = |stream| {
            let path = stream_file(folder, name, stream);
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file(Stream::Out)?)
            .stderr(file(Stream::Err)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", shown(command)))?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, name: name.to_owned(), folder: folder.to_owned(), status: None })
    }

    /// Process id, also the id of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written to one stream so far.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        let octets = fs::read(stream_file(&self.folder, &self.name, stream)).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// Waits for a whole line that `wanted` accepts and gives it.
    ///
    /// # Errors
    /// When the program ends or `limit` passes first; the error shows the end of its output.
    pub fn wait_for_line(&mut self, stream: Stream, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let what = format!("a line of {}", self.name);
        let found = wait::until(&what, limit, || {
            // Asked before the text is read: a line written just before the end must not be missed.
            let ended = self.try_status()?;
            let text = self.text(stream);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            match (whole.lines().find(|line| wanted(line)), ended) {
                (Some(line), _) => Ok(Some(line.to_owned())),
                (None, Some(status)) => bail!("{} ended: {status}", self.name),
                (None, None) => Ok(None),
            }
        });
        found.with_context(|| self.last_words())
    }

    /// How the program ended, if it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.try_status()).with_context(|| self.last_words())
    }

    /// Sends a signal to the program's whole group.
    ///
    /// # Errors
    /// When the program has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_status()? {
            bail!("{} has ended already: {status}", self.name);
        }
        kill_process_group(self.group, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks the program to end (SIGTERM) and waits; gives how it ended and how long that took.
    ///
    /// # Errors
    /// When it does not end within `grace`; it is killed then.
    pub fn stop(&mut self, grace: Duration) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        if self.try_status()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        let status = self.wait(grace);
        if status.is_err() {
            self.kill();
        }
        Ok((status?, start.elapsed()))
    }

    /// Lets the program run on without us.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn leave(mut self) -> Result<Left> {
        let pid = self.pid();
        let started = start_time(pid).with_context(|| self.last_words())?;
        // Nothing is left for the guard to end.
        self.status = Some(ExitStatus::default());
        Ok(Left { pid, started })
    }

    /// Ends the whole group at once and forgets it.
    fn kill(&mut self) {
        // The leader is reaped only after the group was signalled, so that its id cannot have been given to another.
        if self.status.is_none() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.status = self.child.wait().ok();
        }
    }

    /// The end of both streams, for errors.
    fn last_words(&self) -> String {
        let (out, err) = (self.text(Stream::Out), self.text(Stream::Err));
        format!("{} said last:\n{}\n{}", self.name, tail(&out, TAIL), tail(&err, TAIL))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that runs on without the one that started it, known by a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pid: u32,
    /// When it was started, in ticks since boot: tells it from a later process of the same id.
    started: u64,
}

impl Left {
    /// The program that a file tells of, if it lives.
    #[must_use]
    pub fn find(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut numbers = text.split_whitespace();
        let left = Self { pid: numbers.next()?.parse().ok()?, started: numbers.next()?.parse().ok()? };
        left.lives().then_some(left)
    }

    /// Writes the file by which it is found again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.started))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Process id, also the id of its group.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Asks its group to end (SIGTERM) and waits; what is left after `grace` is killed.
    ///
    /// # Errors
    /// When it does not end even then.
    pub fn end(self, grace: Duration) -> Result<()> {
        let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let what = format!("the end of process {}", self.pid);
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, grace)] {
            if !self.lives() {
                return Ok(());
            }
            // One that ends just now is what is wanted.
            let _ = kill_process_group(group, signal);
            let _ = wait::until(&what, patience, || Ok((!self.lives()).then_some(())));
        }
        if self.lives() { bail!("process {} does not end", self.pid) } else { Ok(()) }
    }
}

/// When a process was started (`/proc/PID/stat`, field 22); none for one that ended, also if nobody reaped it yet.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything; what follows its last parenthesis is field 3, the state.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// File of one stream.
fn stream_file(folder: &Path, name: &str, stream: Stream) -> PathBuf {
    folder.join(match stream {
        Stream::Out => format!("{name}.out"),
        Stream::Err => format!("{name}.err"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(name: &str, script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(name, folder.path(), Command::new("sh").args(["-c", script])).unwrap();
        (folder, process)
    }

    #[test]
    fn a_line_is_waited_for_per_stream() {
        let (_folder, mut process) = shell("lines", "echo one; echo two >&2; sleep 60");
        assert_eq!(process.wait_for_line(Stream::Err, LIMIT, |line| line.starts_with('t')).unwrap(), "two");
        assert_eq!(process.wait_for_line(Stream::Out, LIMIT, |_| true).unwrap(), "one");
    }

    #[test]
    fn the_end_is_told_with_the_last_words() {
        let (_folder, mut process) = shell("early", "echo no luck >&2; exit 7");
        let error = process.wait_for_line(Stream::Out, LIMIT, |_| true).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no luck") && text.contains("early ended"), "{text}");
    }

    #[test]
    fn stop_gives_status_and_time() {
        let (_folder, mut process) = shell("polite", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
        process.wait_for_line(Stream::Out, LIMIT, |line| line == "up").unwrap();
        let (status, took) = process.stop(LIMIT).unwrap();
        assert_eq!(status.code(), Some(5));
        assert!(took < LIMIT);
    }

    #[test]
    fn what_is_left_is_found_again_and_ended() {
        let (folder, process) = shell("left", "sleep 600");
        let file = folder.path().join("pid");
        process.leave().unwrap().note(&file).unwrap();
        let left = Left::find(&file).unwrap();
        assert!(left.lives());
        left.end(LIMIT).unwrap();
        assert_eq!(Left::find(&file), None);
    }

    #[test]
    fn dropping_ends_grandchildren_too() {
        let (_folder, mut process) = shell("family", "sleep 600 & echo $!; wait");
        let grandchild = process.wait_for_line(Stream::Out, LIMIT, |_| true).unwrap();
        drop(process);
        let gone = || {
            let stat = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            // A zombie that its new parent has not reaped yet has ended all the same.
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        };
        wait::until("the grandchild's end", LIMIT, gone).unwrap();
    }
}
