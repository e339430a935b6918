//! Keys and certificates for what tests and developers run, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::output;

/// Days that certificates are good for; nothing that uses them lives that long.
const DAYS: &str = "365";

/// Who signs certificates: key and certificate lie in a folder, and what it issues lies beside them.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    /// Makes a folder and in it the key `NAME.key` and the certificate `NAME.crt` of an authority.
    ///
    /// # Errors
    /// When the folder cannot be written, or openssl fails.
    pub fn make(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS];
        openssl(folder, &[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate]].concat())?;
        Ok(Self { folder: folder.to_owned(), name: name.to_owned() })
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// Makes the key `NAME.key` and the certificate `NAME.crt`, good for `usages` (such as `serverAuth`), with
    /// alternative names such as `DNS:localhost,IP:127.0.0.1`.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn issue(&self, name: &str, subject: &str, usages: &str, names: Option<&str>) -> Result<()> {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject];
        openssl(&self.folder, &[&new[..], &["-keyout", &key, "-out", &request]].concat())?;
        let names = names.map_or_else(String::new, |names| format!("subjectAltName={names}\n"));
        let extensions = format!("{name}.ext");
        fs::write(self.folder.join(&extensions), format!("extendedKeyUsage={usages}\n{names}"))?;
        let (ca, ca_key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", DAYS];
        openssl(&self.folder, &[&sign[..], &["-extfile", &extensions, "-out", &certificate]].concat())
            .with_context(|| format!("no certificate for {name}"))
    }
}

/// Runs openssl in a folder.
///
/// # Errors
/// When it fails.
pub fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    output(Command::new("openssl").current_dir(folder).args(arguments)).map(drop)
}
