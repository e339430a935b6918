//! Presence: what publications say and what they add up to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{EndpointId, Key128, Micros};

/// How available somebody is, least first; the order is the one of aggregation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Availability {
    /// Not reachable (`closed`).
    Closed = 1,
    /// Signed in, nothing published: open, no activity.
    #[default]
    SignedIn = 2,
    /// Away from the device.
    Away = 3,
    /// Back in a moment.
    BeRightBack = 4,
    /// Not to be disturbed.
    DoNotDisturb = 5,
    /// Busy: on the phone, in a meeting.
    Busy = 6,
    /// Available.
    Available = 7,
}

/// Who says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// A device, by itself.
    #[default]
    Automatic = 1,
    /// The user, by hand: wins over every automatic state.
    Manual = 2,
}

/// What one publication says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Who says so.
    pub source: Source,
    /// How available.
    pub availability: Availability,
    /// RPID activities (RFC 4480 §3.2) by element name, e.g. `on-the-phone`; at most 8.
    pub activities: Vec<String>,
    /// Note for people, at most 512 octets.
    pub note: Option<String>,
}

/// A live publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its key.
    pub id: Key128,
    /// The endpoint it belongs to; `None`: not known, or the user as a whole.
    pub endpoint: Option<EndpointId>,
    /// What it says.
    pub state: State,
    /// Regenerated document.
    pub document: Vec<u8>,
    /// When it was last set or refreshed.
    pub updated: Micros,
    /// When it began to say what it says.
    pub since: Micros,
}

/// A signed-in endpoint, for presence only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The endpoint.
    pub id: EndpointId,
    /// When it signed in.
    pub registered: Micros,
}

/// All that counts towards a user's presence: endpoints alive or in their grace, and publications of such endpoints
/// or of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Live publications, newest of each endpoint only.
    pub publications: Vec<Publication>,
    /// Endpoints.
    pub devices: Vec<Device>,
}

/// What the facts about a user add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    /// How available.
    pub availability: Availability,
    /// Activities of the state that won.
    pub activities: Vec<String>,
    /// Note of the state that won.
    pub note: Option<String>,
    /// Since when the publication that won says so; `None`: no publication won.
    pub since: Option<Micros>,
    /// Published states that count, the one that wins first.
    pub tuples: Vec<Tuple>,
}

/// One published state that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Whose state.
    pub key: TupleKey,
    /// What it says.
    pub state: State,
    /// When it began to say so.
    pub since: Micros,
}

/// What a tuple stands for: stable as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TupleKey {
    /// An endpoint.
    Endpoint(EndpointId),
    /// A publication that belongs to no endpoint.
    Publication(Key128),
}

impl Publication {
    /// What its tuple stands for.
    pub fn key(&self) -> TupleKey {
        self.endpoint.map_or(TupleKey::Publication(self.id), TupleKey::Endpoint)
    }

    /// Order by age: newest statement last. A refresh changes nothing of it, so it cannot make two devices take turns.
    fn age(&self) -> (Micros, Micros, Key128) {
        (self.since, self.updated, self.id)
    }

    /// Order of aggregation, the winner last: the user's last manual word, else the most available, else the newest.
    fn rank(&self) -> impl Ord {
        match self.state.source {
            Source::Manual => (1, Availability::Closed, self.age()),
            Source::Automatic => (0, self.state.availability, self.age()),
        }
    }
}

impl Facts {
    /// The facts without the publications that do not count: those of an endpoint that is not among the devices, and
    /// all but the newest of each endpoint. Publications come in the order of their ids, devices in that of theirs.
    pub fn counted(mut self) -> Self {
        let devices: BTreeSet<EndpointId> = self.devices.iter().map(|device| device.id).collect();
        let mut newest: BTreeMap<TupleKey, Publication> = BTreeMap::new();
        for publication in self.publications {
            if publication.endpoint.is_some_and(|endpoint| !devices.contains(&endpoint)) {
                continue;
            }
            match newest.entry(publication.key()) {
                Entry::Vacant(free) => {
                    free.insert(publication);
                }
                Entry::Occupied(mut other) if other.get().age() < publication.age() => {
                    other.insert(publication);
                }
                Entry::Occupied(_) => {}
            }
        }
        self.publications = newest.into_values().collect();
        self.publications.sort_unstable_by_key(|publication| publication.id);
        self.devices.sort_unstable_by_key(|device| device.id);
        self
    }
}

/// What a user's state is.
///
/// The user's last manual state wins over automatic ones; otherwise the most available publication, then the newest. A
/// device without a publication that counts is open without an activity and ranks below every published state but
/// `Closed`. Nothing at all is `Closed`. The result does not depend on the order of the facts.
pub fn aggregate(facts: &Facts) -> Aggregate {
    let facts = facts.clone().counted();
    let mut ranked: Vec<&Publication> = facts.publications.iter().collect();
    ranked.sort_by(|a, b| b.rank().cmp(&a.rank()));
    let mute = |device: &Device| facts.publications.iter().all(|p| p.endpoint != Some(device.id));
    let signed_in = facts.devices.iter().any(mute);
    let beaten = |winner: &&Publication| {
        signed_in && winner.state.source == Source::Automatic && winner.state.availability < Availability::SignedIn
    };
    let mut whole = match ranked.first().filter(|winner| !beaten(winner)) {
        Some(winner) => Aggregate {
            availability: winner.state.availability,
            activities: winner.state.activities.clone(),
            note: winner.state.note.clone(),
            since: Some(winner.since),
            tuples: Vec::new(),
        },
        None if signed_in => Aggregate { availability: Availability::SignedIn, ..Aggregate::default() },
        None => Aggregate { availability: Availability::Closed, ..Aggregate::default() },
    };
    let tuple = |p: &Publication| Tuple { key: p.key(), state: p.state.clone(), since: p.since };
    whole.tuples = ranked.into_iter().map(tuple).collect();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PHONE: EndpointId = EndpointId(1);
    const LAPTOP: EndpointId = EndpointId(2);

    fn device(id: EndpointId) -> Device {
        Device { id, registered: Micros(id.0) }
    }

    fn says(id: u8, endpoint: Option<EndpointId>, availability: Availability, since: u64) -> Publication {
        Publication {
            id: Key128([id; 16]),
            endpoint,
            state: State { availability, note: Some(id.to_string()), ..State::default() },
            document: Vec::new(),
            updated: Micros(since),
            since: Micros(since),
        }
    }

    fn manual(mut publication: Publication) -> Publication {
        publication.state.source = Source::Manual;
        publication
    }

    fn of(publications: Vec<Publication>, devices: &[EndpointId]) -> Aggregate {
        aggregate(&Facts { publications, devices: devices.iter().copied().map(device).collect() })
    }

    #[test]
    fn nobody_there_is_closed_and_a_silent_device_is_signed_in() {
        assert_eq!(of(vec![], &[]), Aggregate { availability: Availability::Closed, ..Aggregate::default() });
        let signed_in = Aggregate { availability: Availability::SignedIn, ..Aggregate::default() };
        assert_eq!(of(vec![], &[PHONE]), signed_in);
        assert_eq!(of(vec![], &[PHONE, LAPTOP]), signed_in, "a second silent device changes nothing");
    }

    #[test]
    fn most_available_then_newest() {
        let busy = says(1, Some(PHONE), Availability::Busy, 20);
        let available = says(2, Some(LAPTOP), Availability::Available, 10);
        let whole = of(vec![busy.clone(), available], &[PHONE, LAPTOP]);
        assert_eq!(
            (whole.availability, whole.since, whole.note.as_deref()),
            (Availability::Available, Some(Micros(10)), Some("2"))
        );
        assert_eq!(whole.tuples.iter().map(|t| t.key).collect::<Vec<_>>(), [LAPTOP, PHONE].map(TupleKey::Endpoint));
        let busy_too = says(3, Some(LAPTOP), Availability::Busy, 30);
        assert_eq!(of(vec![busy_too, busy], &[PHONE, LAPTOP]).note.as_deref(), Some("3"));
    }

    #[test]
    fn the_last_manual_state_wins() {
        let available = says(1, Some(PHONE), Availability::Available, 90);
        let away = manual(says(2, None, Availability::Away, 10));
        let busy = manual(says(3, Some(LAPTOP), Availability::Busy, 5));
        assert_eq!(of(vec![available.clone(), busy, away], &[PHONE, LAPTOP]).availability, Availability::Away);
        let hidden = manual(says(2, None, Availability::Closed, 10));
        assert_eq!(of(vec![available, hidden], &[PHONE, LAPTOP]).availability, Availability::Closed);
    }

    #[test]
    fn a_silent_device_beats_only_closed() {
        let closed = says(1, Some(PHONE), Availability::Closed, 10);
        let away = says(1, Some(PHONE), Availability::Away, 10);
        let whole = of(vec![closed.clone()], &[PHONE, LAPTOP]);
        assert_eq!((whole.availability, whole.since, whole.tuples.len()), (Availability::SignedIn, None, 1));
        assert_eq!(of(vec![closed], &[PHONE]).availability, Availability::Closed);
        assert_eq!(of(vec![away], &[PHONE, LAPTOP]).availability, Availability::Away);
    }

    #[test]
    fn only_the_newest_of_a_present_endpoint_counts() {
        let old = says(1, Some(PHONE), Availability::Available, 10);
        let new = says(2, Some(PHONE), Availability::Away, 20);
        let gone = says(3, Some(LAPTOP), Availability::Available, 30);
        let whole = of(vec![new, old, gone], &[PHONE]);
        assert_eq!((whole.availability, whole.tuples.len()), (Availability::Away, 1));
    }

    #[test]
    fn a_refresh_does_not_change_the_winner() {
        let mut first = says(1, Some(PHONE), Availability::Available, 10);
        let second = says(2, Some(LAPTOP), Availability::Available, 20);
        let before = of(vec![first.clone(), second.clone()], &[PHONE, LAPTOP]);
        first.updated = Micros(99);
        assert_eq!(of(vec![first, second], &[PHONE, LAPTOP]), before);
    }

    fn availability() -> impl Strategy<Value = Availability> {
        use Availability::{Available, Away, BeRightBack, Busy, Closed, DoNotDisturb, SignedIn};
        proptest::sample::select(vec![Closed, SignedIn, Away, BeRightBack, DoNotDisturb, Busy, Available])
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let publication =
            (0..4_u64, availability(), 0..20_u64, any::<bool>()).prop_map(|(endpoint, what, since, by_hand)| {
                let endpoint = (endpoint > 0).then_some(EndpointId(endpoint));
                let publication = says(0, endpoint, what, since);
                if by_hand { manual(publication) } else { publication }
            });
        let devices = proptest::collection::btree_set(1..4_u64, 0..4);
        (proptest::collection::vec(publication, 0..8), devices).prop_map(|(mut publications, devices)| {
            for (n, publication) in publications.iter_mut().enumerate() {
                publication.id = Key128([u8::try_from(n).unwrap(); 16]);
            }
            Facts { publications, devices: devices.into_iter().map(|id| device(EndpointId(id))).collect() }
        })
    }

    proptest! {
        #[test]
        fn order_does_not_matter(facts in facts(), seed in any::<u64>()) {
            let mut shuffled = facts.clone();
            let turn = |len: usize| usize::try_from(seed).unwrap() % len.max(1);
            shuffled.publications.rotate_left(turn(facts.publications.len()));
            shuffled.publications.reverse();
            shuffled.devices.reverse();
            prop_assert_eq!(aggregate(&shuffled), aggregate(&facts));
        }

        #[test]
        fn counting_twice_is_counting_once(facts in facts()) {
            let once = facts.clone().counted();
            prop_assert_eq!(aggregate(&once), aggregate(&facts));
            prop_assert_eq!(once.clone().counted(), once);
        }

        #[test]
        fn another_publication_never_makes_less_available(facts in facts(), what in availability()) {
            let mut more = facts.clone();
            more.publications.push(says(200, None, what, 50));
            let (before, after) = (aggregate(&facts).availability, aggregate(&more).availability);
            prop_assert!(after >= before, "{before:?} {after:?}");
        }

        #[test]
        fn one_more_silent_device_never_makes_less_available(facts in facts()) {
            let mut more = facts.clone();
            more.devices.push(device(EndpointId(77)));
            prop_assert!(aggregate(&more).availability >= aggregate(&facts).availability);
        }
    }
}
