//! A TCP proxy that hinders what passes through it: between front ends and their database, or between front ends.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// Answers come late by this.
    Late(Duration),
    /// None passes, as when packets are dropped; connections are accepted and stay.
    Hold,
    /// Connections are broken and refused.
    Refuse,
}

/// What is to be done with whose connections.
#[derive(Clone, Copy, Debug)]
struct Rule {
    mode: Mode,
    /// Only with those of this process.
    of: Option<u32>,
}

/// A running proxy. Dropping it ends all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rule: Arc<watch::Sender<Rule>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of the system's choice for connections to `to`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn to(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((to.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let rule = Arc::new(watch::channel(Rule { mode: Mode::Pass, of: None }).0);
        let accepting = tokio::spawn(accept(listener, to, Arc::clone(&rule)));
        Ok(Self { address, rule, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hinders all from now on.
    pub fn set(&self, mode: Mode) {
        self.rule.send_replace(Rule { mode, of: None });
    }

    /// Hinders the connections of one process, and lets the others pass.
    pub fn set_for(&self, process: u32, mode: Mode) {
        self.rule.send_replace(Rule { mode, of: Some(process) });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Refuse);
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, rule: Arc<watch::Sender<Rule>>) {
    while let Ok((near, from)) = listener.accept().await {
        let mut rules = Rules { rule: rule.subscribe(), from };
        tokio::spawn(async move {
            if rules.now() == Mode::Refuse {
                return;
            }
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let back = tokio::spawn(carry(far_in, near_out, rules.clone(), true));
            carry(near_in, far_out, rules, false).await;
            back.abort();
        });
    }
}

/// The rule as far as it concerns one connection.
#[derive(Clone)]
struct Rules {
    rule: watch::Receiver<Rule>,
    from: SocketAddr,
}

impl Rules {
    fn now(&mut self) -> Mode {
        let rule = *self.rule.borrow_and_update();
        if rule.of.is_none_or(|process| holds(process, self.from)) { rule.mode } else { Mode::Pass }
    }
}

/// Carries octets one way until an end closes or the rule says that it is over.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: Rules, back: bool) {
    let mut chunk = vec![0; 1 << 16];
    loop {
        let length = tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(length) if length > 0 => length,
                _ => return,
            },
            changed = rules.rule.changed() => {
                if changed.is_err() || rules.now() == Mode::Refuse {
                    return;
                }
                continue;
            }
        };
        match rules.now() {
            Mode::Pass => {}
            Mode::Late(time) if back => tokio::time::sleep(time).await,
            Mode::Late(_) => {}
            Mode::Hold => {
                while rules.now() == Mode::Hold {
                    if rules.rule.changed().await.is_err() {
                        return;
                    }
                }
            }
            Mode::Refuse => return,
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

/// Whether a process holds the socket of this local address.
fn holds(process: u32, local: SocketAddr) -> bool {
    let Some(inode) = inode(local) else { return false };
    let wanted = format!("socket:[{inode}]");
    let sockets = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    sockets.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
}

fn inode(local: SocketAddr) -> Option<String> {
    let SocketAddr::V4(v4) = local else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let mut rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|fields| fields.get(1) == Some(&wanted.as_str())).and_then(|fields| Some((*fields.get(9)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut octet = [0];
        let asked = async {
            stream.write_all(b"x").await?;
            stream.read_exact(&mut octet).await
        };
        tokio::time::timeout(Duration::from_millis(300), asked).await.is_ok_and(|read| read.is_ok())
    }

    #[tokio::test]
    async fn whom_a_rule_names_is_hindered_and_nobody_else() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut stream).await);
        proxy.set_for(1, Mode::Hold);
        assert!(answers(&mut stream).await, "another process");
        proxy.set_for(std::process::id(), Mode::Hold);
        assert!(!answers(&mut stream).await);
        proxy.set(Mode::Pass);
        assert!(answers(&mut stream).await, "what was held passes now");
        proxy.set(Mode::Refuse);
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection is broken");
    }
}
