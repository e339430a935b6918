//! Plans by table, and against a model that knows no catalogue and no streams.

use std::collections::{BTreeMap, BTreeSet};

use commpool_store::ops::directory;
use commpool_store::ops::directory::Card;
use proptest::prelude::*;

use super::*;
use crate::catalogue::Catalogue;

const NOW: Micros = Micros(1_000_000_000_000);
const GRACE: u64 = 7 * 86_400;

fn policy() -> Policy {
    Policy { max_percent: 5, max_count: 50, grace: GRACE, release: String::new() }
}

fn key(n: u8) -> Key128 {
    Key128([n; 16])
}

fn found(n: u8, address: Option<&str>, enabled: Verdict) -> Found {
    Found {
        key: key(n),
        dn: format!("CN={n}"),
        address: address.map_or(Wanted::Nothing, |address| Wanted::Address(address.to_owned())),
        enabled,
        display_name: String::new(),
        card: Card::default(),
        fingerprint: key(0),
    }
}

fn known(address: Option<&str>, state: State, purge_at: Option<Micros>) -> Known {
    Known { address: address.map(str::to_owned), state, fingerprint: key(0), purge_at }
}

fn case(found: Option<Found>, known: Option<Known>, claim: Claim) -> Case {
    Case { key: key(1), found, known, claim, yields: false }
}

fn act(case: &Case) -> (Act, bool) {
    let step = decide(case, &policy(), NOW);
    (step.act, step.loss.is_some())
}

#[test]
fn one_user_through_his_life() {
    use Verdict::{No, Unsaid, Yes};
    let entry = |enabled| Some(found(1, Some("a@x"), enabled));
    let on = || Some(known(Some("a@x"), State::On, None));
    let off = || Some(known(Some("a@x"), State::Disabled, None));
    let lapsed = |at| Some(known(Some("a@x"), State::Disabled, Some(Micros(at))));
    for (what, case, expected) in [
        ("new", case(entry(Yes), None, Claim::Own), (Act::Add, false)),
        ("new and switched off", case(entry(No), None, Claim::Nobody), (Act::Ignore, false)),
        ("new and not in the group", case(entry(Unsaid), None, Claim::Nobody), (Act::Ignore, false)),
        ("as it was", case(entry(Yes), on(), Claim::Own), (Act::Keep, false)),
        ("switched off", case(entry(No), on(), Claim::Own), (Act::Disable, false)),
        ("still off", case(entry(No), off(), Claim::Own), (Act::Keep, false)),
        ("switched on", case(entry(Yes), off(), Claim::Own), (Act::Return, false)),
        ("out of the group", case(entry(Unsaid), on(), Claim::Nobody), (Act::Disable, true)),
        ("address taken away", case(Some(found(1, None, Yes)), on(), Claim::Nobody), (Act::Disable, true)),
        ("not found", case(None, on(), Claim::Nobody), (Act::Lapse, true)),
        ("off and not found", case(None, off(), Claim::Nobody), (Act::Lapse, true)),
        ("still not found", case(None, lapsed(NOW.0 + 1), Claim::Nobody), (Act::Keep, false)),
        ("grace over", case(None, lapsed(NOW.0), Claim::Nobody), (Act::Remove, false)),
        ("found again", case(entry(Yes), lapsed(NOW.0 - 1), Claim::Own), (Act::Return, false)),
        ("found again, switched off", case(entry(No), lapsed(NOW.0), Claim::Own), (Act::Change, false)),
        ("loser", case(entry(Yes), None, Claim::Rival("CN=2".to_owned())), (Act::Refuse, false)),
        ("known loser", case(entry(Yes), on(), Claim::Rival("CN=2".to_owned())), (Act::Disable, true)),
        ("of somebody else", case(entry(Yes), None, Claim::Stranger("added by hand".to_owned())), (Act::Refuse, false)),
    ] {
        assert_eq!(act(&case), expected, "{what}");
    }
}

#[test]
fn a_lapse_keeps_everything_for_the_grace() {
    let lost = case(None, Some(known(Some("a@x"), State::On, None)), Claim::Nobody);
    let step = decide(&lost, &policy(), NOW);
    assert_eq!(step.change, Some(Change::Lapse { key: key(1), purge_at: NOW.plus_seconds(GRACE) }));
}

#[test]
fn a_conflict_names_both_sides() {
    let entry = || Some(found(1, Some("a@x"), Verdict::Yes));
    let line = |claim| decide(&case(entry(), None, claim), &policy(), NOW).conflict.unwrap();
    assert_eq!(line(Claim::Rival("CN=2".to_owned())), "a@x: CN=2 has it, CN=1 asks for it too");
    assert_eq!(
        line(Claim::Stranger("added by hand".to_owned())),
        "a@x: CN=1 asks for it, but it is of a user added by hand: remove or rename that user"
    );
    let long = Claim::Rival("ä".repeat(1000));
    assert!(line(long).len() <= MAX_LINE);
}

#[test]
fn a_rename_drops_the_passwords_and_says_so() {
    let renamed =
        case(Some(found(1, Some("b@x"), Verdict::Yes)), Some(known(Some("a@x"), State::On, None)), Claim::Own);
    let step = decide(&renamed, &policy(), NOW);
    assert_eq!((step.act, step.drops_passwords, step.loss), (Act::Change, true, Some(Loss::Renamed)));
    let off = Case { known: Some(known(Some("a@x"), State::Disabled, None)), ..renamed };
    assert_eq!(decide(&off, &policy(), NOW).loss, Some(Loss::Renamed), "those of somebody who is off go too");
    let first = Case { known: Some(known(None, State::Disabled, None)), ..off };
    assert_eq!(decide(&first, &policy(), NOW).loss, None, "there are none without an address");
}

fn losing(users: u64, losing: u64) -> Tally {
    let mut tally = Tally::new(7);
    for n in 0..users {
        let known = Some(known(None, State::On, None));
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&n.to_be_bytes());
        let entry = (n >= losing).then(|| found(0, None, Verdict::Yes));
        let case = Case { key: Key128(octets), found: entry, known, claim: Claim::Nobody, yields: false };
        let step = Step { loss: (n < losing).then_some(Loss::Missing), ..Step::nothing(Act::Keep) };
        tally.add(&case, &step);
    }
    tally
}

#[test]
fn the_brake_holds_from_the_sixth_of_few_and_from_the_51st_of_many() {
    let held = |users, gone| losing(users, gone).held(&policy());
    assert_eq!([held(5, 5), held(10, 5), held(10, 6)], [false, false, true]);
    assert_eq!([held(200, 10), held(200, 11)], [false, true]);
    assert_eq!([held(2000, 50), held(2000, 51)], [false, true]);
    let all = Policy { max_percent: 100, max_count: 1_000_000, ..policy() };
    assert!(!losing(300, 300).held(&all));
    assert!(losing(300, 1).held(&Policy { max_count: 0, ..policy() }));
}

#[test]
fn a_digest_releases_its_plan_and_no_other() {
    let plan = losing(100, 20);
    let release = |digest: String| Policy { release: digest, ..policy() };
    assert_eq!((plan.digest().len(), plan.digest()), (16, losing(120, 20).digest()));
    assert!(!plan.held(&release(plan.digest())));
    assert!(plan.held(&release(losing(100, 21).digest())));
    assert!(plan.held(&release(String::new())));
}

#[test]
fn a_digest_names_what_is_lost() {
    let digest_at = |version, step: Step| {
        let mut tally = Tally::new(version);
        tally.add(&case(None, Some(known(Some("a@x"), State::On, None)), Claim::Nobody), &step);
        tally.digest()
    };
    let digest = |step| digest_at(7, step);
    let loss = |loss| Step { loss: Some(loss), ..Step::nothing(Act::Change) };
    let to = |address: &str| {
        let change = Some(row(&found(1, None, Verdict::Yes), Some(address.to_owned()), State::On));
        Step { change, ..loss(Loss::Renamed) }
    };
    let digests = [digest(loss(Loss::Missing)), digest(loss(Loss::Unsaid)), digest(to("b@x")), digest(to("c@x"))];
    assert_eq!(BTreeSet::from(digests.clone()).len(), digests.len());
    assert_eq!(digest(to("b@x")), digests[2]);
    assert_ne!(digest_at(8, loss(Loss::Missing)), digests[0], "what was applied since makes it another plan");
}

/// A directory and a store of few users who quarrel about few addresses.
#[derive(Clone, Debug)]
struct World {
    directory: BTreeMap<u8, (Option<u8>, Verdict)>,
    store: BTreeMap<u8, Known>,
    strangers: BTreeSet<u8>,
}

fn mail(n: u8) -> String {
    format!("u{n}@x")
}

fn worlds() -> impl Strategy<Value = World> {
    let verdict = prop_oneof![4 => Just(Verdict::Yes), 1 => Just(Verdict::No), 1 => Just(Verdict::Unsaid)];
    let directory = proptest::collection::btree_map(0_u8..8, (proptest::option::weighted(0.9, 0_u8..6), verdict), 0..8);
    let life = prop_oneof![
        3 => Just((State::On, None)),
        1 => Just((State::Disabled, None)),
        1 => Just((State::Disabled, Some(NOW))),
        1 => Just((State::Disabled, Some(Micros(NOW.0 + 1)))),
    ];
    let store = proptest::collection::btree_map(0_u8..8, (0_u8..6, any::<bool>(), life), 0..8);
    (directory, store, proptest::collection::btree_set(0_u8..6, 0..2)).prop_map(|(directory, store, strangers)| {
        let mut taken: BTreeSet<u8> = strangers.clone();
        let store = store.into_iter().filter_map(|(n, (address, old, (state, purge_at)))| {
            let address = taken.insert(address).then(|| mail(address));
            if address.is_none() && state == State::On {
                return None;
            }
            Some((n, Known { address, state, fingerprint: key(u8::from(old)), purge_at }))
        });
        World { directory, store: store.collect(), strangers }
    })
}

impl World {
    fn found(&self) -> Vec<Found> {
        let entries = self.directory.iter();
        entries.map(|(n, (address, enabled))| found(*n, address.map(mail).as_deref(), *enabled)).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let mut catalogue = Catalogue::new(None, false).unwrap();
        let mut entries = self.found();
        entries.reverse();
        assert_eq!(catalogue.add(&entries, true, &mut Vec::new()).unwrap(), entries.len() as u64);
        let users: Vec<directory::Known> = self.store.iter().map(|(n, known)| full(*n, known)).collect();
        catalogue.add_known(&users).unwrap();
        catalogue.settle().unwrap();
        let asked = catalogue.unknown_claims("", 1000).unwrap();
        let strangers = self.strangers.iter().map(|n| mail(*n)).filter(|address| asked.contains(address));
        let strangers: Vec<(String, String)> = strangers.map(|address| (address, "added by hand".to_owned())).collect();
        catalogue.add_strangers(&strangers).unwrap();
        let mut cases = Vec::new();
        loop {
            let page = catalogue.cases(cases.last().map(|case: &Case| case.key), 3).unwrap();
            if page.is_empty() {
                return cases;
            }
            cases.extend(page);
        }
    }

    /// Who gets an address, by looking at everybody.
    fn winner(&self, address: u8) -> Option<u8> {
        if self.strangers.contains(&address) {
            return None;
        }
        let asks = |n: &u8| {
            let (wanted, enabled) = self.directory[n];
            wanted == Some(address)
                && (enabled == Verdict::Yes || (enabled == Verdict::No && self.store.contains_key(n)))
        };
        let has = |n: &u8| self.store.get(n).is_some_and(|known| known.address == Some(mail(address)));
        let asking: Vec<u8> = self.directory.keys().copied().filter(asks).collect();
        let may = |n: &u8| self.directory[n].1 == Verdict::Yes;
        let first = |choose: &dyn Fn(&u8) -> bool| asking.iter().copied().find(|n| choose(n));
        first(&has).or_else(|| first(&may)).or_else(|| first(&|_| true))
    }

    /// The store after a run, as the rules say in words.
    fn expected(&self) -> BTreeMap<u8, (Option<String>, State, Option<Micros>)> {
        let mut after = BTreeMap::new();
        let keeps = |n: u8| {
            let had = self.store.get(&n)?.address.clone()?;
            let number: u8 = had[1..had.len() - 2].parse().unwrap();
            self.winner(number).is_none_or(|winner| winner == n).then_some(had)
        };
        for (n, (wanted, enabled)) in &self.directory {
            let won = wanted.filter(|address| self.winner(*address) == Some(*n)).map(mail);
            match (won, enabled, self.store.contains_key(n)) {
                (Some(address), Verdict::Yes, _) => after.insert(*n, (Some(address), State::On, None)),
                (won, _, true) => after.insert(*n, (won.or_else(|| keeps(*n)), State::Disabled, None)),
                (_, _, false) => None,
            };
        }
        for (n, known) in self.store.iter().filter(|(n, _)| !self.directory.contains_key(n)) {
            match known.purge_at {
                None => after.insert(*n, (keeps(*n), State::Disabled, Some(NOW.plus_seconds(GRACE)))),
                Some(due) if due <= NOW => None,
                Some(due) => after.insert(*n, (keeps(*n), State::Disabled, Some(due))),
            };
        }
        after
    }

    /// The store after these rows, as the store applies them.
    fn apply(&mut self, changes: &[Change]) {
        let taken: Vec<&String> = changes
            .iter()
            .filter_map(|change| if let Change::Put { address, .. } = change { address.as_ref() } else { None })
            .collect();
        for known in self.store.values_mut() {
            if known.address.as_ref().is_some_and(|address| taken.contains(&address)) {
                known.address = None;
            }
        }
        for change in changes {
            let n = change.key().0[0];
            match change {
                Change::Put { address, state, fingerprint, .. } => {
                    let known =
                        Known { address: address.clone(), state: *state, fingerprint: *fingerprint, purge_at: None };
                    self.store.insert(n, known);
                }
                Change::Lapse { purge_at, .. } => {
                    let known = self.store.get_mut(&n).unwrap();
                    (known.state, known.purge_at) = (State::Disabled, Some(*purge_at));
                }
                Change::Remove { .. } => drop(self.store.remove(&n).unwrap()),
            }
        }
    }
}

fn full(n: u8, known: &Known) -> directory::Known {
    directory::Known {
        key: key(n),
        user: commpool_model::ids::UserRef::local(u64::from(n)),
        address: known.address.clone(),
        state: known.state,
        fingerprint: known.fingerprint,
        purge_at: known.purge_at,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_are_those_of_the_model(world in worlds()) {
        let mut world = world;
        let expected = world.expected();
        let cases = world.cases();
        prop_assert!(cases.is_sorted_by(|a, b| a.key < b.key));
        let steps: Vec<Step> = cases.iter().map(|case| decide(case, &policy(), NOW)).collect();
        for (case, step) in cases.iter().zip(&steps) {
            let n = case.key.0[0];
            let was_on = case.known.as_ref().is_some_and(|known| known.state == State::On);
            let is_on = expected.get(&n).is_some_and(|(_, state, _)| *state == State::On);
            let said = case.found.as_ref().is_some_and(|found| found.enabled == Verdict::No);
            let missing = step.act == Act::Lapse;
            let loses_service = missing || was_on && !is_on && !said;
            prop_assert_eq!(step.loss == Some(Loss::Missing), missing);
            prop_assert_eq!(step.loss.is_some(), loses_service || step.drops_passwords);
            prop_assert_eq!(step.loss == Some(Loss::Renamed), step.drops_passwords && !loses_service);
            prop_assert_eq!(step.change.is_some(), !matches!(step.act, Act::Keep | Act::Ignore | Act::Refuse));
        }
        let changes: Vec<Change> = steps.into_iter().filter_map(|step| step.change).collect();
        world.apply(&changes);
        let after: BTreeMap<_, _> =
            world.store.iter().map(|(n, known)| (*n, (known.address.clone(), known.state, known.purge_at))).collect();
        prop_assert_eq!(&after, &expected);
        let addresses: Vec<&String> = after.values().filter_map(|(address, _, _)| address.as_ref()).collect();
        prop_assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
        prop_assert!(addresses.iter().all(|address| !world.strangers.iter().any(|n| mail(*n) == **address)));
        // A second run has nothing to do.
        let again: Vec<Change> = world.cases().iter().filter_map(|case| decide(case, &policy(), NOW).change).collect();
        prop_assert_eq!(again, Vec::new());
    }
}

#[test]
fn entries_with_one_key_are_told_and_the_lower_name_counts() {
    let mut catalogue = Catalogue::new(None, false).unwrap();
    let named = |dn: &str| Found { dn: dn.to_owned(), ..found(1, Some("a@x"), Verdict::Yes) };
    let mut twins = Vec::new();
    let new = catalogue.add(&[named("CN=b"), named("CN=a"), named("CN=c"), named("CN=a")], false, &mut twins).unwrap();
    assert_eq!((new, twins.len()), (1, 2));
    assert_eq!(twins[0], "CN=a and CN=b have the same key; the first counts");
    assert_eq!(catalogue.cases(None, 9).unwrap()[0].found.as_ref().unwrap().dn, "CN=a");
    // Of a key that is the directory's own, two names are one entry that was moved while it was read.
    catalogue.clear().unwrap();
    let mut twins = Vec::new();
    catalogue.add(&[named("CN=b"), named("CN=c")], true, &mut twins).unwrap();
    assert!(twins.is_empty());
    assert_eq!(catalogue.cases(None, 9).unwrap()[0].found.as_ref().unwrap().dn, "CN=c");
}

#[test]
fn only_members_may_sign_in_where_there_is_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalogue = Catalogue::new(Some(folder.path()), true).unwrap();
    let entries = [found(1, None, Verdict::Yes), found(2, None, Verdict::Yes), found(3, None, Verdict::No)];
    catalogue.add(&entries, true, &mut Vec::new()).unwrap();
    assert_eq!(catalogue.add_members(&[key(2), key(3), key(9), key(2)]).unwrap(), 2);
    let verdicts: Vec<Verdict> =
        catalogue.cases(None, 9).unwrap().into_iter().map(|case| case.found.unwrap().enabled).collect();
    assert_eq!(verdicts, [Verdict::Unsaid, Verdict::Yes, Verdict::No]);
    // The file has no name any more, so that nothing of it is left whatever happens.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let fault = Catalogue::new(Some(std::path::Path::new("/nowhere")), false).err().unwrap();
    assert!(fault.text.contains("no temporary file in /nowhere"), "{fault}");
}
