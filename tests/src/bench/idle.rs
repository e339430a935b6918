//! Memory of connections that are signed in and silent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::subject::{Subject, USERS, domain, password, user};
use super::wire::{Wire, answer, row, status};
use crate::link::Transport;

/// Devices a user may have.
const DEVICES: usize = 10;

/// Time for buffers and transactions of the sign-ins to go before memory is read; nothing tells when they are gone.
const SETTLE: Duration = Duration::from_secs(40);

/// What the connections of one run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Connections.
    pub connections: usize,
    /// Proportional set size without any, octets.
    pub before: u64,
    /// With all of them, octets.
    pub after: u64,
}

impl Cost {
    /// Octets for one connection.
    #[must_use]
    pub fn each(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / self.connections as f64
    }
}

/// Opens connections over TLS, signs each in, and reads the server's memory.
///
/// # Errors
/// When a client cannot sign in, or more are asked for than users may have devices.
pub fn run(subject: &Subject, connections: usize) -> Result<Cost> {
    ensure!(connections <= USERS * DEVICES, "at most {} connections: {DEVICES} for each user", USERS * DEVICES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // One connection first, so that what the first one makes the server load is not counted.
        let first = signed_in(subject, 0).await?;
        drop(first);
        let before = subject.memory()?;
        let mut open = Vec::with_capacity(connections);
        for number in 0..connections {
            open.push(signed_in(subject, number % USERS).await.with_context(|| format!("connection {number}"))?);
        }
        tokio::time::sleep(SETTLE).await;
        let after = subject.memory()?;
        Ok(Cost { connections: open.len(), before, after })
    })
}

async fn signed_in(subject: &Subject, number: usize) -> Result<Wire> {
    let mut wire = Wire::open(&subject.target(Transport::Tls, 0)?).await?;
    let (name, domain, local) = (user(number), domain(), wire.local());
    let uri = format!("sip:{domain}");
    let mut credentials = String::new();
    let mut buffer = Vec::new();
    for sequence in 1..=2 {
        let request = format!(
            "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/TLS {local};branch=z9hG4bK{}x{sequence}\r\nMax-Forwards: 70\r\n\
             From: <sip:{name}@{domain}>;tag={}\r\nTo: <sip:{name}@{domain}>\r\nCall-ID: idle-{}@{local}\r\n\
             CSeq: {sequence} REGISTER\r\nContact: <sip:{name}@{local};transport=tls>\r\n{credentials}Expires: 600\r\n\
             Content-Length: 0\r\n\r\n",
            local.port(),
            local.port(),
            local.port()
        );
        wire.send(&request).await?;
        wire.receive(&mut buffer).await?;
        if row(&buffer, "www-authenticate:").is_some() {
            credentials = answer(&buffer, &name, &password(number), "REGISTER", &uri)?;
        }
    }
    ensure!(status(&buffer) == 200, "not signed in: {}", String::from_utf8_lossy(&buffer));
    Ok(wire)
}
