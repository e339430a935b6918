//! TLS: only a server with the right certificate is trusted.

use commpool_harness::postgres::Settings;
use commpool_store::Store;
use commpool_store::postgres::Tls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::database::as_server;
use crate::pool::{NAME, route_to, with_cluster};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
}

impl Authority {
    fn certify(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// What a store is told by a server with a certificate for `name`, if it trusts `ca`.
fn told(of: &Authority, name: &str, ca: &str, wanted: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, ca).unwrap();
    let settings = Settings { tls: Some(of.certify(name)), ..Settings::default() };
    with_cluster("TLS to the database", &settings, |cluster| async move {
        let options = commpool_store::postgres::PostgresOptions {
            tls: Tls::VerifyFull { ca: file },
            ..as_server(&cluster, NAME)
        };
        let store = Store::open_postgres(options).unwrap();
        match (store.ask(route_to("alice")).await, wanted) {
            (Ok(_), None) => {
                let bare = "select count(*) from pg_stat_activity join pg_stat_ssl using (pid)
                            where application_name like 'commpool %' and not ssl";
                assert_eq!(cluster.sql(NAME, bare).unwrap(), "0");
            }
            (Err(error), Some(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
            (answer, _) => panic!("{answer:?}"),
        }
        store.close();
    });
}

#[test]
fn the_right_certificate_is_trusted() {
    let ca = authority();
    told(&ca, "127.0.0.1", &ca.pem, None);
}

#[test]
fn another_authority_is_not() {
    told(&authority(), "127.0.0.1", &authority().pem, Some("certificate"));
}

#[test]
fn another_name_is_not() {
    let ca = authority();
    told(&ca, "database.example.com", &ca.pem, Some("certificate"));
}
