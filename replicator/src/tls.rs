//! TLS towards the directory: whom we trust, and in words why not.

use std::path::Path;
use std::sync::Arc;

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::fault::{Fault, Kind};

/// Longest file of CAs, octets.
const MAX_CA: u64 = 1 << 20;

/// Trust in the CAs of this file and in nobody else.
///
/// # Errors
/// The file cannot be read or holds no certificate that can be used.
pub fn config(ca_file: &Path) -> Result<Arc<ClientConfig>, Fault> {
    let bad = |why: String| Fault::new(Kind::Configuration, format!("caFile {}: {why}", ca_file.display()));
    let pem = crate::files::read(ca_file, MAX_CA).map_err(|error| bad(format!("{error}; give a readable PEM file")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(format!("is no PEM file of certificates: {error}")))?;
        roots.add(certificate).map_err(|error| bad(format!("has a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(bad("has no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Kind::Internal, error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Why a handshake failed, and what mends it.
pub fn explain(error: &std::io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = inner else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it hangs up when TLS begins: is this port one for TLS?".to_owned(),
            _ => format!("TLS does not come about: {}", crate::text::shown(&error.to_string(), 200)),
        };
    };
    match problem {
        // A bad signature: of a CA that has the same name and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not of a CA in caFile".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for `{host}`: use a name that is in it, or have one made for this name")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: look at the clocks".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not made for servers (extended key usage)".to_owned()
        }
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        other => format!("its certificate cannot be used: {}", crate::text::shown(&other.to_string(), 200)),
    }
}

/// Whom a certificate is for and how long, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: i64,
}

impl Certificate {
    /// Reads a certificate; `None`: it cannot be read.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten().map(|extension| {
            let names = extension.value.general_names.iter();
            names.filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(crate::text::shown(name, 253)),
                GeneralName::IPAddress(octets) => address(octets),
                _ => None,
            })
        });
        let names = names.into_iter().flatten().collect();
        Some(Self { names, not_after: certificate.validity().not_after.timestamp() })
    }
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::IpAddr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(octets).ok().map(|octets| std::net::IpAddr::from(octets).to_string())
}
