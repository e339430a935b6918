//! How an entry becomes a user. Pure.

use commpool_model::address::Address;
use commpool_model::config::Mapping;
use commpool_model::ids::Key128;
use commpool_store::ops::directory::Card;
use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::text;

/// Longest display name and longest field of a card, octets: what the store takes.
const MAX_FIELD: usize = 256;
/// A value longer than this is no address, octets.
const MAX_ADDRESS: usize = 512;
/// Longest distinguished name that is remembered for people, octets.
const MAX_DN: usize = 256;
/// Longest value that is shown to people, octets.
const MAX_SHOWN: usize = 80;
/// Bit of userAccountControl: the account is disabled (MS-ADTS §2.2.16).
const ACCOUNT_DISABLED: i64 = 2;

/// What an entry says about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Key of the entry.
    pub key: Key128,
    /// Distinguished name, for people; at most 256 octets.
    pub dn: String,
    /// Address.
    pub address: Wanted,
    /// Whether he may sign in, as far as the entry itself says.
    pub enabled: Verdict,
    /// Name for people, at most 256 octets.
    pub display_name: String,
    /// Facts for the address book.
    pub card: Card,
    /// Hash of name and card.
    pub fingerprint: Key128,
}

/// The address that an entry gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A canonical address in a domain of the pool.
    Address(String),
    /// There was something, but nothing that can be used: what and why, for people.
    Unusable(String),
    /// There was nothing.
    Nothing,
}

/// Whether somebody may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Yes.
    Yes = 1,
    /// No, said in words: by the account's own switch.
    No = 2,
    /// Nothing says that he may.
    Unsaid = 3,
}

/// A mapping for the domains of a pool.
#[derive(Clone, Debug)]
pub struct Mapper {
    mapping: Mapping,
    domains: Vec<String>,
}

impl Mapper {
    /// For canonical domains.
    pub fn new(mapping: &Mapping, domains: &[String]) -> Self {
        Self { mapping: mapping.clone(), domains: domains.to_vec() }
    }

    /// Attributes that name an entry.
    pub fn key_attributes(&self) -> Vec<String> {
        match self.mapping.key.as_str() {
            "" => vec!["objectGUID".to_owned(), "entryUUID".to_owned()],
            key => vec![key.to_owned()],
        }
    }

    /// Whether two entries may have one key: only where it is neither `objectGUID` nor `entryUUID`.
    pub fn keys_may_repeat(&self) -> bool {
        let key = self.mapping.key.as_str();
        !(key.is_empty() || key.eq_ignore_ascii_case("objectGUID") || key.eq_ignore_ascii_case("entryUUID"))
    }

    /// Attributes to ask for, each once.
    pub fn attributes(&self) -> Vec<String> {
        let mapping = &self.mapping;
        let mut names = self.key_attributes();
        names.extend(mapping.sip_address.iter().flat_map(|source| Source::of(source).attributes()));
        names.extend(mapping.display_name.iter().cloned());
        names.extend([&mapping.phone, &mapping.title, &mapping.company, &mapping.office].map(String::clone));
        names.push(mapping.enabled.attribute.clone());
        if mapping.enabled.account_control {
            // What has the one is an entry of an Active Directory, and must have the other.
            names.extend(["objectGUID", "userAccountControl"].map(str::to_owned));
        }
        let mut seen = Vec::new();
        names.retain(|name| {
            let new = !name.is_empty() && !seen.contains(&name.to_ascii_lowercase());
            seen.push(name.to_ascii_lowercase());
            new
        });
        names
    }

    /// The key of an entry; `None`: it has none, or several.
    pub fn key(&self, entry: &Entry) -> Option<Key128> {
        match self.mapping.key.as_str() {
            "" => guid(entry).or_else(|| uuid(entry)),
            name if name.eq_ignore_ascii_case("objectGUID") => guid(entry),
            name if name.eq_ignore_ascii_case("entryUUID") => uuid(entry),
            name => match entry.values(name)[..] {
                [value] => Some(first_half(&Sha256::digest(value))),
                _ => None,
            },
        }
    }

    /// What an entry says; `None`: it has no key, so that nobody can tell whose it is.
    pub fn map(&self, entry: &Entry) -> Option<Found> {
        let display_name = self.display_name(entry);
        let field = |name: &str| if name.is_empty() { String::new() } else { first_text(entry, name) };
        let mapping = &self.mapping;
        let card = Card {
            phone: field(&mapping.phone),
            title: field(&mapping.title),
            company: field(&mapping.company),
            office: field(&mapping.office),
        };
        Some(Found {
            key: self.key(entry)?,
            dn: text::shown(&entry.dn, MAX_DN),
            address: self.address(entry),
            enabled: self.enabled(entry),
            fingerprint: fingerprint(&display_name, &card),
            display_name,
            card,
        })
    }

    fn display_name(&self, entry: &Entry) -> String {
        let names = self.mapping.display_name.iter();
        names.map(|name| first_text(entry, name)).find(|name| !name.is_empty()).unwrap_or_default()
    }

    fn address(&self, entry: &Entry) -> Wanted {
        let mut problem = None;
        for source in self.mapping.sip_address.iter().map(|source| Source::of(source)) {
            for value in source.values(entry) {
                match self.usable(&value) {
                    Ok(address) => return Wanted::Address(address),
                    // Mail goes to many domains; that it is none of ours says nothing about the pool.
                    Err(Refused::Foreign(_)) if source.is_mail() => {}
                    Err(refused) => problem = problem.or_else(|| Some(refused.say(&source, &value))),
                }
            }
        }
        problem.map_or(Wanted::Nothing, Wanted::Unusable)
    }

    fn usable(&self, value: &Result<String, &'static str>) -> Result<String, Refused> {
        let value = value.as_ref().map_err(|why| Refused::Bad((*why).to_owned()))?;
        if value.len() > MAX_ADDRESS {
            return Err(Refused::Bad("is too long".to_owned()));
        }
        let address = Address::parse(value, None).map_err(|error| Refused::Bad(format!("is no address: {error}")))?;
        if self.domains.iter().any(|domain| domain == address.domain()) {
            return Ok(address.as_str().to_owned());
        }
        Err(Refused::Foreign(address.domain().to_owned()))
    }

    /// Whether an entry does not show the account's own switch, although it has one.
    pub fn hides_switch(&self, entry: &Entry) -> bool {
        let asked = self.mapping.enabled.account_control;
        asked && entry.has("objectGUID") && !entry.has("userAccountControl")
    }

    fn enabled(&self, entry: &Entry) -> Verdict {
        let enabled = &self.mapping.enabled;
        let mut verdict = Verdict::Yes;
        if enabled.account_control {
            match entry.values("userAccountControl")[..] {
                // Not shown rather than not there: whom it switches off must not come back.
                [] if self.hides_switch(entry) => verdict = Verdict::Unsaid,
                [] => {}
                [bits, ..] => match std::str::from_utf8(bits).ok().and_then(|bits| bits.trim().parse::<i64>().ok()) {
                    Some(bits) if bits & ACCOUNT_DISABLED != 0 => return Verdict::No,
                    Some(_) => {}
                    None => verdict = Verdict::Unsaid,
                },
            }
        }
        if !enabled.attribute.is_empty() {
            let values = entry.values(&enabled.attribute);
            let says = |word: &str| values.iter().any(|value| value.eq_ignore_ascii_case(word.as_bytes()));
            match (says("FALSE"), says("TRUE")) {
                (true, _) => return Verdict::No,
                (false, true) => {}
                (false, false) => verdict = Verdict::Unsaid,
            }
        }
        verdict
    }
}

/// Why a value is not taken.
enum Refused {
    Bad(String),
    Foreign(String),
}

impl Refused {
    fn say(self, source: &Source<'_>, value: &Result<String, &'static str>) -> String {
        let value =
            value.as_deref().map_or_else(|_| String::new(), |value| format!(" `{}`", text::shown(value, MAX_SHOWN)));
        match self {
            Self::Bad(why) => format!("{}{value} {why}", source.text),
            Self::Foreign(domain) => {
                format!(
                    "{}{value} is in {}, which is no domain of the pool",
                    source.text,
                    text::shown(&domain, MAX_SHOWN)
                )
            }
        }
    }
}

/// Where an address comes from.
struct Source<'a> {
    text: &'a str,
}

impl<'a> Source<'a> {
    const fn of(text: &'a str) -> Self {
        Self { text }
    }

    fn is_template(&self) -> bool {
        self.text.contains('{')
    }

    fn is_mail(&self) -> bool {
        self.text.eq_ignore_ascii_case("mail")
    }

    /// Text and names of attributes by turns, beginning with text.
    fn pieces(&self) -> impl Iterator<Item = (bool, &'a str)> {
        self.text.split(['{', '}']).enumerate().map(|(n, piece)| (n % 2 == 1, piece))
    }

    fn attributes(&self) -> Vec<String> {
        if !self.is_template() {
            return vec![self.text.to_owned()];
        }
        self.pieces().filter(|(name, _)| *name).map(|(_, name)| name.to_owned()).collect()
    }

    /// What it gives, in the order in which it is tried.
    fn values(&self, entry: &Entry) -> Vec<Result<String, &'static str>> {
        if self.is_template() {
            return self.filled(entry).into_iter().collect();
        }
        let values = entry.values(self.text);
        if !self.text.eq_ignore_ascii_case("proxyAddresses") {
            return values.into_iter().map(address_text).collect();
        }
        // The scheme in capitals marks the primary address; values are sorted, and capitals come first.
        let is_sip = |value: &&[u8]| value.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sip:"));
        let mut sip: Vec<&[u8]> = values.into_iter().filter(is_sip).collect();
        sip.sort_by_key(|value| !value.starts_with(b"SIP:"));
        sip.into_iter().map(address_text).collect()
    }

    /// The template with the values of its attributes; `None`: one is missing.
    fn filled(&self, entry: &Entry) -> Option<Result<String, &'static str>> {
        let mut filled = String::new();
        for (name, piece) in self.pieces() {
            match (name, name.then(|| entry.values(piece)).and_then(|values| values.first().copied())) {
                (false, _) => filled.push_str(piece),
                (true, None) => return None,
                (true, Some(value)) => match std::str::from_utf8(value) {
                    // Not a URI, so that a % stands for itself.
                    Ok(value) => filled.push_str(&value.trim().replace('%', "%25")),
                    Err(_) => return Some(Err("is not UTF-8")),
                },
            }
        }
        Some(Ok(filled))
    }
}

fn address_text(value: &[u8]) -> Result<String, &'static str> {
    let value = std::str::from_utf8(value).map_err(|_| "is not UTF-8")?.trim();
    let is_uri = value.get(..5).is_some_and(|start| {
        let start = start.to_ascii_lowercase();
        start.starts_with("sip:") || start.starts_with("sips:")
    });
    Ok(if is_uri { value.to_owned() } else { value.replace('%', "%25") })
}

/// The lowest value of an attribute that is text, cleaned.
fn first_text(entry: &Entry, name: &str) -> String {
    let texts = entry.values(name).into_iter().filter_map(|value| std::str::from_utf8(value).ok());
    texts.map(|value| text::clean(value, MAX_FIELD)).find(|value| !value.is_empty()).unwrap_or_default()
}

fn guid(entry: &Entry) -> Option<Key128> {
    match entry.values("objectGUID")[..] {
        [value] => Some(Key128(value.try_into().ok()?)),
        _ => None,
    }
}

/// RFC 4530: the text of a UUID.
fn uuid(entry: &Entry) -> Option<Key128> {
    let [value] = entry.values("entryUUID")[..] else { return None };
    let dashes = [8, 13, 18, 23];
    let placed = |(n, octet): (usize, &u8)| (*octet == b'-') == dashes.contains(&n);
    if value.len() != 36 || !value.iter().enumerate().all(placed) {
        return None;
    }
    let mut digits = value.iter().filter(|octet| **octet != b'-').map(|octet| char::from(*octet).to_digit(16));
    let mut key = [0; 16];
    for octet in &mut key {
        *octet = u8::try_from(digits.next()?? << 4 | digits.next()??).ok()?;
    }
    Some(Key128(key))
}

fn fingerprint(display_name: &str, card: &Card) -> Key128 {
    let mut hash = Sha256::new();
    for field in [display_name, &card.phone, &card.title, &card.company, &card.office] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    first_half(&hash.finalize())
}

fn first_half(hash: &[u8]) -> Key128 {
    Key128(hash.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
