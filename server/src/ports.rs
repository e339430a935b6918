//! Who holds a port: for an error that names him.

use std::fs;
use std::net::SocketAddr;

/// A process whose descriptors we may not read: another user's, or in another namespace.
const HIDDEN: &str = "a process that only root can name (ss -lnp)";

/// `program (pid 123)` of the process that holds a local port, where /proc tells; of one that /proc hides, that it does.
pub fn holder(transport: &str, address: SocketAddr) -> Option<String> {
    let protocol = if transport == "udp" { "udp" } else { "tcp" };
    let inode =
        ["", "6"].iter().find_map(|family| inode(&format!("/proc/net/{protocol}{family}"), protocol, address))?;
    Some(process(&inode).unwrap_or_else(|| HIDDEN.to_owned()))
}

/// The process that has a socket open.
fn process(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| holds(*pid, &wanted))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// Inode of a socket that keeps others from that port on this address: one on the address itself or on all of them, or
/// any one where it is all of them that are wanted.
fn inode(table: &str, protocol: &str, address: SocketAddr) -> Option<String> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (host, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let listens = protocol == "udp" || state == "0A";
        let same_port = u16::from_str_radix(port, 16) == Ok(address.port());
        let all = |host: &str| host.bytes().all(|b| b == b'0');
        let same_host = address.ip().is_unspecified() || all(host) || host == hex(address);
        (listens && same_port && same_host).then(|| fields.nth(5).map(str::to_owned)).flatten()
    })
}

/// An address as /proc writes it: 32-bit words in the machine's own order.
fn hex(address: SocketAddr) -> String {
    let words = |octets: &[u8]| -> String {
        let chunks = octets.chunks_exact(4).filter_map(|c| <[u8; 4]>::try_from(c).ok());
        chunks.map(|c| format!("{:08X}", u32::from_ne_bytes(c))).collect()
    };
    match address {
        SocketAddr::V4(v4) => words(&v4.ip().octets()),
        SocketAddr::V6(v6) => words(&v6.ip().octets()),
    }
}

fn holds(pid: u32, wanted: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|d| fs::read_link(d.path()).is_ok_and(|to| to.as_os_str() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_sockets() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let me = format!("(pid {})", std::process::id());
        assert!(holder("udp", udp.local_addr().unwrap()).unwrap().ends_with(&me));
        assert!(holder("tls", tcp.local_addr().unwrap()).unwrap().ends_with(&me));
        let v6 = std::net::TcpListener::bind("[::1]:0");
        if let Ok(v6) = v6 {
            assert!(holder("tcp", v6.local_addr().unwrap()).unwrap().ends_with(&me));
        }
    }

    #[test]
    fn a_wildcard_is_kept_off_by_a_socket_on_any_address() {
        let udp = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let me = format!("(pid {})", std::process::id());
        let wildcard = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert!(holder("udp", wildcard(udp.local_addr().unwrap().port())).unwrap().ends_with(&me));
        assert!(holder("tls", wildcard(tcp.local_addr().unwrap().port())).unwrap().ends_with(&me));
    }

    #[test]
    fn a_socket_that_no_process_shows_has_no_name() {
        // Inode 0 is nobody's.
        assert_eq!(process("0"), None);
    }

    #[test]
    fn nobody_holds_a_port_that_was_given_back() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(holder("tcp", address), None);
    }
}
