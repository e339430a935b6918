//! SIPp as a client: scenarios in `sipp/`, run from the command line as its users run it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use commpool_harness::Workspace;
use commpool_harness::process::{Process, Stream};

use crate::client::Identity;
use crate::link::Transport;

/// Longest run of a scenario.
const LIMIT: Duration = Duration::from_secs(60);

/// One run of a scenario.
#[derive(Clone, Debug)]
pub struct Run {
    /// File name in `sipp/` without its ending.
    pub scenario: &'static str,
    /// Server.
    pub server: SocketAddr,
    /// UDP or TCP; Debian's SIPp is built without TLS.
    pub transport: Transport,
    /// Who signs in or sends.
    pub identity: Identity,
    /// User a message goes to; ignored by scenarios without a message.
    pub to: String,
    /// Calls to make, one after the other.
    pub calls: u32,
}

/// A running SIPp. Dropping it kills it.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
    folder: PathBuf,
}

impl Run {
    /// Starts the scenario; its files go to `folder`.
    ///
    /// # Errors
    /// When SIPp is missing or the transport is TLS.
    pub fn start(&self, folder: &Path) -> Result<Sipp> {
        let mode = match self.transport {
            Transport::Udp => "u1",
            Transport::Tcp => "t1",
            Transport::Tls => bail!("Debian's SIPp has no TLS"),
        };
        let scenario = Workspace::find()?.root().join(format!("tests/sipp/{}.xml", self.scenario));
        // What arrives outside the calls of a scenario is a message: answered as one.
        let answer = scenario.with_file_name("answer.xml");
        let calls = self.calls.to_string();
        let folder = folder.join(crate::client::unique(self.scenario));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new("sipp");
        command.current_dir(&folder).arg(self.server.to_string()).arg("-sf").arg(scenario);
        command.arg("-oocsf").arg(answer);
        command.args(["-t", mode, "-i", "127.0.0.1", "-m", &calls, "-l", "1", "-nostdin"]);
        command.args(["-au", &self.identity.user, "-ap", &self.identity.password, "-s", &self.identity.user]);
        // Its digest URI is otherwise made of the server's address, whatever the request says.
        let domain = &self.identity.domain;
        let uri = if self.scenario == "message" { format!("{}@{domain}", self.to) } else { domain.clone() };
        command.args(["-auth_uri", &uri]);
        command.args(["-key", "domain", &self.identity.domain, "-key", "peer", &self.to]);
        command.args(["-trace_err", "-error_file", "errors.log", "-trace_msg", "-message_file", "messages.log"]);
        Ok(Sipp { process: Process::start("sipp", &folder, &mut command)?, folder })
    }
}

impl Sipp {
    /// Waits for the end and demands that every call succeeded.
    ///
    /// # Errors
    /// When one failed, or SIPp does not end.
    pub fn finish(mut self) -> Result<()> {
        let status = self.process.wait(LIMIT)?;
        if status.success() {
            return Ok(());
        }
        let errors = std::fs::read_to_string(self.folder.join("errors.log")).unwrap_or_default();
        let messages = std::fs::read_to_string(self.folder.join("messages.log")).unwrap_or_default();
        bail!("sipp ended with {status}:\n{errors}\n{}\n{messages}", self.process.text(Stream::Err))
    }

    /// Waits until SIPp has received its first message of a method or a status line's text.
    ///
    /// # Errors
    /// When that does not come in time.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let file = self.folder.join("messages.log");
        commpool_harness::wait::until(text, LIMIT, || {
            Ok(std::fs::read_to_string(&file).unwrap_or_default().contains(text).then_some(()))
        })
        .with_context(|| format!("{}", file.display()))
    }
}
