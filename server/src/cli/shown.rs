//! What a run tells about itself once it serves: for people, and as a line of JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::laptop::{Plan, Ready, at};
use super::several::FrontEnd;

/// A run that serves.
pub(super) struct Shown<'a> {
    /// What is served.
    pub(super) plan: &'a Plan,
    /// Certificate that clients trust.
    pub(super) ca: &'a Path,
    /// Configuration for commands beside it.
    pub(super) config: &'a Path,
    /// Its users.
    pub(super) users: &'a [Ready],
    /// Front ends of a pool with their process ids; none: Standard Edition.
    pub(super) front_ends: &'a [(FrontEnd, u32)],
}

impl Shown<'_> {
    /// One line for programs.
    pub(super) fn json(&self) -> String {
        let first = self.plan.first();
        let mut shown = json!({
            "domain": self.plan.domain,
            "addresses": {
                "udp": first.to_string(), "tcp": first.to_string(), "tls": at(first, 1).to_string(),
                "management": self.management(),
            },
            "ca": self.ca,
            "config": self.config,
            "users": self.users.iter().map(user_as_json).collect::<Vec<_>>(),
        });
        if !self.front_ends.is_empty() {
            shown["frontEnds"] = self.front_ends.iter().map(|(one, pid)| as_json(one, *pid)).collect();
        }
        shown.to_string()
    }

    fn management(&self) -> String {
        self.front_ends.first().map_or_else(|| at(self.plan.first(), 2), |(one, _)| one.management).to_string()
    }

    /// For people.
    pub(super) fn print(&self) {
        let (plan, first) = (self.plan, self.plan.first());
        let edition = match self.front_ends.len() {
            0 => "Standard Edition".to_owned(),
            number => format!("Enterprise Edition, front ends: {number}"),
        };
        println!("Commpool serves {} ({edition}, data in {})\n", plan.domain, plan.folder.display());
        for address in &plan.addresses {
            println!("  udp, tcp  {address}\n  tls       {}", at(*address, 1));
        }
        match self.front_ends {
            [] => println!("  health    http://{}/readyz", reached_here(at(first, 2))),
            front_ends => front_ends.iter().for_each(|(one, pid)| print_front_end(one, *pid)),
        }
        println!("  CA        {}\n", self.ca.display());
        for user in self.users {
            println!("  {}", user_line(user));
        }
        if plan.domain != "localhost" {
            let (whose, address) = match first.ip() {
                all if all.is_unspecified() => ("Clients", "ADDRESS-OF-THIS-MACHINE".to_owned()),
                ip => ("Clients on this machine", ip.to_string()),
            };
            println!("\n{whose} find the domain by this line in /etc/hosts:\n  {address} {}", plan.domain);
        }
        self.print_linphone();
        println!("\nMore users: {} user add NAME --config {}", quoted(&this_program()), quoted(self.config));
        println!("Ctrl-C ends it.");
    }

    fn print_linphone(&self) {
        let (domain, port) = (&self.plan.domain, self.plan.first().port());
        let user = self.users.first().map_or("alice", |u| u.address.user());
        println!("\nLinphone, for each user (Settings, SIP Accounts, Add a third-party account):");
        println!("  Username {user}   SIP domain {domain}   Password as above   Transport TLS");
        println!("  SIP server address (Account, advanced): <sip:{domain}:{};transport=tls>", port + 1);
        println!("  so that it trusts the CA: quit it, and under [sip] in its linphonerc put");
        println!("  root_ca={}", self.ca.display());
        println!("  or, without the CA: Transport TCP and <sip:{domain}:{port};transport=tcp>");
    }
}

/// `password` only where it is known, `disabled` only where it is true.
fn user_as_json(user: &Ready) -> Value {
    let mut shown = json!({ "user": user.address.user() });
    if let Some(password) = &user.password {
        shown["password"] = json!(password.as_str());
    }
    if user.disabled {
        shown["disabled"] = json!(true);
    }
    shown
}

fn user_line(user: &Ready) -> String {
    let password = user
        .password
        .as_ref()
        .map_or_else(|| "password changed; not shown".to_owned(), |password| format!("password {}", password.as_str()));
    let disabled = if user.disabled { "  (disabled)" } else { "" };
    format!("user {}  {password}{disabled}", user.address.user())
}

/// This program as it is typed into a shell: it is seldom in the search path where `run` is of use.
fn this_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("commpool-server"))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// An address as a client on this machine can use it: one that stands for all of them is no place to go.
fn reached_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn as_json(one: &FrontEnd, pid: u32) -> Value {
    json!({
        "udp": one.own.to_string(), "tcp": one.own.to_string(), "tls": at(one.own, 1).to_string(),
        "management": one.management.to_string(), "config": one.config, "pid": pid,
    })
}

fn print_front_end(one: &FrontEnd, pid: u32) {
    println!(
        "  front end {}: pid {pid}, alone at {} and {} (tls), health http://{}/readyz",
        one.number,
        one.own,
        at(one.own, 1),
        one.management
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/opt/commpool-0.1/bin")), "/opt/commpool-0.1/bin");
        assert_eq!(quoted(Path::new("/home/me/My Files")), "'/home/me/My Files'");
        assert_eq!(quoted(Path::new("/it's")), "'/it'\\''s'");
    }

    #[test]
    fn a_wildcard_is_shown_as_loopback() {
        let shown = |address: &str| reached_here(address.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:5062"), "127.0.0.1:5062");
        assert_eq!(shown("[::]:5062"), "[::1]:5062");
        assert_eq!(shown("192.0.2.1:5062"), "192.0.2.1:5062");
    }
}
