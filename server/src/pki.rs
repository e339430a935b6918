//! The laptop's own CAs and certificates: made at first start, a certificate anew when names change or time runs out.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use commpool_model::config::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A leaf is made anew when it has less than this left, seconds.
const RENEW_BEFORE: i64 = 30 * 86_400;
/// Lifetimes in days. No client accepts a leaf of more than 825 days from a private CA.
const CA_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 397;

/// Where CA and certificate are.
#[derive(Clone, Debug)]
pub struct OwnPki {
    /// Certificate of the CA, for the other side to trust.
    pub ca: PathBuf,
    /// What the server uses.
    pub files: TlsFiles,
    ca_key: PathBuf,
}

/// Whom a certificate is shown to. Each has a CA of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Clients.
    Clients,
    /// Other front ends of the pool, from both sides.
    Peers,
}

impl Purpose {
    fn own(self, folder: &Path) -> OwnPki {
        let path = |ending: &str| folder.join(format!("{}{ending}", if self == Self::Peers { "peers-" } else { "" }));
        let files = TlsFiles { certificate_file: path("tls.crt"), key_file: path("tls.key") };
        OwnPki { ca: path("ca.crt"), files, ca_key: path("ca.key") }
    }

    const fn authority(self) -> &'static str {
        match self {
            Self::Clients => "Commpool CA",
            Self::Peers => "Commpool CA of front ends",
        }
    }

    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Clients => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Peers => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// Makes what is missing in `folder` for a server reached by `names` and `addresses`; `now` in seconds since 1970.
pub fn ensure(folder: &Path, purpose: Purpose, names: &[String], addresses: &[IpAddr], now: u64) -> Result<OwnPki> {
    let own = purpose.own(folder);
    if !own.ca.exists() || !own.ca_key.exists() {
        make_ca(&own, purpose, now)?;
        let _ = fs::remove_file(&own.files.certificate_file);
    }
    if !fits(&own.files, names, addresses, now) {
        make_leaf(&own, purpose, names, addresses, now)?;
    }
    Ok(own)
}

fn make_ca(own: &OwnPki, purpose: Purpose, now: u64) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, purpose.authority());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, now, CA_DAYS);
    let made = params.self_signed(&key)?;
    write_file(&own.ca_key, &key.serialize_pem(), 0o600)?;
    write_file(&own.ca, &made.pem(), 0o644)
}

fn make_leaf(own: &OwnPki, purpose: Purpose, names: &[String], addresses: &[IpAddr], now: u64) -> Result<()> {
    let ca_key = KeyPair::from_pem(&fs::read_to_string(&own.ca_key)?).with_context(|| {
        format!("{} holds no key; remove it and {} to get a new CA", own.ca_key.display(), own.ca.display())
    })?;
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(&own.ca)?, ca_key)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
    let name = names.first().map_or("commpool", String::as_str);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = purpose.usages();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, now, LEAF_DAYS);
    let made = params.signed_by(&key, &issuer)?;
    write_file(&own.files.key_file, &key.serialize_pem(), 0o600)?;
    write_file(&own.files.certificate_file, &made.pem(), 0o644)
}

/// Valid from the day before (clocks differ) for so many days.
fn valid_for(params: &mut CertificateParams, now: u64, days: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |seconds: u64| epoch + std::time::Duration::from_secs(seconds);
    params.not_before = at(now.saturating_sub(86_400));
    params.not_after = at(now + days * 86_400);
}

/// Whether the certificate there is names exactly these and will do for a while.
fn fits(files: &TlsFiles, names: &[String], addresses: &[IpAddr], now: u64) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(&files.certificate_file) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return false };
    let mut has: Vec<String> = extension.value.general_names.iter().filter_map(general_name).collect();
    let mut wants: Vec<String> = names.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
    has.sort();
    wants.sort();
    let left = certificate.validity().not_after.timestamp() - i64::try_from(now).unwrap_or(i64::MAX);
    files.key_file.exists() && has == wants && left > RENEW_BEFORE
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets).ok().map(|o| IpAddr::from(o).to_string()),
            _ => <[u8; 16]>::try_from(*octets).ok().map(|o| IpAddr::from(o).to_string()),
        },
        _ => None,
    }
}

/// Writes a file that appears whole or not at all.
pub fn write_file(path: &Path, text: &str, mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_second_start_changes_nothing_and_another_name_makes_a_new_leaf_of_the_same_ca() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let read = |p: &Path| fs::read_to_string(p).unwrap();
        let own = ensure(folder.path(), Purpose::Clients, &names(&["localhost"]), &addresses, NOW).unwrap();
        let (ca, leaf) = (read(&own.ca), read(&own.files.certificate_file));
        ensure(folder.path(), Purpose::Clients, &names(&["localhost"]), &addresses, NOW + 86_400).unwrap();
        assert_eq!((read(&own.ca), read(&own.files.certificate_file)), (ca.clone(), leaf.clone()));
        ensure(folder.path(), Purpose::Clients, &names(&["example.com"]), &addresses, NOW).unwrap();
        assert_eq!(read(&own.ca), ca);
        assert_ne!(read(&own.files.certificate_file), leaf);
    }

    #[test]
    fn a_leaf_near_its_end_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let own = ensure(folder.path(), Purpose::Clients, &names(&["localhost"]), &[], NOW).unwrap();
        let leaf = fs::read_to_string(&own.files.certificate_file).unwrap();
        ensure(folder.path(), Purpose::Clients, &names(&["localhost"]), &[], NOW + (LEAF_DAYS - 20) * 86_400).unwrap();
        assert_ne!(fs::read_to_string(&own.files.certificate_file).unwrap(), leaf);
    }
}
