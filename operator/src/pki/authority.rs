//! A pool's own certificate authority and its succession: announced long before it signs, buried when it ends.
//!
//! Clients are given the authority by hand, so a successor must be in their hands before the first leaf of it is shown:
//! it is announced (in `ca.crt`) when two thirds of the old one's life are over, and signs only when the old one has
//! little more left than a leaf lives.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose};
use x509_parser::time::ASN1Time;

use super::leaf::LEAF_LIFE;
use super::{
    DAY, Entropy, Facts, Identity, PairError, PkiError, Seconds, read_certificate, read_pair, serial, set_life,
};

/// How long an authority lives.
pub const AUTHORITY_LIFE: Seconds = 3_650 * DAY;
/// An authority with less than this left signs no more.
const LAST_SIGNATURE: Seconds = 2 * LEAF_LIFE;

/// The authorities of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Signs leaves.
    pub current: Identity,
    /// Announced, will sign.
    pub next: Option<Identity>,
    /// Certificates that signed leaves which may still be shown, newest first.
    pub previous: Vec<String>,
}

impl Authority {
    /// What clients are to trust: all certificates, the signing one first.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        std::iter::once(self.current.certificate.as_str())
            .chain(next)
            .chain(self.previous.iter().map(String::as_str))
            .collect()
    }

    /// What the signing certificate says.
    ///
    /// # Errors
    /// If certificate or key cannot be read.
    pub fn facts(&self) -> Result<Facts, PairError> {
        read_pair(self.current.certificate.as_bytes(), self.current.key.as_bytes())
    }
}

/// The authorities as they must be at `now`, given those that were: `None` at the pool's birth.
///
/// The result equals `before` when there is nothing to do.
///
/// # Errors
/// If `before` cannot be read, or the library or the randomness fails.
pub fn advance(
    before: Option<&Authority>,
    pool: &str,
    namespace: &str,
    now: Seconds,
    entropy: &mut dyn Entropy,
) -> Result<Authority, PkiError> {
    let Some(before) = before else {
        return Ok(Authority { current: make(pool, namespace, now, entropy)?, next: None, previous: Vec::new() });
    };
    let mut authority = before.clone();
    authority.previous.retain(|certificate| read_certificate(certificate).is_ok_and(|facts| facts.not_after >= now));
    let facts = authority.facts()?;
    if authority.next.is_none() && now >= facts.part_of_life(2, 3) {
        authority.next = Some(make(pool, namespace, now, entropy)?);
    }
    if facts.not_after - now < LAST_SIGNATURE
        && let Some(next) = authority.next.take()
    {
        let old = std::mem::replace(&mut authority.current, next);
        if facts.not_after >= now {
            authority.previous.insert(0, old.certificate);
        }
    }
    Ok(authority)
}

fn make(pool: &str, namespace: &str, now: Seconds, entropy: &mut dyn Entropy) -> Result<Identity, PkiError> {
    let key = entropy.key_pair()?;
    let mut params = CertificateParams::default();
    set_life(&mut params, now, now + AUTHORITY_LIFE)?;
    params.serial_number = Some(serial(entropy)?);
    params.distinguished_name = name(pool, namespace, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The year tells successive authorities apart; both parts stay below the 64 characters of X.520.
fn name(pool: &str, namespace: &str, now: Seconds) -> Result<DistinguishedName, PkiError> {
    let year = ASN1Time::from_timestamp(now).map_err(|_| PkiError::Date(now))?.to_datetime().year();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, namespace);
    name.push(DnType::CommonName, format!("{pool} Commpool CA {year}"));
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::SystemEntropy;
    use super::super::leaf::{Subject, issue, why_due};
    use super::*;

    const START: Seconds = 1_800_000_000;

    fn advance_at(before: Option<&Authority>, now: Seconds) -> Authority {
        advance(before, "demo", "chat", now, &mut SystemEntropy).unwrap()
    }

    #[test]
    fn an_authority_stays_as_it_is_for_two_thirds_of_its_life() {
        let first = advance_at(None, START);
        for day in [0, 1, 400, 2_400] {
            assert_eq!(advance_at(Some(&first), START + day * DAY), first, "day {day}");
        }
        let announced = advance_at(Some(&first), START + 2_434 * DAY);
        assert_eq!(announced.current, first.current);
        assert!(announced.next.is_some());
    }

    #[test]
    fn a_successor_is_announced_years_before_it_signs() {
        let announced = advance_at(Some(&advance_at(None, START)), START + 2_434 * DAY);
        assert_eq!(advance_at(Some(&announced), START + 3_400 * DAY), announced);
        let succeeded = advance_at(Some(&announced), START + 3_471 * DAY);
        assert_eq!(Some(&succeeded.current), announced.next.as_ref());
        assert_eq!(succeeded.previous, vec![announced.current.certificate]);
        assert_eq!(succeeded.next, None);
    }

    #[test]
    fn the_old_one_is_buried_when_it_ends() {
        let announced = advance_at(Some(&advance_at(None, START)), START + 2_434 * DAY);
        let succeeded = advance_at(Some(&announced), START + 3_471 * DAY);
        let later = advance_at(Some(&succeeded), START + 3_651 * DAY);
        assert_eq!(later.previous, Vec::<String>::new());
        assert_eq!(later.current, succeeded.current);
    }

    #[test]
    fn an_operator_that_slept_for_decades_starts_anew() {
        let first = advance_at(None, START);
        let woken = advance_at(Some(&first), START + 9_000 * DAY);
        assert_ne!(woken.current, first.current);
        assert!(woken.previous.is_empty());
        assert!(woken.facts().unwrap().is_current(START + 9_000 * DAY));
    }

    /// Walks two lifetimes day by day: whoever trusts the bundle of any day of the last 400 accepts today's leaf.
    #[test]
    fn every_leaf_is_trusted_by_whoever_took_the_bundle_within_a_year() {
        let subject = Subject::new("demo", ["example.com".into()]);
        let mut authority = advance_at(None, START);
        let mut leaf = None;
        let mut bundles: Vec<String> = Vec::new();
        for step in 0..1_000 {
            let now = START + step * 9 * DAY;
            authority = advance_at(Some(&authority), now);
            if why_due(leaf.as_ref(), &subject, &authority, now).unwrap().is_some() {
                leaf = Some(issue(&subject, &authority, now, &mut SystemEntropy).unwrap());
            }
            let shown = leaf.as_ref().map(|leaf| read_certificate(&leaf.certificate).unwrap()).unwrap();
            assert!(shown.is_current(now), "day {}", step * 9);
            bundles.push(authority.bundle());
            let year_ago = &bundles[bundles.len().saturating_sub(400 / 9)];
            let trusted = pems(year_ago).any(|certificate| {
                let facts = read_certificate(&certificate).unwrap();
                facts.key_id == shown.issuer_key_id && facts.is_current(now)
            });
            assert!(trusted, "day {}", step * 9);
        }
    }

    fn pems(bundle: &str) -> impl Iterator<Item = String> + '_ {
        const END: &str = "-----END CERTIFICATE-----\n";
        bundle.split_inclusive(END).map(str::to_owned)
    }
}
