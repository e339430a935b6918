//! Authorities and certificates made for the tests.

use std::fs;

use commpool_server::peers::identity::{PeerFiles, PeerIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

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
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![carries.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &signer.0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = PeerFiles {
            name: super::NAME.to_owned(),
            certificate: write("tls.crt", certificate.pem()),
            key: write("tls.key", key.serialize_pem()),
            authority: write("ca.crt", self.0.pem()),
        };
        PeerIdentity::load(&files).unwrap()
    }
}
