//! A pool whose directory is a list of entries: what it is, what a run makes of it, how the store looks then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use commpool_model::config::{Directory, Ldap, Mapping, Removal};
use commpool_model::directory::{Outcome, RunResult};
use commpool_model::ids::{Key128, Micros};
use commpool_replicator::cycle::{self, Job};
use commpool_replicator::entry::Entry;
use commpool_replicator::fault::Fault;
use commpool_replicator::source::{Intake, Source};
use commpool_store::ops::accounts::{Find, Put, PutReply, State};
use commpool_store::ops::directory::{Known, SourceUsers};
use commpool_store::{SqliteOptions, Store};
use tokio_util::sync::CancellationToken;

/// When the tests begin, by the store's clock.
const START: u64 = 1_790_000_000_000_000;

/// A pool of the domain example.com.
pub(crate) struct Pool {
    pub(crate) store: Store,
    pub(crate) config: Directory,
    clock: Arc<AtomicU64>,
    _folder: Option<tempfile::TempDir>,
}

/// What a run reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) entries: Vec<Entry>,
    pub(crate) members: Vec<Entry>,
    /// Comes after the entries.
    pub(crate) fault: Option<Fault>,
}

impl Source for List {
    async fn read(&self, intake: &mut Intake) -> Result<(), Fault> {
        for entries in self.entries.chunks(7) {
            intake.take(entries.to_vec()).await?;
        }
        intake.take_members(&self.members).await?;
        self.fault.clone().map_or(Ok(()), Err)
    }
}

pub(crate) fn configuration() -> Directory {
    let ldap = Ldap {
        urls: vec!["ldaps://127.0.0.1:1".to_owned()],
        base_dn: "DC=example,DC=com".to_owned(),
        filter: Ldap::default_filter(),
        bind_dn_file: "/nowhere".into(),
        password_file: "/nowhere".into(),
        ca_file: "/nowhere".into(),
        page_size: 3,
        timeout_seconds: 30,
    };
    Directory { schedule: None, ldap, mapping: Mapping::default(), removal: Removal::default() }
}

impl Pool {
    /// In memory.
    pub(crate) fn new() -> Self {
        Self::with(|clock| (Store::memory(clock), None))
    }

    /// In SQLite.
    pub(crate) fn sqlite() -> Self {
        Self::with(|clock| {
            let folder = tempfile::tempdir().unwrap();
            (Store::open_sqlite(folder.path(), &SqliteOptions::default(), clock).unwrap(), Some(folder))
        })
    }

    /// Both kinds.
    pub(crate) fn both() -> [Self; 2] {
        [Self::new(), Self::sqlite()]
    }

    /// In memory, with a clock that goes.
    pub(crate) fn ticking() -> Self {
        let began = Instant::now();
        let passed = move || u64::try_from(began.elapsed().as_micros()).unwrap();
        Self::timed(passed, |clock| (Store::memory(clock), None))
    }

    /// With a clock that stands still unless it is told otherwise.
    fn with(open: impl FnOnce(commpool_store::Clock) -> (Store, Option<tempfile::TempDir>)) -> Self {
        Self::timed(|| 0, open)
    }

    fn timed(
        passed: impl Fn() -> u64 + Send + Sync + 'static,
        open: impl FnOnce(commpool_store::Clock) -> (Store, Option<tempfile::TempDir>),
    ) -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let told = Arc::clone(&clock);
        let (store, folder) = open(Arc::new(move || Micros(told.fetch_add(1, Ordering::SeqCst) + passed())));
        Self { store, config: configuration(), clock, _folder: folder }
    }

    /// Lets time pass.
    pub(crate) fn days(&self, days: u64) {
        self.clock.fetch_add(days * 86_400 * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn seconds(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn job(&self) -> Job {
        let domains = vec!["example.com".to_owned()];
        Job { store: self.store.clone(), config: self.config.clone(), domains, folder: None }
    }

    pub(crate) async fn run(&self, list: &List) -> Outcome {
        cycle::run_from(list.clone(), self.job(), "test", &CancellationToken::new()).await
    }

    /// A run that must come to its end, and a second one that must find nothing to do.
    pub(crate) async fn synced(&self, entries: &[Entry]) -> Outcome {
        let list = List { entries: entries.to_vec(), ..List::default() };
        let outcome = self.run(&list).await;
        assert_eq!(outcome.result, RunResult::Synced, "{outcome:?}");
        let again = self.run(&list).await;
        assert!(again.result == RunResult::Synced && !again.counts.any(), "{again:?}");
        outcome
    }

    /// Users that came from the directory, by key.
    pub(crate) async fn known(&self) -> BTreeMap<Key128, Known> {
        let asked = SourceUsers { source: "directory".to_owned(), after: None, limit: 1000 };
        let page = self.store.ask(asked).await.unwrap();
        assert!(!page.more);
        page.users.into_iter().map(|user| (user.key, user)).collect()
    }

    /// The same in few words: address (or `-`), and how it stands with him, in the order of the keys.
    pub(crate) async fn users(&self) -> Vec<String> {
        let known = self.known().await.into_values();
        known
            .map(|user| {
                let state = match (user.state, user.purge_at) {
                    (State::On, None) => "on",
                    (State::Disabled, None) => "off",
                    (State::Disabled, Some(_)) => "lapsed",
                    _ => "wrong",
                };
                format!("{} {state}", user.address.as_deref().unwrap_or("-").trim_end_matches("@example.com"))
            })
            .collect()
    }

    /// Name and card of the user with this address.
    pub(crate) async fn shown(&self, address: &str) -> String {
        let find = Find { text: address.to_owned(), after: None, limit: 1000 };
        let page = self.store.ask(find).await.unwrap();
        let account = page.accounts.into_iter().find(|account| account.address == address).unwrap();
        account.display_name
    }

    /// Adds a user by hand.
    pub(crate) async fn add_by_hand(&self, address: &str) {
        let put = Put::Add { address: address.to_owned(), display_name: String::new() };
        assert!(matches!(self.store.ask(put).await.unwrap(), PutReply::Done(_)));
    }
}

/// The key of the n-th entry.
pub(crate) fn key(n: u8) -> Vec<u8> {
    vec![n; 16]
}

/// The n-th entry, with `mail` and these attributes; an account that is on, unless they say otherwise.
pub(crate) fn person(n: u8, mail: &str, attributes: &[(&str, &[&str])]) -> Entry {
    let mut entry = Entry::new(&format!("CN=Person {n},DC=example,DC=com"), attributes);
    entry.add("objectGUID", vec![key(n)]);
    entry.add("mail", vec![mail.as_bytes().to_vec()]);
    if !entry.has("userAccountControl") {
        entry.add("userAccountControl", vec![b"512".to_vec()]);
    }
    entry
}

/// The n-th entry, of pN@example.com.
pub(crate) fn plain(n: u8) -> Entry {
    person(n, &format!("p{n}@example.com"), &[])
}

pub(crate) fn people(numbers: impl IntoIterator<Item = u8>) -> Vec<Entry> {
    numbers.into_iter().map(plain).collect()
}
