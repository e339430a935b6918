//! Numbers that stand for one of few values in the rows of a database.

use commpool_model::acl::Right;
use commpool_model::config::DigestAlgorithm;
use commpool_model::presence::{Availability, Source};

use crate::ops::Transport;
use crate::ops::accounts;
use crate::ops::directory::Change;
use crate::ops::front_ends;
use crate::ops::subscribe::Kind;

pub(crate) fn transport(code: u8) -> Option<Transport> {
    [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().find(|transport| *transport as u8 == code)
}

pub(crate) fn account_state(code: u8) -> Option<accounts::State> {
    use accounts::State::{Disabled, On, Removed};
    [On, Disabled, Removed].into_iter().find(|state| *state as u8 == code)
}

/// The number of a row put aside, by what it does.
pub(crate) const fn of_change(change: &Change) -> u8 {
    match change {
        Change::Put { .. } => 1,
        Change::Lapse { .. } => 2,
        Change::Remove { .. } => 3,
    }
}

pub(crate) fn front_end_state(code: u8) -> Option<front_ends::State> {
    use front_ends::State::{Dead, Draining, Serving, Starting};
    [Starting, Serving, Draining, Dead].into_iter().find(|state| *state as u8 == code)
}

pub(crate) fn source(code: u8) -> Option<Source> {
    [Source::Automatic, Source::Manual].into_iter().find(|source| *source as u8 == code)
}

pub(crate) fn availability(code: u8) -> Option<Availability> {
    use Availability::{Available, Away, BeRightBack, Busy, Closed, DoNotDisturb, SignedIn};
    let all = [Closed, SignedIn, Away, BeRightBack, DoNotDisturb, Busy, Available];
    all.into_iter().find(|availability| *availability as u8 == code)
}

pub(crate) fn right(code: u8) -> Option<Right> {
    let all = [Right::Unset, Right::Allow, Right::Deny, Right::PoliteBlock];
    all.into_iter().find(|right| *right as u8 == code)
}

pub(crate) fn kind(code: u8) -> Option<Kind> {
    (code == Kind::Presence as u8).then_some(Kind::Presence)
}

/// The number of an algorithm.
pub(crate) const fn of_algorithm(algorithm: DigestAlgorithm) -> u8 {
    match algorithm {
        DigestAlgorithm::Sha256 => 1,
        DigestAlgorithm::Md5 => 2,
    }
}

pub(crate) fn algorithm(code: u8) -> Option<DigestAlgorithm> {
    [DigestAlgorithm::Sha256, DigestAlgorithm::Md5].into_iter().find(|algorithm| of_algorithm(*algorithm) == code)
}

/// A list of texts without control characters in one text.
pub(crate) fn joined(list: &[String]) -> String {
    list.join("\n")
}

/// The list in such a text.
pub(crate) fn split(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() }
}
