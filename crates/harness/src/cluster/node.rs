//! The one node of a cluster: a process that holds its namespaces, and the programs started inside them.
//!
//! The holder is the first process of a process namespace, with a mount namespace in which the folders that programs of
//! a node insist on are the cluster's own. So clusters do not meet, and killing the holder ends everything of one:
//! programs, pods, mounts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{TAIL, tail};
use crate::netns::Namespace;
use crate::process::start_time;
use crate::wait;

/// First process of the node: mounts, tells that it is done, then reaps orphans for ever.
const HOLDER: &str = r#"
set -e
mount --make-rshared /
mount -t tmpfs -o mode=0755 tmpfs /run
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
: >"$2"
while :; do sleep 86400 & wait $!; done
"#;

/// Folders whose place is fixed in the programs, and what lies there in the node's view (below the state folder).
const OWN_FOLDERS: &[(&str, &str)] =
    &[("kubelet", "/var/lib/kubelet"), ("cni/state", "/var/lib/cni"), ("log/containers", "/var/log/containers")];

/// Time that any step of a start may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The holder of a node's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Process that waits for the first one, and kills it if it goes.
    outer: u32,
    /// First process inside, by its id outside.
    inner: u32,
    /// When `outer` was started, in ticks since boot: tells it from a later process of the same id.
    started: u64,
}

impl Holder {
    /// Starts the holder in a network namespace; waits until its mounts are done.
    pub(super) fn start(state: &Path, network: &Namespace) -> Result<Self> {
        let done = state.join("mounted");
        let mut command = Command::new("setsid");
        command.arg("nsenter").arg(format!("--net={}", network.path().display())).args(["--", "unshare", "--mount"]);
        command.args(["--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", HOLDER, "commpool-node"]);
        for (own, place) in OWN_FOLDERS {
            fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
            command.arg(state.join(own)).arg(place);
        }
        command.arg("--").arg(&done);
        let log = state.join("log/node.log");
        let mut child = spawn(&mut command, &log)?;
        let outer = child.id();
        wait::until("the node's mounts", PATIENCE, || match child.try_wait()? {
            Some(status) => bail!("the node did not start: {status}\n{}", read(&log)),
            None => Ok(done.exists().then_some(())),
        })?;
        let started = start_time(outer).context("the node's holder went away")?;
        let inner = only_child(outer).context("the node's first process is not found")?;
        let holder = Self { outer, inner, started };
        fs::write(file(state), format!("{outer} {inner} {started}\n"))?;
        Ok(holder)
    }

    /// The holder of a state folder, if it lives.
    pub(super) fn find(state: &Path) -> Option<Self> {
        let text = fs::read_to_string(file(state)).ok()?;
        let mut numbers = text.split_whitespace();
        let holder = Self {
            outer: numbers.next()?.parse().ok()?,
            inner: numbers.next()?.parse().ok()?,
            started: numbers.next()?.parse().ok()?,
        };
        (start_time(holder.outer) == Some(holder.started)).then_some(holder)
    }

    /// A command that runs `program` inside the node: its mounts, its network, its processes.
    pub(super) fn command(&self, program: &Path) -> Command {
        self.enter(&["--mount", "--net", "--pid"], program)
    }

    /// A command that runs `program` beside the node: it ends with it, and sees the machine's files as they are.
    pub(super) fn command_beside(&self, program: &Path) -> Command {
        self.enter(&["--pid"], program)
    }

    /// A command that runs `program` in some of the holder's namespaces, with its own folder first in `PATH`.
    fn enter(&self, namespaces: &[&str], program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.inner.to_string()]).args(namespaces).arg("--").arg(program);
        let folder = program.parent().unwrap_or(Path::new("/")).display();
        command.env("PATH", format!("{folder}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"));
        command
    }

    /// Ends everything inside and waits for it.
    pub(super) fn kill(&self) -> Result<()> {
        for pid in [self.inner, self.outer] {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone already is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        // The first process of a process namespace ends only when all others in it have.
        wait::until("the end of the node", PATIENCE, || Ok(ended(self.inner).then_some(())))
    }
}

/// A program of the node that was started by this process.
pub(super) struct Component {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts a program that [`Holder::command`] or [`Holder::command_beside`] gave; it outlives us.
    pub(super) fn start(state: &Path, name: &'static str, inside: &Command) -> Result<Self> {
        let log = state.join(format!("log/{name}.log"));
        let mut command = Command::new("setsid");
        command.arg(inside.get_program()).args(inside.get_args());
        for (variable, value) in inside.get_envs() {
            command.env(variable, value.unwrap_or_default());
        }
        Ok(Self { name, child: spawn(&mut command, &log)?, log })
    }

    /// Fails when the program has ended, with its last words.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status} ({})\n{}", self.name, self.log.display(), read(&self.log)),
        }
    }
}

/// Starts a program that has nothing to do with our terminal.
fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().with_context(|| format!("`{}` cannot be started", crate::command::shown(command)))
}

/// File that tells the holder.
fn file(state: &Path) -> PathBuf {
    state.join("holder")
}

/// End of a log.
fn read(log: &Path) -> String {
    tail(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()), TAIL)
}

/// Whether a process has ended.
fn ended(pid: u32) -> bool {
    start_time(pid).is_none()
}

/// The child of a process that has one.
fn only_child(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
