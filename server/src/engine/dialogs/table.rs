//! Dialogs in memory: what each has been told, found by id, flow, endpoint and watcher.

use std::collections::{BTreeSet, HashMap};

use commpool_model::ids::{EndpointId, Key128, Origin, UserRef};
use commpool_sip::subscription::{Dialog, Reason};

use crate::engine::flow::Flow;
use crate::engine::watched::Edition;
use crate::services::Caller;

/// A dialog and what it has been told.
#[derive(Debug)]
pub(in crate::engine) struct Subscription {
    pub(in crate::engine) dialog: Dialog,
    pub(in crate::engine) watcher: UserRef,
    pub(super) watcher_address: String,
    pub(in crate::engine) endpoint: Option<EndpointId>,
    pub(super) flow: Option<Flow>,
    /// Whom it watches; `None`: the store has not said yet whether it may.
    pub(super) presentity: Option<UserRef>,
    /// His canonical address.
    pub(super) address: String,
    /// Transaction of the last SUBSCRIBE.
    pub(super) origin: Origin,
    /// What was sent last; a NOTIFY under way counts.
    pub(in crate::engine) told: Option<Edition>,
    /// A NOTIFY waits for its answer.
    pub(super) under_way: bool,
    /// Something is to be sent after that.
    pub(super) again: bool,
    /// The next NOTIFY is the last.
    pub(super) ending: Option<Reason>,
    /// CSeq was raised once after a refusal of its number.
    pub(super) raised: bool,
    /// Its row in the store is behind.
    pub(super) changed: bool,
}

impl Subscription {
    pub(in crate::engine) fn new(
        dialog: Dialog,
        caller: &Caller,
        endpoint: Option<EndpointId>,
        (presentity, address): (Option<UserRef>, &str),
        origin: Origin,
    ) -> Self {
        Self {
            dialog,
            watcher: caller.user,
            watcher_address: caller.address.clone(),
            endpoint,
            flow: None,
            presentity,
            address: address.to_owned(),
            origin,
            told: None,
            under_way: false,
            again: false,
            ending: None,
            raised: false,
            changed: false,
        }
    }
}

/// Dialogs by id, flow and endpoint.
#[derive(Debug, Default)]
pub(in crate::engine) struct Dialogs {
    pub(super) all: HashMap<Key128, Subscription>,
    pub(super) on_flow: HashMap<Flow, BTreeSet<Key128>>,
    pub(super) of_endpoint: HashMap<EndpointId, BTreeSet<Key128>>,
    pub(super) of_watcher: HashMap<UserRef, BTreeSet<Key128>>,
}

impl Dialogs {
    pub(in crate::engine) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether what is here of a dialog is the newest there is: its numbers are not behind those in the store.
    pub(in crate::engine) fn is_current(&self, id: Key128, first_cseq: u32) -> bool {
        self.all.get(&id).is_some_and(|own| own.dialog.local_cseq().saturating_add(1) >= first_cseq)
    }

    pub(in crate::engine) fn get(&self, id: Key128) -> Option<&Subscription> {
        self.all.get(&id)
    }

    /// How the dialog of a Call-ID stands, for people.
    pub(in crate::engine) fn describe(&self, call_id: &str) -> Option<String> {
        let own = self.all.values().find(|own| own.dialog.call_id() == call_id)?;
        Some(format!(
            "flow {:?}, presentity {:?}, told {:?}, under way {}, again {}, ending {:?}",
            own.flow, own.presentity, own.told, own.under_way, own.again, own.ending
        ))
    }

    /// Dialogs whose watcher can be told something from here.
    pub(in crate::engine) fn carried(&self) -> impl Iterator<Item = Key128> {
        self.all.iter().filter(|(_, own)| own.flow.is_some() && own.presentity.is_some()).map(|(id, _)| *id)
    }

    /// Dialogs of an endpoint.
    pub(in crate::engine) fn of(&self, endpoint: EndpointId) -> Vec<Key128> {
        ids(&self.of_endpoint, &endpoint)
    }

    /// Number, subject, and what was told last.
    pub(in crate::engine) fn progress(&self, id: Key128) -> Option<(u32, Option<UserRef>, Option<Edition>)> {
        self.all.get(&id).map(|own| (own.dialog.local_cseq(), own.presentity, own.told))
    }

    /// An owner before had used numbers up to this one. True: the dialog is here.
    pub(in crate::engine) fn raise(&mut self, id: Key128, cseq: u32) -> bool {
        self.all.get_mut(&id).map(|own| own.dialog.raise(cseq)).is_some()
    }

    /// Dialogs whose rows are behind; they count as told to the store.
    pub(in crate::engine) fn take_changed(&mut self) -> Vec<Key128> {
        let all = self.all.iter_mut();
        let mut changed: Vec<_> = all.filter_map(|(id, own)| std::mem::take(&mut own.changed).then_some(*id)).collect();
        changed.sort_unstable();
        changed
    }
}

pub(super) fn drop_from<K: Eq + std::hash::Hash>(map: &mut HashMap<K, BTreeSet<Key128>>, key: &K, id: Key128) {
    if let Some(set) = map.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

pub(super) fn ids<K: Eq + std::hash::Hash>(map: &HashMap<K, BTreeSet<Key128>>, key: &K) -> Vec<Key128> {
    map.get(key).map(|set| set.iter().copied().collect()).unwrap_or_default()
}
