//! Identity of a request's transaction, and everything that a request gives birth to.
//!
//! Every name a request brings into the world (To tag, entity tag, branch towards an endpoint, …) is a keyed function of
//! the request itself, so that every front end of a pool that sees a retransmission says the same thing
//! (RFC 3261 §8.2.7, §16.11).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Start of every branch made by an RFC 3261 element (RFC 3261 §8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Fewest octets of secret that make a [`PoolKey`].
pub const LEAST_KEY: usize = 32;

/// The secret given has fewer than [`LEAST_KEY`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool key has {0} octets; give at least {LEAST_KEY}")]
pub struct ShortKey(pub usize);

/// The secret of a pool: the same on all its front ends.
///
/// Holds the keyed state of HMAC-SHA-256, so that a derivation from an [`Otid`] costs two SHA-256 blocks.
#[derive(Clone)]
pub struct PoolKey(Hmac<Sha256>);

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolKey(…)")
    }
}

/// What a derived value is for. Values for different purposes tell nothing about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Transaction = 1,
    LegacyTransaction = 2,
    ToTag = 3,
    EntityTag = 4,
    Branch = 5,
    LoopHash = 6,
    Nonce = 7,
    Named = 8,
}

impl PoolKey {
    /// The key made of a secret of any length from [`LEAST_KEY`] octets on, all of which count.
    ///
    /// # Errors
    /// [`ShortKey`] if there are fewer.
    pub fn from_octets(secret: &[u8]) -> Result<Self, ShortKey> {
        if secret.len() < LEAST_KEY {
            return Err(ShortKey(secret.len()));
        }
        let key: [u8; 32] = Sha256::digest(secret).into();
        Hmac::new_from_slice(&key).map(Self).map_err(|_| ShortKey(secret.len()))
    }

    /// HMAC over the kind and length-prefixed parts: no two different lists of parts have the same encoding.
    fn mac<'p>(&self, kind: Kind, parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(&[kind as u8]);
        for part in parts {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            mac.update(&length.to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// To tag of every response to the request (RFC 3261 §8.2.6.2): 22 characters of base64url.
    pub fn to_tag(&self, otid: &Otid) -> String {
        text128(&head(&self.mac(Kind::ToTag, [otid.0.as_slice()])))
    }

    /// Entity tag that the request brings about (RFC 3903 §6, step 6). On the wire: [`text128`].
    pub fn entity_tag(&self, otid: &Otid) -> [u8; 16] {
        head(&self.mac(Kind::EntityTag, [otid.0.as_slice()]))
    }

    /// A 128-bit key for the named purpose, e.g. `"subscription"`, from any parts, e.g. an OTID's octets.
    pub fn key128(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
        head(&self.mac(Kind::Named, std::iter::once(purpose.as_bytes()).chain(parts.iter().copied())))
    }

    /// Branch of the request that transaction `otid` makes towards `endpoint`, sent by `incarnation`; 29 characters.
    ///
    /// Read back by [`Branch::parse`].
    pub fn branch(&self, incarnation: u32, otid: &Otid, endpoint: u64, loop_hash: u32) -> String {
        let mac = self.mac(Kind::Branch, [otid.0.as_slice(), &endpoint.to_be_bytes()]);
        Branch { incarnation, hash: head(&mac), loop_hash }.to_string()
    }

    /// Hash of all that decides where a request goes (RFC 3261 §16.6 step 8, RFC 5393 §4.2): its Request-URI as it came
    /// and as it leaves, the Route it carries and the user on whose behalf it is sent.
    ///
    /// A request that comes back with one of our Vias and the same hash is in a loop.
    pub fn loop_hash(&self, request_uri_before: &str, request_uri_after: &str, route: &str, user: &str) -> u32 {
        let parts = [request_uri_before, request_uri_after, route, user].map(str::as_bytes);
        u32::from_be_bytes(head(&self.mac(Kind::LoopHash, parts)))
    }

    /// Authenticator of a Digest nonce.
    pub(crate) fn nonce(&self, parts: &[&[u8]]) -> [u8; 16] {
        head(&self.mac(Kind::Nonce, parts.iter().copied()))
    }
}

/// The first `N` octets of a MAC.
fn head<const N: usize>(mac: &[u8; 32]) -> [u8; N] {
    mac.first_chunk().copied().unwrap_or([0; N])
}

/// Text of a 128-bit value: 22 characters of base64url, a `token` in SIP.
pub fn text128(value: &[u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

/// Reads what [`text128`] wrote; `None` for every other text.
pub fn parse128(text: &str) -> Option<[u8; 16]> {
    let mut value = [0; 16];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut value) {
        Ok(16) => Some(value),
        _ => None,
    }
}

/// Identity of a transaction: the same for a request, its retransmissions, and the ACK and CANCEL that belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Otid(pub [u8; 16]);

impl fmt::Debug for Otid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Otid({})", text128(&self.0))
    }
}

/// What tells one transaction from another, as it stands in the request.
///
/// With a branch that begins with the [`MAGIC_COOKIE`]: sent-by and branch of the top Via, Call-ID, CSeq number, From URI
/// and tag, and method. Without it (elements older than RFC 3261): the fields of RFC 3261 §17.2.3.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIdentity<'a> {
    /// Host and port of the top Via.
    pub via_sent_by: &'a str,
    /// Branch of the top Via.
    pub branch: Option<&'a str>,
    /// Call-ID.
    pub call_id: &'a str,
    /// Number of CSeq.
    pub cseq: u32,
    /// URI of From.
    pub from_uri: &'a str,
    /// Tag of From, empty if there is none.
    pub from_tag: &'a str,
    /// Method of the request.
    pub method: &'a str,
    /// Request-URI.
    pub request_uri: &'a str,
    /// Tag of To, empty if there is none.
    pub to_tag: &'a str,
    /// The top Via value as it came.
    pub top_via_raw: &'a [u8],
}

impl Otid {
    /// The identity of the request's transaction under `key`.
    pub fn of(key: &PoolKey, request: &RequestIdentity<'_>) -> Self {
        let invite = matches!(request.method, "INVITE" | "ACK" | "CANCEL");
        let method = if invite { "INVITE" } else { request.method };
        let cseq = request.cseq.to_be_bytes();
        let mac = match request.branch.filter(|branch| has_cookie(branch)) {
            Some(branch) => key.mac(
                Kind::Transaction,
                [
                    request.via_sent_by.as_bytes(),
                    branch.as_bytes(),
                    request.call_id.as_bytes(),
                    &cseq,
                    request.from_uri.as_bytes(),
                    request.from_tag.as_bytes(),
                    method.as_bytes(),
                ],
            ),
            None => key.mac(
                Kind::LegacyTransaction,
                [
                    request.top_via_raw,
                    request.call_id.as_bytes(),
                    &cseq,
                    request.from_tag.as_bytes(),
                    // The ACK to an INVITE carries the tag of the response, not of the INVITE.
                    if invite { b"" } else { request.to_tag.as_bytes() },
                    request.request_uri.as_bytes(),
                    method.as_bytes(),
                ],
            ),
        };
        Self(head(&mac))
    }
}

/// Whether a branch was made by the rules of RFC 3261. The cookie is compared without regard to case, as tokens are.
fn has_cookie(branch: &str) -> bool {
    branch.get(..MAGIC_COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
}

/// What stands in a branch of ours: cookie, then base64url of 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// The front end that sent the request.
    pub incarnation: u32,
    /// Keyed hash of transaction and endpoint.
    pub hash: [u8; 8],
    /// See [`PoolKey::loop_hash`].
    pub loop_hash: u32,
}

impl Branch {
    /// Reads a branch of the form that [`PoolKey::branch`] writes; `None` for every other one.
    pub fn parse(branch: &str) -> Option<Self> {
        let octets = parse128(branch.strip_prefix(MAGIC_COOKIE)?)?;
        let (incarnation, rest) = octets.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        Some(Self {
            incarnation: u32::from_be_bytes(*incarnation),
            hash: *hash,
            loop_hash: u32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = u128::from(self.incarnation) << 96
            | u128::from(u64::from_be_bytes(self.hash)) << 32
            | u128::from(self.loop_hash);
        write!(f, "{MAGIC_COOKIE}{}", text128(&octets.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PoolKey {
        PoolKey::from_octets(b"0123456789abcdef0123456789abcdef").unwrap()
    }

    fn request() -> RequestIdentity<'static> {
        RequestIdentity {
            via_sent_by: "192.0.2.1:5060",
            branch: Some("z9hG4bKabc"),
            call_id: "c1",
            cseq: 7,
            from_uri: "sip:alice@example.org",
            from_tag: "t1",
            method: "MESSAGE",
            request_uri: "sip:bob@example.org",
            to_tag: "",
            top_via_raw: b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc",
        }
    }

    #[test]
    fn a_short_key_is_refused_and_every_octet_of_a_long_one_counts() {
        assert_eq!(PoolKey::from_octets(&[7; 31]).unwrap_err(), ShortKey(31));
        let (mut a, b) = ([7; 80], [7; 80]);
        a[79] = 8;
        let otid = Otid([1; 16]);
        assert_ne!(PoolKey::from_octets(&a).unwrap().to_tag(&otid), PoolKey::from_octets(&b).unwrap().to_tag(&otid));
    }

    #[test]
    fn the_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", key()), "PoolKey(…)");
    }

    #[test]
    fn each_field_of_an_rfc_3261_request_counts() {
        let base = request();
        let changed = [
            RequestIdentity { via_sent_by: "192.0.2.1:5061", ..base },
            RequestIdentity { branch: Some("z9hG4bKabd"), ..base },
            RequestIdentity { call_id: "c2", ..base },
            RequestIdentity { cseq: 8, ..base },
            RequestIdentity { from_uri: "sip:eve@example.org", ..base },
            RequestIdentity { from_tag: "t2", ..base },
            RequestIdentity { method: "PUBLISH", ..base },
        ];
        let of = |request: &RequestIdentity<'_>| Otid::of(&key(), request);
        for request in &changed {
            assert_ne!(of(request), of(&base), "{request:?}");
        }
        let same = [
            RequestIdentity { request_uri: "sip:carol@example.org", ..base },
            RequestIdentity { to_tag: "x", ..base },
            RequestIdentity { top_via_raw: b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport", ..base },
        ];
        for request in &same {
            assert_eq!(of(request), of(&base), "{request:?}");
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let a = RequestIdentity { call_id: "c1", from_tag: "t1", ..request() };
        let b = RequestIdentity { call_id: "c1t", from_tag: "1", ..request() };
        let c = RequestIdentity { from_uri: "sip:alice@example.orgt", from_tag: "1", ..request() };
        let all = [a, b, c].map(|request| Otid::of(&key(), &request));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }

    #[test]
    fn a_request_without_cookie_is_told_by_the_older_rules() {
        for branch in [None, Some("1"), Some("z9hG4b"), Some("")] {
            let base = RequestIdentity { branch, ..request() };
            let of = |request: &RequestIdentity<'_>| Otid::of(&key(), request);
            for request in [
                RequestIdentity { request_uri: "sip:carol@example.org", ..base },
                RequestIdentity { to_tag: "x", ..base },
                RequestIdentity { from_tag: "x", ..base },
                RequestIdentity { call_id: "x", ..base },
                RequestIdentity { cseq: 8, ..base },
                RequestIdentity { top_via_raw: b"SIP/2.0/UDP 192.0.2.2", ..base },
                RequestIdentity { method: "OPTIONS", ..base },
            ] {
                assert_ne!(of(&request), of(&base), "{request:?}");
            }
            assert_ne!(of(&base), of(&request()));
        }
    }

    #[test]
    fn ack_and_cancel_belong_to_their_invite() {
        for branch in [Some("z9hG4bKabc"), None] {
            let invite = RequestIdentity { method: "INVITE", branch, ..request() };
            let ack = RequestIdentity { method: "ACK", to_tag: "given-by-the-response", ..invite };
            let cancel = RequestIdentity { method: "CANCEL", ..invite };
            let of = |request: &RequestIdentity<'_>| Otid::of(&key(), request);
            assert_eq!(of(&ack), of(&invite));
            assert_eq!(of(&cancel), of(&invite));
            assert_ne!(of(&RequestIdentity { method: "invite", ..invite }), of(&invite), "methods are case-sensitive");
        }
    }

    #[test]
    fn the_cookie_is_known_in_any_case_but_the_branch_is_not_folded() {
        let lower = RequestIdentity { branch: Some("Z9HG4BKabc"), ..request() };
        let with_to_tag = RequestIdentity { to_tag: "x", ..lower };
        assert_eq!(Otid::of(&key(), &lower), Otid::of(&key(), &with_to_tag));
        assert_ne!(Otid::of(&key(), &lower), Otid::of(&key(), &request()));
    }

    #[test]
    fn derived_values_differ_by_purpose_and_key() {
        let otid = Otid([9; 16]);
        let other = PoolKey::from_octets(&[1; 32]).unwrap();
        assert_eq!(key().to_tag(&otid).len(), 22);
        assert_ne!(key().to_tag(&otid), text128(&key().entity_tag(&otid)));
        assert_ne!(key().to_tag(&otid), other.to_tag(&otid));
        let named = key().key128("subscription", &[&otid.0]);
        assert_ne!(named, key().key128("publication", &[&otid.0]));
        assert_ne!(named, key().key128("subscriptio", &[b"n", &otid.0]));
        assert_ne!(key().key128("a", &[b"bc", b"d"]), key().key128("a", &[b"b", b"cd"]));
    }

    #[test]
    fn text_of_128_bits_comes_back_and_nothing_else_is_taken() {
        let value = key().entity_tag(&Otid([3; 16]));
        let text = text128(&value);
        assert_eq!(parse128(&text), Some(value));
        let longer = format!("{text}A");
        for wrong in ["", "abc", &text[..21], &longer, "=====================A", "AAAAAAAAAAAAAAAAAAAAAB"] {
            assert_eq!(parse128(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_branch_carries_its_sender_and_comes_back() {
        let text = key().branch(0x0102_0304, &Otid([5; 16]), 42, 0xdead_beef);
        assert_eq!(text.len(), 29);
        let branch = Branch::parse(&text).unwrap();
        assert_eq!((branch.incarnation, branch.loop_hash), (0x0102_0304, 0xdead_beef));
        assert_eq!(branch.to_string(), text);
        let elsewhere = Branch::parse(&key().branch(0x0102_0304, &Otid([5; 16]), 43, 0xdead_beef)).unwrap();
        assert_ne!(elsewhere.hash, branch.hash);
        let again = Branch::parse(&key().branch(9, &Otid([5; 16]), 42, 1)).unwrap();
        assert_eq!(again.hash, branch.hash, "the hash names transaction and endpoint, whoever sends");
        for wrong in ["", "z9hG4bK", "z9hG4bK-foreign", &text[7..], &text.to_lowercase()] {
            assert_eq!(Branch::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_loop_hash_covers_each_part() {
        let base = key().loop_hash("sip:a", "sip:b", "", "alice");
        assert_eq!(base, key().loop_hash("sip:a", "sip:b", "", "alice"));
        for (before, after, route, user) in [
            ("sip:x", "sip:b", "", "alice"),
            ("sip:a", "sip:x", "", "alice"),
            ("sip:a", "sip:b", "<sip:r>", "alice"),
            ("sip:a", "sip:b", "", "bob"),
            ("sip:asip:b", "", "", "alice"),
        ] {
            assert_ne!(base, key().loop_hash(before, after, route, user));
        }
    }
}
