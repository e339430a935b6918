//! The front ends of a pool as processes of one command: started, started again, ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::several::FrontEnd;
use super::{Done, EXIT_OTHER, Failure};

/// Between two questions whether one is ready.
const ASK: Duration = Duration::from_millis(50);
/// One that ended by itself is started again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// One that was told to end is killed after this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs front ends until `stop`; `serving` is told of them and their process ids once all are ready. One that ends is
/// started again; one that ends before it was ready ends them all.
pub(super) async fn run(
    front_ends: Vec<FrontEnd>,
    stop: CancellationToken,
    serving: impl FnOnce(&[(FrontEnd, u32)]),
) -> Done {
    let program = std::env::current_exe().map_err(|e| Failure::new(EXIT_OTHER, format!("no path of ours: {e}")))?;
    let (ready_in, mut ready) = mpsc::channel(front_ends.len().max(1));
    let (mut keepers, wanted) = (JoinSet::new(), front_ends.len());
    for one in front_ends {
        let keeper = Keeper { one, program: program.clone(), stop: stop.clone() };
        keepers.spawn(keeper.run(ready_in.clone()));
    }
    let (mut running, mut serving, mut outcome) = (Vec::new(), Some(serving), Ok(()));
    loop {
        tokio::select! {
            Some(one) = ready.recv() => {
                running.push(one);
                if running.len() == wanted && let Some(serving) = serving.take() {
                    running.sort_by_key(|(one, _)| one.number);
                    serving(&running);
                }
            }
            ended = keepers.join_next() => {
                let failure = match ended {
                    None => return outcome,
                    Some(Ok(Ok(()))) => continue,
                    Some(Ok(Err(failure))) => failure,
                    Some(Err(error)) => Failure::new(EXIT_OTHER, error.to_string()),
                };
                stop.cancel();
                outcome = outcome.and(Err(failure));
            }
        }
    }
}

/// Keeps one front end running.
struct Keeper {
    one: FrontEnd,
    program: PathBuf,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self, ready: mpsc::Sender<(FrontEnd, u32)>) -> Done {
        let mut child = self.start()?;
        tokio::select! {
            status = child.wait() => return self.too_early(status),
            () = until_ready(self.one.management) => {}
            () = self.stop.cancelled() => return end(child).await,
        }
        let _ = ready.send((self.one.clone(), child.id().unwrap_or_default())).await;
        loop {
            tokio::select! {
                status = child.wait() => self.tell(&status),
                () = self.stop.cancelled() => return end(child).await,
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            child = self.start()?;
        }
    }

    fn start(&self) -> Result<Child, Failure> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&self.one.config).stdin(Stdio::null()).stdout(Stdio::null());
        let started = command.stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = started.map_err(|e| Failure::new(EXIT_OTHER, format!("{}: {e}", self.program.display())))?;
        if let Some(log) = child.stderr.take() {
            let (number, mut lines) = (self.one.number, BufReader::new(log).lines());
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    eprintln!("[{number}] {line}");
                }
            });
        }
        Ok(child)
    }

    /// It has said why.
    fn too_early(&self, status: std::io::Result<ExitStatus>) -> Done {
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let code = status.as_ref().ok().and_then(ExitStatus::code).and_then(|code| u8::try_from(code).ok());
        let text = format!("front end {} ended before it was ready: {}", self.one.number, shown(&status));
        Err(Failure::new(code.unwrap_or(EXIT_OTHER), text))
    }

    fn tell(&self, status: &std::io::Result<ExitStatus>) {
        if !self.stop.is_cancelled() {
            eprintln!("front end {} ended ({}) and is started again", self.one.number, shown(status));
        }
    }
}

fn shown(status: &std::io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

/// Asks one to end, and sees to it.
async fn end(mut child: Child) -> Done {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
        // It may have ended by itself meanwhile.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(PATIENCE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    Ok(())
}

async fn until_ready(management: SocketAddr) {
    while !is_ready(management).await.unwrap_or(false) {
        sleep(ASK).await;
    }
}

async fn is_ready(management: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(management).await?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {management}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}
