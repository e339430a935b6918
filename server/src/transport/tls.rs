//! TLS towards clients: the certificate, its names, and its replacement while the server runs.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use commpool_model::config::TlsFiles;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{0}: {1}; give a readable PEM file")]
    Read(PathBuf, std::io::Error),
    /// A file holds something else.
    #[error("{0}: no PEM {1} in it")]
    Pem(PathBuf, &'static str),
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("{0} and {1} cannot be used together: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
    /// The leaf certificate cannot be read.
    #[error("{0}: the first certificate cannot be read")]
    Leaf(PathBuf),
}

/// A certificate ready for use.
#[derive(Debug)]
pub struct Identity {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// DNS names of the leaf, lower case.
    pub names: Vec<String>,
    /// Seconds since 1970 after which the leaf is not valid.
    pub not_after: i64,
    /// Contents of both files: tells whether they changed.
    contents: (Vec<u8>, Vec<u8>),
}

impl Identity {
    /// Reads certificate and key.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let contents = contents(files)?;
        Self::from_pem(files, contents)
    }

    /// Reads them anew if the files' contents have changed.
    pub fn reload(&self, files: &TlsFiles) -> Result<Option<Self>, TlsError> {
        let contents = contents(files)?;
        if contents == self.contents { Ok(None) } else { Self::from_pem(files, contents).map(Some) }
    }

    fn from_pem(files: &TlsFiles, contents: (Vec<u8>, Vec<u8>)) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&contents.0)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| TlsError::Pem(files.certificate_file.clone(), "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.1)
            .map_err(|_| TlsError::Pem(files.key_file.clone(), "private key"))?;
        let (names, not_after) = leaf(&chain).ok_or_else(|| TlsError::Leaf(files.certificate_file.clone()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = |e| TlsError::Pair(files.certificate_file.clone(), files.key_file.clone(), e);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(pair)?;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), names, not_after, contents })
    }
}

fn contents(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| TlsError::Read(path.clone(), e));
    Ok((read(&files.certificate_file)?, read(&files.key_file)?))
}

fn leaf(chain: &[CertificateDer<'_>]) -> Option<(Vec<String>, i64)> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten().map(|extension| {
        extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
    });
    Some((names.into_iter().flatten().collect(), certificate.validity().not_after.timestamp()))
}

/// The certificate in use, replaced while connections are accepted.
pub type Current = Arc<ArcSwap<Identity>>;
