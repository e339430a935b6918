//! The few lines of HTTP that questions to the management port need.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Gets a path and gives status and body.
///
/// # Errors
/// When the server cannot be reached or does not speak HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    get_within(address, path, Duration::from_secs(10))
}

/// The same with a limit to each wait.
///
/// # Errors
/// As [`get`].
pub fn get_within(address: SocketAddr, path: &str, limit: Duration) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets)?;
    let text = String::from_utf8_lossy(&octets);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Value of a metric: the sum over its labelled lines that hold `label`.
#[must_use]
pub fn metric(text: &str, name: &str, label: &str) -> f64 {
    let ours =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label);
    text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_label() {
        let text = "# TYPE a counter\na_total{m=\"X\",s=\"200\"} 3\na_total{m=\"X\",s=\"401\"} 2\na_total{m=\"Y\"} 7\nab_total 9\n";
        assert!((metric(text, "a_total", "m=\"X\"") - 5.0).abs() < f64::EPSILON);
    }
}
