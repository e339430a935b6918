//! A server of one test's own with a pool's database, and short ways to say what is asked.

use std::future::Future;
use std::time::{Duration, Instant};

use commpool_harness::postgres::{Cluster, Settings, can_run};
use commpool_model::ids::{Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::{Availability, State};
use commpool_store::ops::accounts::{Put, PutReply};
use commpool_store::ops::front_ends::{Start, Started};
use commpool_store::ops::presence::{Action, Publish};
use commpool_store::ops::register::{Binding, Contacts, Request};
use commpool_store::ops::{FlowRef, Transport, route};
use commpool_store::{Store, StoreError};
use sqlx::PgConnection;

use crate::database::{as_server, connect, prepare};

/// Name of the database.
pub(crate) const NAME: &str = "pool";

/// Longest time until something asked is answered: what the database may take, and some for a busy machine.
pub(crate) const ANSWER: Duration = Duration::from_millis(3500);

/// Runs a test against a server of its own with a pool's database; not where there is no server.
pub(crate) fn with_cluster<F: Future<Output = ()>>(test: &str, settings: &Settings, run: impl FnOnce(Cluster) -> F) {
    if !can_run(test) {
        return;
    }
    let cluster = Cluster::start(settings).unwrap();
    cluster.sql("postgres", &format!("create database {NAME}")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        prepare(&cluster, NAME).await;
        run(cluster).await;
    });
}

pub(crate) fn open(cluster: &Cluster) -> Store {
    Store::open_postgres(as_server(cluster, NAME)).unwrap()
}

/// A connection of the superuser to the pool's database.
pub(crate) async fn superuser(cluster: &Cluster) -> PgConnection {
    connect(cluster, NAME).await
}

pub(crate) fn starting(n: u8) -> Start {
    Start {
        pod: format!("pod-{n}"),
        start_id: [n; 16],
        address: format!("10.0.0.{n}:5070"),
        build: "0.1.0".to_owned(),
        alone: false,
    }
}

pub(crate) async fn start(store: &Store, n: u8) -> Started {
    // Many that begin at once may find the machine busy.
    until(store, Duration::from_secs(30), || starting(n), Result::is_ok).await.unwrap()
}

pub(crate) async fn add(store: &Store, name: &str) -> UserRef {
    let put = Put::Add { address: format!("{name}@example.com"), display_name: String::new() };
    match store.ask(put).await.unwrap() {
        PutReply::Done(user) => user,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn register(user: UserRef, fe: Incarnation, device: u8, cseq: u32) -> Request {
    let binding = Binding {
        key: Key128([device; 16]),
        contact: format!("sip:a@192.0.2.{device}"),
        contact_value: format!("<sip:a@192.0.2.{device}>"),
        q: 1000,
        path: vec![],
        instance: None,
        reg_id: None,
        expires: 3600,
    };
    let mut origin = [device; 16];
    origin[..4].copy_from_slice(&cseq.to_be_bytes());
    Request {
        user,
        origin: Origin(origin),
        call_id: format!("call-{device}"),
        cseq,
        flow: FlowRef {
            fe,
            serial: u32::from(device),
            transport: Transport::Tls,
            remote: format!("192.0.2.{device}:40000"),
        },
        agent: "Client/1.0".to_owned(),
        contacts: Contacts::Each(vec![binding]),
        unreachable: Vec::new(),
    }
}

pub(crate) fn publish(user: UserRef, fe: Incarnation, device: u8, n: u32) -> Publish {
    let availability = if n.is_multiple_of(2) { Availability::Busy } else { Availability::Available };
    let mut tag = [device; 16];
    tag[..4].copy_from_slice(&n.to_be_bytes());
    Publish {
        user,
        origin: Origin(tag),
        flow: FlowRef { fe, serial: u32::from(device), transport: Transport::Tls, remote: String::new() },
        endpoint: None,
        if_match: None,
        tag: Key128(tag),
        action: Action::Set {
            expires: 3600,
            state: Box::new(State { availability, ..State::default() }),
            document: b"<presence/>".to_vec(),
        },
    }
}

pub(crate) fn route_to(name: &str) -> route::Request {
    route::Request { target: format!("{name}@example.com"), sender: "bob@example.com".to_owned() }
}

/// Asks until the answer is as wanted, for so long at most; every single one comes in time.
pub(crate) async fn until<T>(
    store: &Store,
    limit: Duration,
    request: impl Fn() -> T,
    wanted: impl Fn(&Result<T::Reply, StoreError>) -> bool,
) -> Result<T::Reply, StoreError>
where
    T: commpool_store::ops::Ask,
    T::Reply: std::fmt::Debug,
{
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = store.ask(request()).await;
        assert!(asked.elapsed() < ANSWER, "{:?} for {answer:?}", asked.elapsed());
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < limit, "still {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn is_away<R>(answer: &Result<R, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown(_)))
}

/// The reason of a refusal.
pub(crate) fn reason<R: std::fmt::Debug>(answer: Result<R, StoreError>) -> String {
    answer.unwrap_err().to_string()
}
