//! Pushing archives to a registry, by skopeo.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output, which};

/// Pushes the only image of an archive to `registry`/`name`, where `name` is its repository and tag.
///
/// # Errors
/// Without skopeo, or when the registry refuses.
pub fn push(archive: &Path, registry: &str, name: &str) -> Result<String> {
    if which("skopeo").is_none() {
        bail!("images are pushed by skopeo, and it is not installed (Debian package skopeo)");
    }
    let reference = format!("{}/{name}", registry.trim_end_matches('/'));
    let mut copy = Command::new("skopeo");
    // Without a policy file skopeo refuses everything; what we push is what we built.
    // With its digests kept, the image in the registry is the very one that was built and tried.
    copy.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"]);
    if is_loopback(registry) {
        copy.arg("--dest-tls-verify=false");
    }
    copy.arg(format!("oci-archive:{}", archive.display())).arg(format!("docker://{reference}"));
    output(&mut copy).with_context(|| format!("{reference} could not be pushed"))?;
    Ok(reference)
}

/// Whether a registry is on this machine: no certificate is asked of it.
#[must_use]
pub fn is_loopback(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_world() {
        for registry in ["localhost:5000", "127.0.0.1:5000/team", "[::1]:5000", "localhost"] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["registry.example.com", "127.example.com:5000/team", "10.0.0.1:5000", ""] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }
}
