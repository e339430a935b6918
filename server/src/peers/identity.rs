//! Who front ends are to one another: one certificate, one name, one authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

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
    Read(PathBuf, std::io::Error),
    /// A file holds something else.
    #[error("{0}: {1}; give a PEM file")]
    Pem(PathBuf, rustls_pki_types::pem::Error),
    /// Certificate, key and authority do not belong together.
    #[error("certificate, key and authority between front ends cannot be used together: {0}")]
    Unfit(String),
}

/// Both sides of the handshake between front ends.
#[derive(Debug)]
pub struct PeerIdentity {
    files: PeerFiles,
    /// Of the files' contents: tells whether they changed.
    digest: [u8; 32],
    leaf: CertificateDer<'static>,
    not_after: i64,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The identity in use, replaced while links come and go.
pub type CurrentPeer = Arc<ArcSwap<PeerIdentity>>;

impl PeerIdentity {
    /// Reads the files.
    pub fn load(files: &PeerFiles) -> Result<Self, PeerIdentityError> {
        Ok(Self::from_pem(files, &Contents::read(files)?)?.0)
    }

    /// Reads them anew if the files' contents have changed. One that no other front end would let in at `now` is refused:
    /// its leaf must be signed by its own authority, be valid and carry the pool's name.
    pub fn reload(&self, now: UnixTime) -> Result<Option<Self>, PeerIdentityError> {
        let contents = Contents::read(&self.files)?;
        if contents.digest() == self.digest {
            return Ok(None);
        }
        let (read, verifier, chain) = Self::from_pem(&self.files, &contents)?;
        verifier.verify_client_cert(&read.leaf, chain.get(1..).unwrap_or_default(), now).map_err(unfit)?;
        Ok(Some(read))
    }

    fn from_pem(files: &PeerFiles, contents: &Contents) -> Result<Read, PeerIdentityError> {
        let chain = certificates(&files.certificate, &contents.certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| PeerIdentityError::Pem(files.key.clone(), e))?;
        let leaf = chain.first().cloned().ok_or_else(|| unfit("there is no certificate"))?;
        let not_after = X509Certificate::from_der(&leaf).map_err(unfit)?.1.validity().not_after.timestamp();
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authority, &contents.authority)? {
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
            .with_client_cert_verifier(Arc::clone(&named) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key)
            .map_err(unfit)?;
        let (client, server) = (Arc::new(client), Arc::new(server));
        let digest = contents.digest();
        Ok((Self { files: files.clone(), digest, leaf, not_after, client, server }, named, chain))
    }

    /// The one name.
    pub fn name(&self) -> &str {
        &self.files.name
    }

    /// The certificate that the other side is shown.
    pub const fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Seconds since 1970 after which it is not valid.
    pub const fn not_after(&self) -> i64 {
        self.not_after
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

/// An identity, who judges others by it, and its chain.
type Read = (PeerIdentity, Arc<Named>, Vec<CertificateDer<'static>>);

struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authority: Vec<u8>,
}

impl Contents {
    fn read(files: &PeerFiles) -> Result<Self, PeerIdentityError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| PeerIdentityError::Read(path.clone(), e));
        let (certificate, authority) = (read(&files.certificate)?, read(&files.authority)?);
        Ok(Self { certificate, key: Zeroizing::new(read(&files.key)?), authority })
    }

    fn digest(&self) -> [u8; 32] {
        let each = [&self.certificate, &*self.key, &self.authority].map(Sha256::digest);
        Sha256::digest(each.concat()).into()
    }
}

fn certificates(path: &Path, contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, PeerIdentityError> {
    CertificateDer::pem_slice_iter(contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| PeerIdentityError::Pem(path.to_owned(), e))
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
