//! Who sent this request: Digest on every request, whatever the transport (RFC 7616, RFC 8760).

use commpool_model::address::Address;
use commpool_sip::digest::{self, Algorithm, Credentials, Freshness, NonceUse};
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::method::Method;
use commpool_sip::time::Moment;
use commpool_store::ops::accounts::State;
use commpool_store::ops::credentials::{self, Login};

use super::Engine;
use super::flow::Flow;
use super::logins::{Reading, Waits};
use super::pending::Pending;
use super::registrations::{HOLD, HOLD_AGAIN};
use super::upkeep::Due;
use crate::services::{Caller, Refusal, Request};

/// A verifier no password has: compared with when there is none, so that it takes as long.
const NO_HA1: &str = "00000000000000000000000000000000";

/// What the credentials of a request amount to, before the store is asked.
enum Offered {
    /// None that could be good: challenge, saying whether an old nonce is the reason.
    Nothing { stale: bool },
    /// Worth a look: somebody's, with a live nonce of ours.
    Login(String),
}

impl Engine {
    /// Finds out who sent a request: goes on at once, after a credential read, or answers with a challenge.
    pub(super) fn authenticate(&mut self, now: Moment, request: Request) {
        match self.offered(now, &request) {
            Offered::Nothing { stale } => self.challenge_unseen(now, &request, stale),
            Offered::Login(address) => {
                if !self.open_transaction(now, &request) {
                    return;
                }
                match self.logins.get(&address).cloned() {
                    Some(login) => self.check(now, request, Some(&login)),
                    None => self.read_login(now, address, request),
                }
            }
        }
    }

    fn read_login(&mut self, now: Moment, address: String, request: Request) {
        match self.logins.wait(&address, request.clone()) {
            Waits::First => {
                let reading = self.logins.read(address);
                self.send_read(now, reading);
            }
            Waits::Joined => {}
            Waits::Full => self.refuse(now, &request, &Refusal::later("Too Many Requests At Once")),
        }
    }

    fn send_read(&mut self, now: Moment, reading: Reading) {
        let read = credentials::Request { address: reading.address.clone() };
        self.call(now, read, Pending::Login(reading));
    }

    pub(super) fn login_known(&mut self, now: Moment, reading: &Reading, login: Option<Login>) {
        let address = reading.address.as_str();
        let outdated = self.logins.is_outdated(reading, login.as_ref());
        self.logins.read_ended();
        if outdated {
            return match self.logins.read_again(reading) {
                Some(again) => self.send_read(now, again),
                None => self.login_unknown(now, address),
            };
        }
        if let Some(login) = &login {
            self.logins.insert(address.to_owned(), login.clone());
        }
        for request in self.logins.take_waiting(address) {
            if self.unanswered(&request.otid) {
                self.check(now, request, login.as_ref());
            }
        }
    }

    pub(super) fn login_unknown(&mut self, now: Moment, address: &str) {
        for request in self.logins.take_waiting(address) {
            if !self.unanswered(&request.otid) {
                continue;
            }
            // A client that comes from another front end is known to nobody here, and its first attempt counts most.
            let registers = request.message.method() == Method::Register && self.lease.shared();
            if registers && now.since(request.received) < HOLD {
                self.logins.hold(address, request);
                self.timers.set_if_absent(Due::Logins, now + HOLD_AGAIN);
            } else if registers {
                self.refuse(now, &request, &Refusal::unavailable());
            } else {
                self.refuse(now, &request, &Refusal::later("Store Not Available"));
            }
        }
    }

    /// Asks once more for those who are held.
    pub(super) fn logins_due(&mut self, now: Moment) {
        for address in self.logins.held() {
            let reading = self.logins.read(address);
            self.send_read(now, reading);
        }
    }

    fn realm(&self, message: &Message) -> String {
        let from = message.from().ok();
        let host = from.as_ref().and_then(|f| f.uri().ok()).map(|u| u.host.to_owned());
        self.settings.realm(host.as_deref().unwrap_or_default()).to_owned()
    }

    fn offered(&self, now: Moment, request: &Request) -> Offered {
        let realm = self.realm(&request.message);
        let mut stale = false;
        for row in rows(&request.message) {
            let Ok(credentials) = Credentials::parse(row) else { continue };
            if credentials.realm != realm {
                continue;
            }
            match self.freshness(now, &credentials, &realm, request) {
                Freshness::Forged => {}
                Freshness::Stale => stale = true,
                Freshness::Fresh => {
                    if let Some(address) = login_address(&credentials) {
                        return Offered::Login(address);
                    }
                }
            }
        }
        Offered::Nothing { stale }
    }

    fn freshness(&self, now: Moment, credentials: &Credentials<'_>, realm: &str, request: &Request) -> Freshness {
        let client = self.settings.nonce_address(request.info.remote);
        self.nonces.check(&credentials.nonce, self.pool_seconds(now), realm, client)
    }

    /// Checks a request's answers against what is known of its sender; goes on with it or challenges.
    fn check(&mut self, now: Moment, request: Request, login: Option<&Login>) {
        match self.answered(now, &request, login) {
            Ok(caller) => self.proven(now, request, caller),
            Err(stale) => {
                self.metrics.rejected();
                self.challenge(now, &request, stale);
            }
        }
    }

    /// The sender, if one row of credentials proves him; otherwise whether only an old nonce is the reason.
    fn answered(&mut self, now: Moment, request: &Request, login: Option<&Login>) -> Result<Caller, bool> {
        let realm = self.realm(&request.message);
        let mut stale = false;
        for row in rows(&request.message) {
            let Ok(credentials) = Credentials::parse(row) else { continue };
            let live =
                credentials.realm == realm && self.freshness(now, &credentials, &realm, request) == Freshness::Fresh;
            if !live || !self.verified(&request.message, &credentials, login) {
                continue;
            }
            if self.counts.accept(now, &credentials.nonce, credentials.nc.unwrap_or(0)) != NonceUse::First {
                stale = true;
                continue;
            }
            if let (Some(login), Some(address)) = (login, login_address(&credentials)) {
                return Ok(Caller { user: login.user, address, stamp: login.stamp });
            }
        }
        Err(stale)
    }

    fn verified(&self, message: &Message, credentials: &Credentials<'_>, login: Option<&Login>) -> bool {
        let Some(algorithm) = credentials.algorithm() else { return false };
        let verifier = login.filter(|l| l.state == State::On).and_then(|l| {
            l.verifiers.iter().filter(|v| v.realm == credentials.realm).find(|v| same(v.algorithm, algorithm))
        });
        let ha1 = verifier.map_or(NO_HA1, |v| v.ha1.as_str());
        let good = digest::verify(credentials, message.method().as_str(), ha1);
        good && verifier.is_some()
            && self.settings.digest.contains(&algorithm)
            && digest::uri_matches(&credentials.uri, message.request_uri())
    }

    /// The sender is proven. He must also be who From says he is.
    fn proven(&mut self, now: Moment, request: Request, caller: Caller) {
        let from_self = request.message.from().is_ok_and(|from| {
            from.uri().is_ok_and(|uri| crate::services::own_address(&self.settings, &uri) == Ok(caller.address.clone()))
        });
        if !from_self {
            return self.refuse(now, &request, &Refusal::because(403, "From Is Not You"));
        }
        if self.flows.adopt(request.flow, now).is_some() {
            if !self.flows.sign_in(request.flow, caller.user, caller.stamp) {
                return self.refuse(now, &request, &Refusal::because(403, "Too Many Users On One Connection"));
            }
            self.proven_flow(now, request.flow);
        }
        self.dispatch(now, request, caller);
    }

    fn proven_flow(&mut self, now: Moment, flow: Flow) {
        self.timers.clear(&Due::Unproven(flow));
        self.keep_alive(now, flow);
    }

    /// A challenge to a request that has no transaction, and gets none.
    fn challenge_unseen(&mut self, now: Moment, request: &Request, stale: bool) {
        let refusal = self.challenge_for(now, request, stale);
        self.refuse_unseen(now, request, &refusal);
    }

    /// A challenge to a request whose credentials turned out bad: its transaction is forgotten, so that strangers
    /// hold no places in the table.
    fn challenge(&mut self, now: Moment, request: &Request, stale: bool) {
        if self.transactions.forget(&request.otid).is_some() {
            self.challenge_unseen(now, request, stale);
        }
    }

    fn challenge_for(&self, now: Moment, request: &Request, stale: bool) -> Refusal {
        let (status, name) = match request.message.method() {
            Method::Message => (407, HeaderName::ProxyAuthenticate),
            _ => (401, HeaderName::WwwAuthenticate),
        };
        let realm = self.realm(&request.message);
        let client = self.settings.nonce_address(request.info.remote);
        // From the transaction, so that a retransmission gets the same nonce within a second.
        let salt = u64::from_be_bytes(std::array::from_fn(|i| request.otid.0[i]));
        let nonce = self.nonces.issue(self.pool_seconds(now), &realm, client, salt);
        let rows = self.settings.digest.iter().map(|a| (name, digest::challenge(&realm, &nonce, *a, stale)));
        Refusal { headers: rows.collect(), ..Refusal::status(status) }
    }
}

/// All credentials of a request: a client may send one row per challenge, and either name.
fn rows(message: &Message) -> impl Iterator<Item = &str> {
    let names = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
    names.into_iter().flat_map(|name| message.authorizations(name))
}

/// The address somebody signs in as: his user name at the realm. A verifier holds the bare user name, so that
/// `user@realm` as user name could never verify.
fn login_address(credentials: &Credentials<'_>) -> Option<String> {
    Address::new(&credentials.username, &credentials.realm).ok().map(|a| a.to_string())
}

fn same(stored: commpool_model::config::DigestAlgorithm, offered: Algorithm) -> bool {
    use commpool_model::config::DigestAlgorithm as Stored;
    matches!((stored, offered), (Stored::Sha256, Algorithm::Sha256) | (Stored::Md5, Algorithm::Md5))
}
