//! Requests as they come at random: mostly of users, devices and front ends that exist, and now and then of others.

use std::collections::BTreeSet;

use commpool_model::config::DigestAlgorithm;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, Origin, UserRef, Version};
use commpool_model::presence::{Availability, Source, State};
use commpool_store::ops::register::{Binding, Contacts};
use commpool_store::ops::{
    Endpoint, FlowRef, Operation, Transport, accounts, adopt, assert, credentials, directory, endpoints, front_ends,
    presence, pull, register, route, subscribe,
};
use proptest::prelude::*;
use proptest::sample::select;

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Pass(u64),
    Back(u64),
    /// Writes that are handed over together.
    Batch(Vec<Operation>),
    Read(Box<Operation>),
    /// A replicator's run.
    Run(Vec<directory::Change>),
}

/// Name of the only source.
pub(crate) const SOURCE: &str = "directory";

fn address() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(|name| format!("{name}@example.com"))
}

/// Mostly users that exist.
fn user() -> impl Strategy<Value = UserRef> {
    (1..=4_u64).prop_map(UserRef::local)
}

fn fe() -> impl Strategy<Value = Incarnation> {
    (1..=3_u32).prop_map(Incarnation)
}

fn key() -> impl Strategy<Value = Key128> {
    // The first three octets make the endpoint id: two keys clash.
    select(vec![[1, 1, 1, 1], [1, 1, 1, 2], [2, 2, 2, 2], [3, 3, 3, 3], [4, 4, 4, 4]])
        .prop_map(|part: [u8; 4]| Key128(part.repeat(4).try_into().unwrap()))
}

fn small() -> impl Strategy<Value = u8> {
    1..=6_u8
}

fn flow() -> impl Strategy<Value = FlowRef> {
    let transport = select(vec![Transport::Udp, Transport::Tcp, Transport::Tls]);
    (fe(), 1..=4_u32, transport).prop_map(|(fe, serial, transport)| FlowRef {
        fe,
        serial,
        transport,
        remote: format!("192.0.2.{serial}:5060"),
    })
}

fn endpoint_of(user: UserRef, key: Key128) -> EndpointId {
    EndpointId::new(user.id, key, 0)
}

fn expires() -> impl Strategy<Value = u32> {
    select(vec![0, 10, 60, 3600])
}

fn binding() -> impl Strategy<Value = Binding> {
    let instance = proptest::option::of(select(vec!["urn:uuid:1", "urn:uuid:2"]));
    let reg_id = proptest::option::weighted(0.3, 1..=2_u32);
    (key(), 0..=1000_u16, proptest::collection::vec("<sip:[a-c]{1,3};lr>", 0..3), instance, reg_id, expires()).prop_map(
        |(key, q, path, instance, reg_id, expires)| Binding {
            key,
            contact: format!("sip:a@192.0.2.{}", key.0[0]),
            contact_value: format!("<sip:a@192.0.2.{}>;x=\"ä\"", key.0[0]),
            q,
            path,
            instance: instance.map(str::to_owned),
            reg_id,
            expires,
        },
    )
}

fn contacts() -> impl Strategy<Value = Contacts> {
    prop_oneof![
        8 => proptest::collection::vec(binding(), 1..4).prop_map(Contacts::Each),
        1 => Just(Contacts::RemoveAll),
        1 => Just(Contacts::Query),
    ]
}

fn register() -> impl Strategy<Value = Operation> {
    let unreachable = prop_oneof![3 => Just(Vec::new()), 1 => fe().prop_map(|fe| vec![fe])];
    let order = (small(), small(), 1..=3_u8);
    (user(), order, flow(), contacts(), unreachable).prop_map(|(user, order, flow, contacts, unreachable)| {
        let (origin, cseq, call) = order;
        register::Request {
            user,
            origin: Origin([origin; 16]),
            call_id: format!("call-{call}"),
            cseq: u32::from(cseq),
            flow,
            agent: "Client".to_owned(),
            contacts,
            unreachable,
        }
        .into()
    })
}

fn state() -> impl Strategy<Value = State> {
    use Availability::{Available, Away, Busy, Closed};
    let activities = proptest::collection::vec(select(vec!["away".to_owned(), "meeting".to_owned()]), 0..3);
    let source = select(vec![Source::Automatic, Source::Automatic, Source::Manual]);
    let note = proptest::option::of(select(vec![String::new(), "zwei\nZeilen".to_owned()]));
    (source, select(vec![Closed, Away, Busy, Available]), activities, note)
        .prop_map(|(source, availability, activities, note)| State { source, availability, activities, note })
}

fn publish() -> impl Strategy<Value = Operation> {
    let set = (expires(), state(), proptest::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(expires, state, document)| presence::Action::Set { expires, state: Box::new(state), document });
    let action = prop_oneof![
        5 => set,
        2 => expires().prop_map(|expires| presence::Action::Refresh { expires }),
        1 => Just(presence::Action::Remove),
    ];
    let tag = || small().prop_map(|n| Key128([n; 16]));
    let known = proptest::option::weighted(0.3, key());
    (user(), flow(), known, proptest::option::of(tag()), tag(), action).prop_map(
        |(user, flow, known, if_match, tag, action)| {
            let endpoint = known.map(|key| endpoint_of(user, key));
            presence::Publish { user, origin: Origin(tag.0), flow, endpoint, if_match, tag, action }.into()
        },
    )
}

fn subscribe() -> impl Strategy<Value = Operation> {
    let presentities = proptest::collection::vec(address(), 1..3);
    let held = proptest::collection::vec((user(), Just(Version(0))), 0..2);
    let from = proptest::option::of(key());
    (user(), fe(), small(), small(), any::<bool>(), from, presentities, held, expires(), 1..3_u32).prop_map(
        |(watcher, fe, origin, id, initial, from, presentities, held, expires, remote_cseq)| {
            subscribe::Request {
                watcher,
                watcher_address: "bob@example.com".to_owned(),
                origin: Origin([origin; 16]),
                fe,
                endpoint: from.map(|key| endpoint_of(watcher, key)),
                sub_id: Key128([id; 16]),
                initial,
                kind: subscribe::Kind::Presence,
                presentities,
                held,
                expires,
                first_cseq: remote_cseq * 500,
                dialog: subscribe::Dialog { remote_cseq, ..subscribe::Dialog::default() },
            }
            .into()
        },
    )
}

fn upkeep() -> impl Strategy<Value = Operation> {
    let flows = proptest::collection::vec((user(), 1..=4_u32), 1..3);
    let due =
        (fe(), proptest::collection::vec((user(), key(), small()), 0..6)).prop_map(|(fe, due)| endpoints::Expire {
            fe,
            endpoints: due.iter().map(|(user, key, _)| endpoint_of(*user, *key)).collect(),
            publications: due.iter().map(|(user, _, n)| (*user, Key128([*n; 16]))).collect(),
            subscriptions: due.iter().map(|(user, _, n)| (*user, Key128([*n; 16]))).collect(),
        });
    let of = || proptest::collection::vec((user(), key()), 0..3);
    prop_oneof![
        3 => (fe(), flows).prop_map(|(fe, flows)| endpoints::FlowsLost { fe, flows }.into()),
        3 => (fe(), 1..4_u32).prop_map(|(fe, limit)| endpoints::SweepLost { fe, limit }.into()),
        3 => due.prop_map(Operation::from),
        1 => (fe(), user(), proptest::option::of(of())).prop_map(|(fe, user, of)| {
            let ids = of.map(|of| of.iter().map(|(_, key)| endpoint_of(user, *key)).collect());
            register::Unregister { fe, user, endpoints: ids }.into()
        }),
        1 => (fe(), user(), small()).prop_map(|(fe, user, n)| {
            subscribe::End { fe, dialogs: vec![(user, Key128([n; 16]))] }.into()
        }),
        1 => (fe(), user()).prop_map(|(fe, user)| subscribe::Unwatch { fe, users: vec![user] }.into()),
    ]
}

fn front_end() -> impl Strategy<Value = Operation> {
    use front_ends::State::{Dead, Draining, Serving};
    prop_oneof![
        (small(), proptest::bool::weighted(0.3)).prop_map(|(n, alone)| {
            let text = String::new;
            let pod = "pod-0".to_owned();
            front_ends::Start { pod, start_id: [n; 16], address: text(), build: text(), alone }.into()
        }),
        (fe(), select(vec![Serving, Serving, Draining, Dead])).prop_map(|(fe, state)| front_ends::Renew {
            fe,
            state,
            load: front_ends::Load::default()
        }
        .into()),
        fe().prop_map(|fe| front_ends::Stop { fe }.into()),
        (fe(), fe())
            .prop_filter("another", |(by, target)| by != target)
            .prop_map(|(by, target)| { front_ends::Reap { by, target }.into() }),
    ]
}

/// What a front end holds: rows like those that [`register`], [`publish`] and [`subscribe`] make.
fn assertion() -> impl Strategy<Value = Operation> {
    let endpoint =
        (register(), 1..4_u64, proptest::bool::weighted(0.1)).prop_filter_map("a binding", |(of, ms, lost)| {
            let Operation::Register(register::Request { user, origin, call_id, cseq, flow, agent, contacts, .. }) = of
            else {
                return None;
            };
            let Contacts::Each(bindings) = contacts else { return None };
            let Binding { key, contact, contact_value, q, path, instance, reg_id, expires } =
                bindings.into_iter().next()?;
            let endpoint = Endpoint {
                id: endpoint_of(user, key),
                flow,
                lost_ms: lost.then_some(ms),
                contact,
                contact_value,
                q,
                path,
                instance,
                reg_id,
                agent,
                expires_ms: u64::from(expires) * 1000,
                age_ms: 20_000,
                call_id,
            };
            Some(assert::HeldEndpoint { key, origin, cseq, refreshed_ms: ms * 5000, endpoint })
        });
    let publication = (user(), small(), small(), proptest::option::of(key()), state(), expires(), 0..4_u64).prop_map(
        |(user, id, tag, of, state, expires, ms)| assert::HeldPublication {
            user,
            id: Key128([id; 16]),
            tag: Key128([tag; 16]),
            serial: 1,
            endpoint: of.map(|key| endpoint_of(user, key)),
            state,
            document: b"held".to_vec(),
            since_ms: ms * 6000,
            updated_ms: ms * 5000,
            expires_ms: u64::from(expires) * 1000,
        },
    );
    let subscription = (subscribe(), 0..4_u32).prop_filter_map("a dialog", |(of, steps)| {
        let Operation::Subscribe(request) = of else { return None };
        Some(assert::HeldSubscription {
            watcher: request.watcher,
            sub_id: request.sub_id,
            origin: request.origin,
            endpoint: request.endpoint,
            kind: request.kind,
            presentities: request.presentities,
            expires: request.expires,
            cseq: 500 + steps * subscribe::CSEQ_STEP,
            dialog: request.dialog,
        })
    });
    let some = || 0..3_usize;
    (
        fe(),
        proptest::collection::vec(endpoint, some()),
        proptest::collection::vec(publication, some()),
        proptest::collection::vec(user(), some()),
        proptest::collection::vec(subscription, some()),
    )
        .prop_map(|(fe, mut endpoints, mut publications, interest, mut subscriptions)| {
            let mut seen = BTreeSet::new();
            endpoints.retain(|held| seen.insert((held.endpoint.id.user(), held.key)));
            let mut ids = BTreeSet::new();
            endpoints.retain_mut(|held| {
                held.endpoint.flow.fe = fe;
                ids.insert(held.endpoint.id)
            });
            let mut seen = BTreeSet::new();
            publications.retain(|held| seen.insert((held.user, held.id)));
            let mut seen = BTreeSet::new();
            subscriptions.retain(|held| seen.insert((held.watcher, held.sub_id)));
            assert::Assert { fe, endpoints, publications, interest, subscriptions }.into()
        })
}

fn following() -> impl Strategy<Value = Operation> {
    let dialogs = proptest::collection::btree_map((user(), small()), (expires(), 0..3000_u32), 0..4);
    prop_oneof![
        2 => (fe(), user(), key(), 0..2000_u32, proptest::option::of(small())).prop_map(
            |(fe, user, key, first_cseq, after)| {
                let after = after.map(|n| Key128([n; 16]));
                adopt::Adopt { fe, endpoint: endpoint_of(user, key), first_cseq, held: vec![], after }.into()
            }
        ),
        1 => (fe(), dialogs).prop_map(|(fe, dialogs)| {
            let flushed = |((watcher, n), (expires, cseq))| adopt::Flushed {
                watcher,
                sub_id: Key128([n; 16]),
                expires,
                cseq,
            };
            adopt::Flush { fe, dialogs: dialogs.into_iter().map(flushed).collect() }.into()
        }),
        2 => assertion(),
    ]
}

fn account() -> impl Strategy<Value = Operation> {
    use accounts::State::{Disabled, On, Removed};
    let label = || select(vec!["main".to_owned(), "phone".to_owned()]);
    let state = proptest::option::of(select(vec![On, On, On, Disabled, Removed]));
    prop_oneof![
        2 => address().prop_map(|address| accounts::Put::Add { address, display_name: "Ä".to_owned() }.into()),
        2 => (address(), state).prop_map(|(address, state)| {
            accounts::Put::Change { address, state, display_name: Some("B".to_owned()) }.into()
        }),
        1 => (address(), label(), any::<bool>()).prop_map(|(address, label, both)| {
            let verifier = |algorithm| credentials::Verifier { algorithm, realm: "r".to_owned(), ha1: "0".repeat(32) };
            let mut verifiers = vec![verifier(DigestAlgorithm::Md5)];
            if both {
                verifiers.push(verifier(DigestAlgorithm::Sha256));
            }
            credentials::Put { address, label, verifiers }.into()
        }),
        1 => (address(), label()).prop_map(|(address, label)| credentials::Revoke { address, label }.into()),
    ]
}

/// Users as a directory wants them; of some addresses there are users added by hand.
fn wanted() -> impl Strategy<Value = Vec<directory::Change>> {
    use accounts::State::{Disabled, On};
    let name = select(vec!["alice", "carol", "dave", "erin"]);
    let address = proptest::option::weighted(0.9, name.prop_map(|name| format!("{name}@example.com")));
    let change = prop_oneof![
        6 => (address, select(vec![On, On, On, Disabled]), 1..4_u8).prop_map(|(address, state, n)| {
            let card = directory::Card { phone: format!("+{n}"), ..directory::Card::default() };
            let (key, fingerprint) = (Key128([0; 16]), Key128([n; 16]));
            directory::Change::Put { key, address, state, display_name: format!("D{n}"), card, fingerprint }
        }),
        3 => (1..9_u64).prop_map(|n| directory::Change::Lapse { key: Key128([0; 16]), purge_at: Micros(n) }),
        2 => Just(directory::Change::Remove { key: Key128([0; 16]) }),
    ];
    let keyed = |(n, mut change): (u8, directory::Change)| {
        let (directory::Change::Put { key, .. }
        | directory::Change::Lapse { key, .. }
        | directory::Change::Remove { key }) = &mut change;
        *key = Key128([n; 16]);
        change
    };
    proptest::collection::btree_map(small(), change, 0..7)
        .prop_map(move |changes| changes.into_iter().map(keyed).collect::<Vec<_>>())
        .prop_shuffle()
}

fn lease() -> impl Strategy<Value = Operation> {
    let (name, source) = (|| SOURCE.to_owned(), || SOURCE.to_owned());
    let (token, number) = (|| 0..4_u64, || 0..4_u32);
    prop_oneof![
        (1..40_000_u32).prop_map(move |ttl_ms| {
            directory::LeaseTake { name: name(), holder: "another".to_owned(), ttl_ms }.into()
        }),
        (token(), select(vec![0, 5000]))
            .prop_map(move |(token, ttl_ms)| { directory::LeaseKeep { name: name(), token, ttl_ms }.into() }),
        (token(), number(), wanted())
            .prop_map(move |(token, first, rows)| { directory::Stage { source: source(), token, first, rows }.into() }),
        (token(), token(), number()).prop_map(move |(token, version, rows)| {
            directory::Apply { source: source(), token, version, rows, state: vec![1] }.into()
        }),
    ]
}

fn read() -> impl Strategy<Value = Operation> {
    let after = || proptest::option::of((user(), key()).prop_map(|(user, key)| endpoint_of(user, key)));
    prop_oneof![
        (address(), address()).prop_map(|(target, sender)| route::Request { target, sender }.into()),
        fe().prop_map(|fe| presence::Of { fe, users: (1..=4).map(UserRef::local).collect() }.into()),
        address().prop_map(|address| credentials::Request { address }.into()),
        (proptest::option::of(address()), after(), 1..4_u32).prop_map(|(address, after, limit)| endpoints::Find {
            address,
            after,
            limit
        }
        .into()),
        (after(), proptest::option::of((user(), small())), 1..4_u32).prop_map(|(after, publication, limit)| {
            let after_publication = publication.map(|(user, n)| (user, Key128([n; 16])));
            endpoints::Timers { after, after_publication, limit }.into()
        }),
        (select(vec!["", "AL", "b"]), proptest::option::of(address()), 1..3_u32)
            .prop_map(|(text, after, limit)| { accounts::Find { text: text.to_owned(), after, limit }.into() }),
        proptest::option::of(Just(0_u64)).prop_map(|cursor| accounts::ChangedSince { cursor }.into()),
        Just(front_ends::List.into()),
        (proptest::option::of(small()), 1..4_u32).prop_map(|(after, limit)| {
            let after = after.map(|n| Key128([n; 16]));
            directory::SourceUsers { source: SOURCE.to_owned(), after, limit }.into()
        }),
        proptest::collection::vec(address(), 0..4).prop_map(|addresses| directory::Holders { addresses }.into()),
        (fe(), 1..4_u32).prop_map(|(fe, limit)| pull::Pull { fe, cursor: None, limit }.into()),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let write = prop_oneof![
        6 => register(),
        6 => publish(),
        3 => subscribe(),
        4 => upkeep(),
        3 => following(),
        1 => front_end(),
        2 => account(),
        1 => lease(),
    ];
    prop_oneof![
        3 => select(vec![0, 1, 9, 15, 36, 3600]).prop_map(Step::Pass),
        1 => (1..100_u64).prop_map(Step::Back),
        12 => proptest::collection::vec(write, 1..5).prop_map(Step::Batch),
        6 => read().prop_map(|operation| Step::Read(Box::new(operation))),
        4 => wanted().prop_map(Step::Run),
    ]
}
