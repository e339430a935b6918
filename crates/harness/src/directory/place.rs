//! Where a server stands: an address of this machine or of a network namespace.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{output, which};
use crate::netns::Namespace;

/// An address, and the network it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    address: Ipv4Addr,
    namespace: Option<String>,
}

impl Place {
    /// An address of this machine.
    #[must_use]
    pub const fn here(address: Ipv4Addr) -> Self {
        Self { address, namespace: None }
    }

    /// An address in a network namespace.
    #[must_use]
    pub fn within(namespace: &Namespace, address: Ipv4Addr) -> Self {
        Self { address, namespace: Some(namespace.name().to_owned()) }
    }

    /// As text, for [`Self::read`].
    pub(super) fn text(&self) -> String {
        format!("{} {}\n", self.address, self.namespace.as_deref().unwrap_or_default())
    }

    /// From what [`Self::text`] gave.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (address, namespace) = text.trim_end_matches('\n').split_once(' ')?;
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Some(Self { address: address.parse().ok()?, namespace })
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs `program` in this network. The programs of servers lie where an ordinary `PATH` does not lead.
    ///
    /// # Errors
    /// When the program or the namespace is not there.
    pub fn command(&self, program: &str) -> Result<Command> {
        let Some(path) = which(program) else {
            bail!("there is no program {program}; the packages: {}", super::PACKAGES.join(" "));
        };
        match &self.namespace {
            None => Ok(Command::new(path)),
            Some(name) => Ok(Namespace::attach(name)?.command(&path.display().to_string())),
        }
    }

    /// Checks that nobody listens on these TCP ports of the address.
    ///
    /// # Errors
    /// When somebody does; the message names him.
    pub fn check_free(&self, ports: &[u16]) -> Result<()> {
        let listeners = output(self.command("ss")?.args(["-H", "-l", "-t", "-n", "-p"]))?;
        for port in ports {
            if let Some(holder) = holder(&listeners, self.address, *port) {
                bail!(
                    "{}:{port} is taken by {holder}; end it, or choose another address of this machine",
                    self.address
                );
            }
        }
        Ok(())
    }
}

/// Who listens on a port of an address, in what `ss` printed: the program and its process, where it may be known.
fn holder(listeners: &str, address: Ipv4Addr, port: u16) -> Option<String> {
    let here = [format!("{address}:{port}"), format!("0.0.0.0:{port}"), format!("*:{port}")];
    let line = listeners.lines().find(|line| {
        let local = line.split_whitespace().nth(3).unwrap_or_default();
        here.iter().any(|known| known == local)
    })?;
    let between = |text: &'_ str, start: &str, end: char| -> Option<String> {
        Some(text.split_once(start)?.1.split(end).next()?.to_owned())
    };
    let (name, pid) = (between(line, "((\"", '"'), between(line, "pid=", ','));
    Some(match (name, pid) {
        (Some(name), Some(pid)) => format!("{name} (process {pid})"),
        _ => "another program".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENERS: &str = "\
LISTEN 0      10        127.0.0.77:636       0.0.0.0:*    users:((\"samba\",pid=26471,fd=22))
LISTEN 0      128          0.0.0.0:22        0.0.0.0:*
LISTEN 0      128                *:389             *:*    users:((\"slapd\",pid=7,fd=8),(\"slapd\",pid=9,fd=8))
";

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for namespace in [None, Some("cp1.x".to_owned())] {
            let place = Place { address: Ipv4Addr::LOCALHOST, namespace };
            assert_eq!(Place::read(&place.text()), Some(place));
        }
        assert_eq!(Place::read("nowhere"), None);
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let lab = Ipv4Addr::new(127, 0, 0, 77);
        assert_eq!(holder(LISTENERS, lab, 636).as_deref(), Some("samba (process 26471)"));
        assert_eq!(holder(LISTENERS, lab, 389).as_deref(), Some("slapd (process 7)"));
        assert_eq!(holder(LISTENERS, lab, 22).as_deref(), Some("another program"));
        assert_eq!(holder(LISTENERS, lab, 36), None);
        assert_eq!(holder(LISTENERS, Ipv4Addr::LOCALHOST, 636), None);
    }
}
