//! Certificates signed by the pool's own authority: towards clients, and between front ends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::authority::Authority;
use super::{DAY, Entropy, Identity, PkiError, Seconds, read_pair, serial, set_life};

/// How long a leaf lives; it is renewed when two thirds are over.
pub const LEAF_LIFE: Seconds = 90 * DAY;

/// What a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Shown to clients. It opens no door to other front ends.
    Clients,
    /// Shown by both sides of a link between front ends.
    Peers,
}

/// Whom a leaf is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// To whom it is shown.
    pub purpose: Purpose,
    /// Common name: the pool's.
    pub common_name: String,
    /// DNS names.
    pub names: BTreeSet<String>,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Subject {
    /// The front ends of a pool towards each other: one name for all.
    pub fn peers(common_name: impl Into<String>, name: String) -> Self {
        Self { purpose: Purpose::Peers, ..Self::new(common_name, [name]) }
    }

    /// A pool towards clients, with these hosts: what reads as an address is one, all else is a name.
    pub fn new(common_name: impl Into<String>, hosts: impl IntoIterator<Item = String>) -> Self {
        let mut subject = Self {
            purpose: Purpose::Clients,
            common_name: common_name.into(),
            names: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for host in hosts {
            match host.parse() {
                Ok(address) => subject.addresses.insert(address),
                Err(_) => subject.names.insert(host),
            };
        }
        subject
    }
}

/// Why a new leaf is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// There is none.
    Absent,
    /// It cannot be read, or key and certificate do not match.
    Malformed,
    /// It is for other hosts.
    Hosts,
    /// Another authority signed it.
    Issuer,
    /// Two thirds of its life are over, or it has not begun.
    Age,
}

/// Why a new leaf is due at `now`, if it is.
///
/// # Errors
/// If the authority cannot be read.
pub fn why_due(
    leaf: Option<&Identity>,
    subject: &Subject,
    authority: &Authority,
    now: Seconds,
) -> Result<Option<Due>, PkiError> {
    let issuer = authority.facts()?;
    let Some(leaf) = leaf else { return Ok(Some(Due::Absent)) };
    let Ok(facts) = read_pair(leaf.certificate.as_bytes(), leaf.key.as_bytes()) else {
        return Ok(Some(Due::Malformed));
    };
    Ok(if facts.names != subject.names || facts.addresses != subject.addresses {
        Some(Due::Hosts)
    } else if facts.issuer_key_id != issuer.key_id {
        Some(Due::Issuer)
    } else if now < facts.not_before || now >= facts.part_of_life(2, 3) {
        Some(Due::Age)
    } else {
        None
    })
}

/// A new leaf with a new key. It ends no later than its authority.
///
/// # Errors
/// If the authority cannot be read, or the library or the randomness fails.
pub fn issue(
    subject: &Subject,
    authority: &Authority,
    now: Seconds,
    entropy: &mut dyn Entropy,
) -> Result<Identity, PkiError> {
    let end = authority.facts()?.not_after.min(now + LEAF_LIFE);
    let issuer = Issuer::from_ca_cert_pem(&authority.current.certificate, KeyPair::from_pem(&authority.current.key)?)?;
    let key = entropy.key_pair()?;
    let mut params = CertificateParams::default();
    set_life(&mut params, now, end)?;
    params.serial_number = Some(serial(entropy)?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    for name in &subject.names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject.purpose {
        Purpose::Clients => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Purpose::Peers => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::super::authority::advance;
    use super::super::{PairError, SystemEntropy};
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    fn authority() -> Authority {
        advance(None, "demo", "chat", NOW, &mut SystemEntropy).unwrap()
    }

    fn subject() -> Subject {
        Subject::new("demo", ["example.com", "192.0.2.1", "2001:db8::1"].map(str::to_owned))
    }

    #[test]
    fn a_leaf_is_for_the_hosts_asked_for_and_belongs_to_its_key() {
        let leaf = issue(&subject(), &authority(), NOW, &mut SystemEntropy).unwrap();
        let facts = read_pair(leaf.certificate.as_bytes(), leaf.key.as_bytes()).unwrap();
        assert_eq!((facts.names.len(), facts.addresses.len()), (1, 2));
        assert!(facts.is_for("example.com") && facts.is_for("2001:db8::1") && !facts.is_for("192.0.2.2"));
        assert_eq!(facts.not_after, NOW + LEAF_LIFE);
    }

    #[test]
    fn a_leaf_is_due_for_each_reason_and_for_no_other() {
        let authority = authority();
        let leaf = issue(&subject(), &authority, NOW, &mut SystemEntropy).unwrap();
        let due = |leaf: Option<&Identity>, subject: &Subject, authority: &Authority, day: i64| {
            why_due(leaf, subject, authority, NOW + day * DAY).unwrap()
        };
        assert_eq!(due(Some(&leaf), &subject(), &authority, 0), None);
        assert_eq!(due(Some(&leaf), &subject(), &authority, 59), None);
        assert_eq!(due(Some(&leaf), &subject(), &authority, 61), Some(Due::Age));
        assert_eq!(due(Some(&leaf), &subject(), &authority, -1), Some(Due::Age));
        assert_eq!(due(None, &subject(), &authority, 0), Some(Due::Absent));
        assert_eq!(due(Some(&leaf), &Subject::new("demo", ["other".into()]), &authority, 0), Some(Due::Hosts));
        let other = advance(None, "demo", "chat", NOW, &mut SystemEntropy).unwrap();
        assert_eq!(due(Some(&leaf), &subject(), &other, 0), Some(Due::Issuer));
        let mixed = Identity { key: other.current.key.clone(), ..leaf };
        assert_eq!(due(Some(&mixed), &subject(), &authority, 0), Some(Due::Malformed));
    }

    #[test]
    fn a_leaf_ends_no_later_than_its_authority() {
        let authority = authority();
        let end = authority.facts().unwrap().not_after;
        let leaf = issue(&subject(), &authority, end - DAY, &mut SystemEntropy).unwrap();
        assert_eq!(super::super::read_certificate(&leaf.certificate).unwrap().not_after, end);
    }

    #[test]
    fn an_unusable_pair_names_the_culprit() {
        let authority = authority();
        let leaf = issue(&subject(), &authority, NOW, &mut SystemEntropy).unwrap();
        let read = |certificate: &str, key: &str| read_pair(certificate.as_bytes(), key.as_bytes());
        assert!(matches!(read("nonsense", &leaf.key), Err(PairError::Certificate(_))));
        assert!(matches!(read(&leaf.certificate, "nonsense"), Err(PairError::Key(_))));
        assert_eq!(read(&leaf.certificate, &authority.current.key), Err(PairError::Mismatch));
    }

    #[test]
    fn only_front_ends_are_let_in_as_clients() {
        let usages = |subject: &Subject| {
            let leaf = issue(subject, &authority(), NOW, &mut SystemEntropy).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let usages = certificate.extended_key_usage().unwrap().unwrap().value;
            (usages.server_auth, usages.client_auth)
        };
        assert_eq!(usages(&subject()), (true, false));
        assert_eq!(usages(&Subject::peers("demo", "demo-peers.chat.svc".into())), (true, true));
    }

    #[test]
    fn wildcards_stand_for_one_label() {
        let leaf =
            issue(&Subject::new("demo", ["*.example.com".into()]), &authority(), NOW, &mut SystemEntropy).unwrap();
        let facts = super::super::read_certificate(&leaf.certificate).unwrap();
        assert!(facts.is_for("sip.example.com") && !facts.is_for("example.com") && !facts.is_for("a.b.example.com"));
    }
}
