//! Rows as the tables hold them, the same for every backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, Origin, UserId, UserRef, Version};
use commpool_model::presence;

use crate::ops::{Endpoint, FlowRef, Transport, accounts, directory, front_ends, subscribe};

/// Grace of a lost endpoint, seconds.
const GRACE: u64 = 15;
/// Grace of a lost endpoint with `reg-id`: such a client waits 15–30 s before it comes back (RFC 5626 §4.5).
const GRACE_OUTBOUND: u64 = 35;

/// One run of a front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrontEndRow {
    pub(crate) fe: Incarnation,
    pub(crate) pod: String,
    pub(crate) start_id: [u8; 16],
    pub(crate) address: String,
    pub(crate) build: String,
    pub(crate) state: front_ends::State,
    pub(crate) lease_until: Micros,
    pub(crate) dead_since: Option<Micros>,
    pub(crate) load: front_ends::Load,
}

/// Which incarnations are alive, and since when the others are not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives(Arc<BTreeMap<Incarnation, Option<Micros>>>);

impl Lives {
    pub(crate) fn new<'a>(rows: impl IntoIterator<Item = &'a FrontEndRow>) -> Self {
        rows.into_iter().map(|row| (row.fe, row.dead_since)).collect()
    }

    /// Whether writes of this incarnation are taken.
    pub(crate) fn alive(&self, fe: Incarnation) -> bool {
        self.0.get(&fe).is_some_and(Option::is_none)
    }

    /// When it died: for an unknown one, long ago.
    pub(crate) fn dead_since(&self, fe: Incarnation) -> Option<Micros> {
        self.0.get(&fe).copied().unwrap_or(Some(Micros(0)))
    }

    /// The dead ones that are known, in order.
    pub(crate) fn dead(&self) -> impl Iterator<Item = Incarnation> {
        self.0.iter().filter(|(_, since)| since.is_some()).map(|(fe, _)| *fe)
    }
}

impl FromIterator<(Incarnation, Option<Micros>)> for Lives {
    fn from_iter<I: IntoIterator<Item = (Incarnation, Option<Micros>)>>(rows: I) -> Self {
        Self(Arc::new(rows.into_iter().collect()))
    }
}

/// An account with its primary address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) user: UserId,
    pub(crate) address: Option<String>,
    pub(crate) display_name: String,
    pub(crate) state: accounts::State,
    /// Stamp of the last change: rises over all accounts in the order of the commits.
    pub(crate) changed: u64,
    /// When it may be removed: its directory no longer has it.
    pub(crate) purge_at: Option<Micros>,
}

impl AccountRow {
    pub(crate) const fn user_ref(&self) -> UserRef {
        UserRef::local(self.user.0)
    }
}

/// A user that came from a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownRow {
    pub(crate) key: Key128,
    pub(crate) fingerprint: Key128,
    pub(crate) account: AccountRow,
}

/// A lease by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    pub(crate) holder: String,
    /// Rises with every take.
    pub(crate) token: u64,
    pub(crate) until: Micros,
}

/// A row that a run has put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StagedRow {
    pub(crate) number: u32,
    /// Token of the run.
    pub(crate) token: u64,
    pub(crate) change: directory::Change,
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointRow {
    pub(crate) id: EndpointId,
    pub(crate) key: Key128,
    pub(crate) flow: FlowRef,
    pub(crate) lost_at: Option<Micros>,
    pub(crate) expires_at: Micros,
    pub(crate) registered_at: Micros,
    /// When its last REGISTER was carried out.
    pub(crate) refreshed_at: Micros,
    pub(crate) origin: Origin,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) q: u16,
    pub(crate) contact: String,
    pub(crate) contact_value: String,
    pub(crate) path: Vec<String>,
    pub(crate) instance: Option<String>,
    pub(crate) reg_id: Option<u32>,
    pub(crate) agent: String,
}

/// How alive a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Reachable.
    Alive,
    /// Its flow is gone since then; the grace is not over.
    Lost(Micros),
    /// Its flow is gone since then and the grace is over: waits for the sweep.
    Faded(Micros),
    /// Its lifetime is over: waits for its owner's timer.
    Expired,
}

impl Life {
    /// Whether anybody may still see the binding.
    pub(crate) const fn visible(self) -> bool {
        matches!(self, Self::Alive | Self::Lost(_))
    }

    /// When its flow was lost.
    pub(crate) const fn lost_at(self) -> Option<Micros> {
        match self {
            Self::Lost(at) | Self::Faded(at) => Some(at),
            Self::Alive | Self::Expired => None,
        }
    }
}

impl EndpointRow {
    /// When the flow was lost: marked, or by the death of its front end.
    pub(crate) fn lost_since(&self, lives: &Lives) -> Option<Micros> {
        self.lost_at.into_iter().chain(lives.dead_since(self.flow.fe)).min()
    }

    /// Whether the grace after a loss is over. A client over UDP does not learn that its front end is gone: it is
    /// expected back at its next refresh, so until its binding expires.
    pub(crate) fn faded(&self, lives: &Lives, now: Micros) -> bool {
        let grace = if self.reg_id.is_some() { GRACE_OUTBOUND } else { GRACE };
        let over = |at: Micros| match self.flow.transport {
            Transport::Udp => self.expires_at <= now,
            _ => at.plus_seconds(grace) <= now,
        };
        self.lost_since(lives).is_some_and(over)
    }

    pub(crate) fn life(&self, lives: &Lives, now: Micros) -> Life {
        match self.lost_since(lives) {
            _ if self.expires_at <= now => Life::Expired,
            None => Life::Alive,
            Some(at) if self.faded(lives, now) => Life::Faded(at),
            Some(at) => Life::Lost(at),
        }
    }

    pub(crate) fn same_flow(&self, flow: &FlowRef) -> bool {
        (self.flow.fe, self.flow.serial) == (flow.fe, flow.serial)
    }

    /// The binding as callers see it.
    pub(crate) fn endpoint(&self, lives: &Lives, now: Micros) -> Endpoint {
        Endpoint {
            id: self.id,
            flow: self.flow.clone(),
            lost_ms: self.lost_since(lives).map(|at| at.millis_until(now)),
            contact: self.contact.clone(),
            contact_value: self.contact_value.clone(),
            q: self.q,
            path: self.path.clone(),
            instance: self.instance.clone(),
            reg_id: self.reg_id,
            agent: self.agent.clone(),
            expires_ms: now.millis_until(self.expires_at),
            age_ms: self.registered_at.millis_until(now),
            call_id: self.call_id.clone(),
        }
    }
}

/// A publication.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublicationRow {
    pub(crate) user: UserId,
    /// Tag of the publication's first transaction.
    pub(crate) id: Key128,
    /// Present entity tag.
    pub(crate) tag: Key128,
    pub(crate) fe: Incarnation,
    pub(crate) serial: u32,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) state: presence::State,
    pub(crate) document: Vec<u8>,
    pub(crate) since: Micros,
    pub(crate) updated: Micros,
    pub(crate) expires_at: Micros,
}

impl PublicationRow {
    pub(crate) fn same_flow(&self, flow: &FlowRef) -> bool {
        (self.fe, self.serial) == (flow.fe, flow.serial)
    }
}

/// The soft head of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: Version,
    /// Tag and id of the last publication removed by its client: a replay of the removal is known by it.
    pub(crate) removed: Option<(Key128, Key128)>,
}

impl Head {
    /// Raises the version: to the clock, and always.
    pub(crate) fn bump(&mut self, now: Micros) {
        self.version = Version(self.version.0.saturating_add(1).max(now.0));
    }
}

/// A subscription dialog, stored with its watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRow {
    pub(crate) watcher: UserId,
    pub(crate) sub_id: Key128,
    pub(crate) fe: Incarnation,
    pub(crate) origin: Origin,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) kind: subscribe::Kind,
    pub(crate) presentities: Vec<String>,
    pub(crate) expires_at: Micros,
    /// First NOTIFY CSeq of the owner.
    pub(crate) cseq: u32,
    pub(crate) dialog: subscribe::Dialog,
}
