//! One front end of a pool as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use commpool_harness::process::{Process, Stream};
use commpool_harness::wait;
use rustix::process::Signal;
use serde::Deserialize;

use crate::http;

/// How long a front end may take until it is ready; debug builds on a busy machine are slow.
const START: Duration = Duration::from_secs(60);

/// A probe of the VIP takes this long at most.
const PROBE: Duration = Duration::from_millis(500);

/// A front end as printed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Files {
    pub(super) tcp: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) management: SocketAddr,
    pub(super) config: PathBuf,
}

/// One front end, running or not.
#[derive(Debug)]
pub struct FrontEnd {
    pub(super) name: String,
    pub(super) files: Files,
    pub(super) program: PathBuf,
    pub(super) log: String,
    pub(super) folder: PathBuf,
    pub(super) process: Option<Process>,
    pub(super) logs: Vec<PathBuf>,
}

/// What a probe of the VIP finds.
pub(super) fn says_ready(management: SocketAddr) -> bool {
    http::get_within(management, "/readyz", PROBE).is_ok_and(|(status, _)| status == 200)
}

impl FrontEnd {
    /// Replaces a text of its configuration; it takes effect at its next start.
    ///
    /// # Errors
    /// When the text is not there.
    pub fn edit(&self, text: &str, by: &str) -> Result<()> {
        let before = std::fs::read_to_string(&self.files.config)?;
        ensure!(before.contains(text), "no {text:?} in\n{before}");
        Ok(std::fs::write(&self.files.config, before.replace(text, by))?)
    }

    /// Address on which it listens for other front ends.
    #[must_use]
    pub fn peers(&self) -> SocketAddr {
        SocketAddr::new(self.files.management.ip(), self.files.management.port() + 1)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.until_ready()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it runs already, or the program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let name = format!("{}-{}", self.name, self.logs.len());
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&self.files.config).env("COMMPOOL_LOG", &self.log);
        self.logs.push(self.folder.join(format!("{name}.err")));
        self.process = Some(Process::start(&name, &self.folder, &mut command)?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not in time.
    pub fn until_ready(&mut self) -> Result<()> {
        let what = format!("{} being ready", self.name);
        let ready = wait::until(&what, START, || {
            if let Some(status) = self.running()?.try_status()? {
                bail!("it ended: {status}");
            }
            Ok(self.is_ready().then_some(()))
        });
        ready.with_context(|| self.log())
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.name))
    }

    /// Whether it says that new clients are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.process.is_some() && says_ready(self.files.management)
    }

    /// Status and text of a path of its management port.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.files.management, path)
    }

    /// Value of one of its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        Ok(http::metric(&self.ask("/metrics")?.1, name, label))
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().with_context(|| format!("{} does not run", self.name))?.pid())
    }

    /// Whether its process lives.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.running()?.try_status()?.is_none())
    }

    /// Kills it as a crash does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().with_context(|| format!("{} does not run", self.name))?;
        process.signal(Signal::KILL)?;
        process.wait(Duration::from_secs(5)).map(drop)
    }

    /// Lets it stand still: its connections stay, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn tell_to_end(&mut self) -> Result<()> {
        if self.process.is_some() { self.running()?.signal(Signal::TERM) } else { Ok(()) }
    }

    /// Waits for the end it was told to come to, demands a clean one, and tells how long that took from now.
    ///
    /// # Errors
    /// When it does not end in time, or not cleanly.
    pub fn until_ended(&mut self, patience: Duration) -> Result<Duration> {
        let start = Instant::now();
        let Some(mut process) = self.process.take() else { return Ok(Duration::ZERO) };
        let status = process.wait(patience)?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.log());
        Ok(start.elapsed())
    }

    /// What it logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        let running = self.process.as_ref().map(|process| process.text(Stream::Err));
        running.or_else(|| std::fs::read_to_string(self.logs.last()?).ok()).unwrap_or_default()
    }

    pub(super) fn all_logs(&self) -> String {
        self.logs.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect()
    }
}
