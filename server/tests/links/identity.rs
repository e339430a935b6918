//! Authorities and certificates made for the tests.

use std::fs;
use std::sync::Arc;

use arc_swap::ArcSwap;
use commpool_server::peers::identity::{CurrentPeer, PeerFiles, PeerIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority that signs for front ends.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A front end that carries `carries` and trusts this authority, under the pool's one name.
    pub(crate) fn identity(&self, carries: &str) -> PeerIdentity {
        self.identity_of(self, carries)
    }

    /// The same, signed by `signer`.
    pub(crate) fn identity_of(&self, signer: &Self, carries: &str) -> PeerIdentity {
        let files = Files::new();
        files.write(signer, carries, &[self]);
        files.load()
    }
}

/// Where a front end has its certificate, key and authority.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A new leaf signed by `signer`, which carries `carries`; these are trusted.
    pub(crate) fn write(&self, signer: &Authority, carries: &str, trusted: &[&Authority]) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![carries.to_owned()]).unwrap();
        self.put("tls.crt", &params.signed_by(&key, &signer.0).unwrap().pem());
        self.put("tls.key", &key.serialize_pem());
        self.put("ca.crt", &trusted.iter().map(|authority| authority.0.pem()).collect::<String>());
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn load(&self) -> PeerIdentity {
        let path = |name: &str| self.0.path().join(name);
        let (certificate, key, authority) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
        PeerIdentity::load(&PeerFiles { name: super::NAME.to_owned(), certificate, key, authority }).unwrap()
    }
}

/// An identity that stays.
pub(crate) fn fixed(identity: PeerIdentity) -> CurrentPeer {
    Arc::new(ArcSwap::from_pointee(identity))
}
