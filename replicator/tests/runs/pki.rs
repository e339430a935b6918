//! Certificates, good and bad.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// Another CA.
    Ca,
    /// Another name.
    Host,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
    /// Made for clients.
    ClientOnly,
}

/// A CA's certificate as PEM, and what a server needs.
pub(crate) struct Pki {
    pub(crate) ca: String,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

fn authority() -> (KeyPair, CertificateParams) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (KeyPair::generate().unwrap(), params)
}

impl Pki {
    pub(crate) fn new(flaw: Flaw) -> Self {
        let (key, params) = authority();
        let ca = params.self_signed(&key).unwrap().pem();
        // The stranger has the same name, so that only the signature tells.
        let (key, params) = if flaw == Flaw::Ca { authority() } else { (key, params) };
        let issuer = Issuer::new(params, key);
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        leaf.subject_alt_names = match flaw {
            Flaw::Host => vec![SanType::DnsName("elsewhere.example".try_into().unwrap())],
            _ => vec![SanType::IpAddress("127.0.0.1".parse().unwrap())],
        };
        leaf.extended_key_usages = match flaw {
            Flaw::ClientOnly => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        let day = Duration::from_secs(86_400);
        let now = date_time_ymd(1970, 1, 1) + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        (leaf.not_before, leaf.not_after) = match flaw {
            Flaw::Expired => (now - 3 * day, now - day),
            Flaw::Early => (now + day, now + 3 * day),
            _ => (now - day, now + 30 * day),
        };
        let pair = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&pair, &issuer).unwrap().der().clone();
        Self { ca, certificate, key: PrivateKeyDer::try_from(pair.serialize_der()).unwrap() }
    }
}
