//! Certificates: a pool's own authority, its leaf, and the reading of given ones. Time and randomness are arguments.

pub mod authority;
pub mod leaf;

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{KeyPair, SerialNumber};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// Seconds since 1970.
pub type Seconds = i64;
/// Seconds of a day.
pub const DAY: Seconds = 86_400;
/// Certificates begin this long before they are made, for clients whose clock is late.
const CLOCK_SKEW: Seconds = 3_600;

/// Why a certificate or key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("failed to make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system gave no randomness.
    #[error("failed to get random octets: {0}")]
    Random(String),
    /// A time outside of what certificates can carry.
    #[error("failed to make a certificate: no date for {0} seconds since 1970")]
    Date(Seconds),
    /// What was made cannot be read; a fault of this program.
    #[error("failed to read a certificate of our own: {0}")]
    Own(#[from] PairError),
}

/// Where randomness comes from.
pub trait Entropy {
    /// Fills `octets`.
    ///
    /// # Errors
    /// If the source has none to give.
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), PkiError>;

    /// A new key pair for ECDSA on P-256.
    ///
    /// # Errors
    /// If the source has no randomness to give.
    fn key_pair(&mut self) -> Result<KeyPair, PkiError>;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), PkiError> {
        getrandom::fill(octets).map_err(|error| PkiError::Random(error.to_string()))
    }

    fn key_pair(&mut self) -> Result<KeyPair, PkiError> {
        Ok(KeyPair::generate()?)
    }
}

/// A certificate (chain) and its private key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificates, leaf first.
    pub certificate: String,
    /// Private key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// First second of its life.
    pub not_before: Seconds,
    /// Last second of its life.
    pub not_after: Seconds,
    /// DNS names it is for.
    pub names: BTreeSet<String>,
    /// Addresses it is for.
    pub addresses: BTreeSet<IpAddr>,
    /// Identifier of its key.
    pub key_id: Option<Vec<u8>>,
    /// Identifier of its issuer's key.
    pub issuer_key_id: Option<Vec<u8>>,
}

impl Facts {
    /// Whether the certificate is valid at `now`.
    pub fn is_current(&self, now: Seconds) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The second at which `numerator/denominator` of its life are over.
    pub fn part_of_life(&self, numerator: i64, denominator: i64) -> Seconds {
        self.not_before + (self.not_after - self.not_before) / denominator * numerator
    }

    /// Whether the certificate is for `host`, a name or an address; `*.example.com` is for one label before it.
    pub fn is_for(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host) || wildcard.as_ref() == Some(name))
    }
}

/// Why a pair of certificate and key is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The key cannot be read.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// The key is another certificate's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// Reads a certificate chain and its key, and sees that they belong together.
///
/// # Errors
/// Which of the two is wrong, and why.
pub fn read_pair(certificate: &[u8], key: &[u8]) -> Result<Facts, PairError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| PairError::Certificate(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| PairError::Certificate("no PEM block CERTIFICATE".into()))?;
    let facts = facts(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PairError::Key(error.to_string()))?;
    let key = any_supported_type(&key).map_err(|error| PairError::Key(error.to_string()))?;
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) => Ok(facts),
        Err(rustls::Error::InconsistentKeys(_)) => Err(PairError::Mismatch),
        Err(error) => Err(PairError::Certificate(error.to_string())),
    }
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn read_certificate(pem: &str) -> Result<Facts, PairError> {
    let der =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| PairError::Certificate(error.to_string()))?;
    facts(&der)
}

fn facts(der: &CertificateDer<'_>) -> Result<Facts, PairError> {
    let unreadable = |error: String| PairError::Certificate(error);
    let (_, parsed) =
        x509_parser::certificate::X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let mut facts = Facts {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        names: BTreeSet::new(),
        addresses: BTreeSet::new(),
        key_id: None,
        issuer_key_id: None,
    };
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().for_each(|name| facts.take(name))
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.issuer_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    Ok(facts)
}

impl Facts {
    fn take(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => {
                self.names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(octets) => {
                let address = <[u8; 4]>::try_from(*octets)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                self.addresses.extend(address);
            }
            _ => {}
        }
    }
}

/// A positive serial number of 16 octets (RFC 5280 §4.1.2.2 allows 20).
fn serial(entropy: &mut dyn Entropy) -> Result<SerialNumber, PkiError> {
    let mut octets = [0; 16];
    entropy.fill(&mut octets)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

/// Sets a certificate's life: from a little before `now` for `life` seconds.
fn set_life(params: &mut rcgen::CertificateParams, now: Seconds, end: Seconds) -> Result<(), PkiError> {
    let date = |at: Seconds| ASN1Time::from_timestamp(at).map(|at| at.to_datetime()).map_err(|_| PkiError::Date(at));
    params.not_before = date(now - CLOCK_SKEW)?;
    params.not_after = date(end)?;
    Ok(())
}
