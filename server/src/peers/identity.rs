//! Who front ends are to one another: one certificate, one name, one authority.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Files of the certificate between front ends.
#[derive(Clone, Debug)]
pub struct PeerFiles {
    /// The one name all front ends of the pool go by.
    pub name: String,
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authority of all of them.
    pub authority: PathBuf,
}

/// Why it cannot be used.
#[derive(Debug, Error)]
pub enum PeerIdentityError {
    /// A file cannot be read.
    #[error("{0}: {1}; give a readable PEM file")]
    Read(PathBuf, rustls_pki_types::pem::Error),
    /// Certificate, key and authority do not belong together.
    #[error("certificate, key and authority between front ends cannot be used together: {0}")]
    Unfit(String),
}

/// Both sides of the handshake between front ends.
#[derive(Debug)]
pub struct PeerIdentity {
    name: String,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl PeerIdentity {
    /// Reads the files.
    pub fn load(files: &PeerFiles) -> Result<Self, PeerIdentityError> {
        let read = |path: &PathBuf| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| PeerIdentityError::Read(path.clone(), e))
        };
        let chain = read(&files.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|e| PeerIdentityError::Read(files.key.clone(), e))?;
        let mut roots = RootCertStore::empty();
        for authority in read(&files.authority)? {
            roots.add(authority).map_err(unfit)?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(unfit)?;
        let named = Arc::new(Named { inner: verifier, name: files.name.clone() });
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_client_cert_verifier(named)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unfit)?;
        Ok(Self { name: files.name.clone(), client: Arc::new(client), server: Arc::new(server) })
    }

    /// The one name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For connections from here.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// For connections to here.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

fn unfit(error: impl std::fmt::Display) -> PeerIdentityError {
    PeerIdentityError::Unfit(error.to_string())
}

/// Beside the chain, the client's certificate must carry the pool's name: the same authority may have signed others.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    name: String,
}

impl Named {
    fn carries_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return false };
        let is_ours =
            |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(n) if n.eq_ignore_ascii_case(&self.name));
        extension.value.general_names.iter().any(is_ours)
    }
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.carries_name(end_entity) {
            Ok(verified)
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
