//! How programs get at a directory, and the configurations by which they do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Kind, Place};

/// How a program gets at a directory.
#[derive(Clone, Debug)]
pub struct Access {
    /// Which directory.
    pub kind: Kind,
    /// `ldaps://ADDRESS:PORT`.
    pub ldaps: String,
    /// `ldap://ADDRESS:PORT`, for StartTLS.
    pub ldap: String,
    /// File with the name to bind as.
    pub bind_dn_file: PathBuf,
    /// File with the name of somebody who may bind and read nothing of the people.
    pub blind_dn_file: PathBuf,
    /// File with the password of both.
    pub password_file: PathBuf,
    /// File with the certificate of the authority.
    pub ca_file: PathBuf,
}

impl Access {
    pub(super) fn new(kind: Kind, place: &Place, folder: &Path) -> Self {
        let (ldap, ldaps) = kind.ports();
        Self {
            kind,
            ldaps: format!("ldaps://{}:{ldaps}", place.address()),
            ldap: format!("ldap://{}:{ldap}", place.address()),
            bind_dn_file: folder.join("bind-dn"),
            blind_dn_file: folder.join("blind-dn"),
            password_file: folder.join("password"),
            ca_file: folder.join("tls/ca.crt"),
        }
    }

    /// The name to bind as.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn bind_dn(&self) -> Result<String> {
        fs::read_to_string(&self.bind_dn_file).with_context(|| format!("cannot read {}", self.bind_dn_file.display()))
    }

    /// The section `directory` of a pool's configuration that reads this directory.
    #[must_use]
    pub fn yaml(&self) -> String {
        format!(
            "directory:\n  ldap:\n    urls: [\"{}\"]\n    baseDN: \"{}\"\n    bindDNFile: {}\n    passwordFile: {}\n    \
             caFile: {}\n{}",
            self.ldaps,
            self.kind.base(),
            self.bind_dn_file.display(),
            self.password_file.display(),
            self.ca_file.display(),
            self.kind.mapping()
        )
    }

    /// The section `directorySync` of a pool on Kubernetes, in its `spec`, with name, password and CA in a Secret of the
    /// pool's namespace.
    #[must_use]
    pub fn pool_yaml(&self, secret: &str) -> String {
        format!(
            "directorySync:\n  schedule: \"* * * * *\"\n  ldap: {{urls: [\"{}\"], baseDN: \"{}\", bindSecret: {secret}, \
             caSecret: {secret}}}\n{}",
            self.ldaps,
            self.kind.base(),
            self.kind.mapping()
        )
    }
}
