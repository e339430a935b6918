//! What only the embedded store has: files, schema, lock, durability, other processes, queues.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use commpool_model::ids::{Incarnation, Key128, Origin, UserRef};
use commpool_store::ops::accounts::{ChangedSince, Find, Put, PutReply, State};
use commpool_store::ops::register::{Binding, Contacts, Reply, Request};
use commpool_store::ops::{Ask, FlowRef, HealthRequest, Operation, Outcome, Transport, credentials, front_ends, route};
use commpool_store::{
    DATABASE_FILE, LockError, SCHEMA, SqliteOptions, Store, StoreError, lock_folder, migrate, system_clock,
};
use rusqlite::Connection;

type Answer = Result<Outcome, StoreError>;

fn open(folder: &Path) -> Store {
    Store::open_sqlite(folder, &SqliteOptions::default(), system_clock()).unwrap()
}

fn impatient(folder: &Path) -> Store {
    let options = SqliteOptions { busy_timeout: Duration::from_millis(20), ..SqliteOptions::default() };
    Store::open_sqlite(folder, &options, system_clock()).unwrap()
}

fn database(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join(DATABASE_FILE)).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

/// Hands operations over at once; their answers come out of the channel with their numbers.
fn submit(store: &Store, operations: Vec<Operation>) -> mpsc::Receiver<(usize, Answer)> {
    let (answer, answers) = mpsc::channel();
    let jobs = operations.into_iter().enumerate().map(|(n, operation)| {
        let answer = answer.clone();
        // A test that has seen enough does not wait for the rest.
        let reply: commpool_store::Reply = Box::new(move |outcome| drop(answer.send((n, outcome))));
        (operation, reply)
    });
    store.submit_many(jobs.collect());
    answers
}

fn many(store: &Store, operations: Vec<Operation>) -> Vec<Answer> {
    let mut answers: Vec<_> = submit(store, operations).iter().collect();
    answers.sort_by_key(|(n, _)| *n);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn try_ask(store: &Store, operation: impl Into<Operation>) -> Answer {
    many(store, vec![operation.into()]).pop().unwrap()
}

fn ask<R: Ask>(store: &Store, request: R) -> R::Reply {
    R::reply(try_ask(store, request).unwrap()).unwrap()
}

fn add(name: &str) -> Put {
    Put::Add { address: format!("{name}@example.com"), display_name: String::new() }
}

fn start(store: &Store) -> Incarnation {
    let start_id = system_clock()().0.to_le_bytes().repeat(2).try_into().unwrap();
    let start = front_ends::Start {
        pod: "pod-0".to_owned(),
        start_id,
        address: String::new(),
        build: String::new(),
        alone: true,
    };
    ask(store, start).fe
}

fn register(user: UserRef, fe: Incarnation, n: u8) -> Request {
    let binding = Binding {
        key: Key128([n; 16]),
        contact: "sip:a@192.0.2.1".to_owned(),
        contact_value: "<sip:a@192.0.2.1>".to_owned(),
        q: 1000,
        path: vec![],
        instance: None,
        reg_id: None,
        expires: 3600,
    };
    Request {
        user,
        origin: Origin([n; 16]),
        call_id: "call".to_owned(),
        cseq: 1,
        flow: FlowRef { fe, serial: 1, transport: Transport::Udp, remote: "192.0.2.1:5060".to_owned() },
        agent: String::new(),
        contacts: Contacts::Each(vec![binding]),
        unreachable: Vec::new(),
    }
}

fn route_to(name: &str) -> route::Request {
    route::Request { target: format!("{name}@example.com"), sender: String::new() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn migrating_makes_the_store_once_and_for_its_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("deep/data");
    let report = migrate(&folder).unwrap();
    assert_eq!(
        (report.before, report.after, report.applied),
        (0, SCHEMA, vec!["0001_pool", "0002_refreshed", "0003_load", "0004_directory", "0005_expiry"])
    );
    assert_eq!((mode(&folder), mode(&folder.join(DATABASE_FILE))), (0o700, 0o600));
    let again = migrate(&folder).unwrap();
    assert_eq!((again.before, again.applied), (SCHEMA, vec![]));
}

#[test]
fn migrations_beside_each_other_do_the_work_once() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let reports: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| migrate(folder).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(reports.iter().map(|report| report.applied.len()).sum::<usize>(), SCHEMA as usize);
    ask(&open(folder), add("alice"));
}

#[test]
fn a_store_of_the_schema_before_keeps_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let file = Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    file.execute_batch("create table migration (version integer primary key, name text not null) strict").unwrap();
    let before = [
        include_str!("../src/sqlite/migrations/0001_pool.sql"),
        include_str!("../src/sqlite/migrations/0002_refreshed.sql"),
        include_str!("../src/sqlite/migrations/0003_load.sql"),
    ];
    for (version, text) in (1..).zip(before) {
        file.execute_batch(text).unwrap();
        file.execute("insert into migration values (?1, '')", [version]).unwrap();
    }
    file.execute_batch(
        "update pool set last_user = 1; insert into account values (1, 1, 'Alice', 5);
         insert into address values ('alice@example.com', 1)",
    )
    .unwrap();
    drop(file);
    let report = migrate(folder.path()).unwrap();
    assert_eq!((report.before, report.after, report.applied), (3, SCHEMA, vec!["0004_directory", "0005_expiry"]));
    let store = open(folder.path());
    let page = ask(&store, Find { limit: 10, ..Find::default() }).accounts;
    assert_eq!((page.len(), page[0].address.as_str(), page[0].managed), (1, "alice@example.com", false));
    let change = Put::Change { address: page[0].address.clone(), state: Some(State::Disabled), display_name: None };
    assert!(matches!(ask(&store, change), PutReply::Done(_)));
    assert!(matches!(ask(&store, add("bob")), PutReply::Done(user) if user.id.0 == 2));
}

#[test]
fn another_schema_is_refused_with_the_mend() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    migrate(folder).unwrap();
    database(folder).execute("insert into migration values (?1, 'of the future')", [SCHEMA + 1]).unwrap();
    let newer = StoreError::Schema { need: SCHEMA, found: SCHEMA + 1 };
    assert_eq!(migrate(folder).unwrap_err(), newer);
    let opened = |options: SqliteOptions| Store::open_sqlite(folder, &options, system_clock()).err().unwrap();
    assert_eq!(opened(SqliteOptions::default()), newer);
    assert!(newer.to_string().contains("newer") || newer.to_string().contains("new as"), "{newer}");

    database(folder).execute("delete from migration", []).unwrap();
    let older = opened(SqliteOptions::beside());
    assert_eq!(older, StoreError::Schema { need: SCHEMA, found: 0 });
    assert!(older.to_string().contains("commpool-server migrate"), "{older}");
}

#[test]
fn a_damaged_file_is_not_served_from() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let store = open(folder);
    many(&store, (0..500).map(|n| add(&format!("user-{n}")).into()).collect());
    store.close();
    let file = folder.join(DATABASE_FILE);
    let mut octets = fs::read(&file).unwrap();
    let middle = octets.len() / 2;
    octets[middle..middle + 8192].fill(0xaa);
    fs::write(&file, octets).unwrap();
    let error = Store::open_sqlite(folder, &SqliteOptions::default(), system_clock()).err().unwrap();
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
    fs::write(&file, b"this is no database, it is a letter to somebody").unwrap();
    let error = Store::open_sqlite(folder, &SqliteOptions::default(), system_clock()).err().unwrap();
    assert!(error.to_string().contains("commpool.db"), "{error}");
}

#[test]
fn one_server_per_folder_and_the_command_line_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("data");
    let lock = lock_folder(&folder).unwrap();
    let store = open(&folder);
    match lock_folder(&folder) {
        Err(error @ LockError::Held { pid: Some(pid), .. }) => {
            assert_eq!(pid, std::process::id());
            assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let beside = Store::open_sqlite(&folder, &SqliteOptions::beside(), system_clock()).unwrap();
    assert!(matches!(ask(&beside, add("alice")), PutReply::Done(_)));
    assert!(ask(&store, route_to("alice")).found.is_some());
    drop(lock);
    lock_folder(&folder).unwrap();
}

#[test]
fn only_batches_with_a_durable_request_wait_for_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let counts = || (store.stats().commits, store.stats().synced_commits);
    let fe = start(&store);
    assert_eq!(counts(), (1, 0));
    let PutReply::Done(alice) = ask(&store, add("alice")) else { panic!() };
    assert_eq!(counts(), (2, 1));
    for n in 1..=5 {
        ask(&store, register(alice, fe, n));
    }
    ask(&store, route_to("alice"));
    assert_eq!(counts(), (7, 1));
    let mixed = many(&store, vec![register(alice, fe, 6).into(), add("bob").into(), register(alice, fe, 7).into()]);
    assert!(mixed.iter().all(Result::is_ok));
    let (commits, synced) = counts();
    assert!(synced == 2 && (8..=9).contains(&commits), "{commits} {synced}");
}

/// The second half of [`what_was_answered_survives_a_killed_process`]: writes until it is killed.
#[test]
fn child_that_writes() {
    let Ok(folder) = std::env::var("COMMPOOL_TEST_FOLDER") else { return };
    let store = open(Path::new(&folder));
    let fe = start(&store);
    let PutReply::Done(alice) = ask(&store, add("alice")) else { panic!() };
    for n in 1..=8 {
        ask(&store, register(alice, fe, n));
    }
    let mut out = std::io::stdout();
    writeln!(out, "\nwritten").unwrap();
    out.flush().unwrap();
    std::thread::park();
}

#[test]
fn what_was_answered_survives_a_killed_process() {
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes", "--nocapture"])
        .env("COMMPOOL_TEST_FOLDER", root.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "written"));
    child.kill().unwrap();
    child.wait().unwrap();
    let target = ask(&open(root.path()), route_to("alice")).found.unwrap();
    assert_eq!(target.endpoints.len(), 8);
}

#[test]
fn changes_by_another_process_are_heard_of() {
    let root = tempfile::tempdir().unwrap();
    let server = open(root.path());
    let beside = Store::open_sqlite(root.path(), &SqliteOptions::beside(), system_clock()).unwrap();
    let changed = |cursor| ask(&server, ChangedSince { cursor });
    ask(&server, add("alice"));
    let mut cursor = changed(None).cursor;
    for round in 0..20 {
        for _ in 0..4 {
            assert_eq!(changed(Some(cursor)).accounts, [], "quiet, by whatever reader");
        }
        let verifier = credentials::Verifier {
            algorithm: commpool_model::config::DigestAlgorithm::Md5,
            realm: "example.com".to_owned(),
            ha1: format!("{round:032x}"),
        };
        let address = "alice@example.com".to_owned();
        let put = credentials::Put { address: address.clone(), label: "main".to_owned(), verifiers: vec![verifier] };
        let who = if round % 3 == 0 { &server } else { &beside };
        let credentials::PutReply::Done(stamp) = ask(who, put) else { panic!() };
        let seen = changed(Some(cursor));
        assert_eq!((seen.accounts.len(), seen.accounts[0].3), (1, stamp));
        let login = ask(&server, credentials::Request { address }).found.unwrap();
        assert_eq!((login.stamp, login.verifiers[0].ha1.clone()), (stamp, format!("{round:032x}")));
        cursor = seen.cursor;
    }
}

#[test]
fn two_processes_write_without_losing_anything() {
    let root = tempfile::tempdir().unwrap();
    let server = open(root.path());
    let beside = Store::open_sqlite(root.path(), &SqliteOptions::beside(), system_clock()).unwrap();
    std::thread::scope(|scope| {
        for (name, store) in [("server", &server), ("beside", &beside)] {
            scope.spawn(move || {
                for n in 0..100 {
                    assert!(matches!(ask(store, add(&format!("{name}-{n}"))), PutReply::Done(_)));
                }
            });
        }
    });
    let page = ask(&server, Find { limit: 1000, ..Find::default() });
    let mut ids: Vec<_> = page.accounts.iter().map(|account| account.user.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((page.accounts.len(), ids.len()), (200, 200));
}

#[test]
fn while_another_process_holds_the_lock_writes_fail_and_reads_do_not() {
    let root = tempfile::tempdir().unwrap();
    let store = impatient(root.path());
    ask(&store, add("alice"));
    let other = database(root.path());
    other.execute_batch("begin immediate").unwrap();
    assert!(matches!(try_ask(&store, add("bob")), Err(StoreError::Unavailable(_))));
    assert!(!ask(&store, HealthRequest).writable);
    assert!(ask(&store, route_to("alice")).found.is_some());
    other.execute_batch("rollback").unwrap();
    assert!(ask(&store, HealthRequest).writable);
    assert!(matches!(ask(&store, add("bob")), PutReply::Done(_)));
    let stats = store.stats();
    assert_eq!(stats.operation("account_put").unwrap().errors, 1);
}

#[test]
fn a_failing_row_does_not_take_the_batch_along() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let sql = "create trigger refuse before insert on address when new.address like 'bad%'
               begin select raise(abort, 'refused by a test'); end";
    database(root.path()).execute_batch(sql).unwrap();
    let names = ["alice", "bad", "bob", "bad-too", "carol"];
    let answers = many(&store, names.iter().map(|name| add(name).into()).collect());
    for (name, answer) in names.iter().zip(answers) {
        match answer {
            Ok(Outcome::AccountPut(PutReply::Done(_))) => assert!(!name.starts_with("bad")),
            Err(StoreError::Unavailable(why)) => assert!(name.starts_with("bad") && why.contains("refused by a test")),
            other => panic!("{name}: {other:?}"),
        }
    }
    let page = ask(&store, Find { limit: 10, ..Find::default() });
    let found: Vec<_> = page.accounts.iter().map(|account| account.address.as_str()).collect();
    assert_eq!(found, ["alice@example.com", "bob@example.com", "carol@example.com"]);
    let accounts: u32 = database(root.path()).query_row("select count(*) from account", [], |row| row.get(0)).unwrap();
    assert_eq!(accounts, 3, "nothing half-made is left");
}

#[test]
fn a_full_queue_answers_at_once() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    ask(&store, add("alice"));
    let other = database(root.path());
    other.execute_batch("begin immediate").unwrap();
    let fe = Incarnation(1);
    let unknown = UserRef::local(99);
    let soft = |count| -> Vec<Operation> { (0..count).map(|_| register(unknown, fe, 1).into()).collect() };
    // The writer holds a batch in its hands and waits for the lock; whatever it took, the queue is full after this.
    let waiting = submit(&store, soft(4096 + 128));
    let (_, busy) = waiting.recv_timeout(Duration::from_secs(1)).unwrap();
    assert_eq!(busy, Err(StoreError::Busy));
    assert!(ask(&store, route_to("alice")).found.is_some(), "reads have a queue of their own");
    let durable = submit(&store, vec![add("bob").into()]);
    other.execute_batch("rollback").unwrap();
    let (_, added) = durable.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(
        matches!(added, Ok(Outcome::AccountPut(PutReply::Done(_)))),
        "durable requests are counted apart: {added:?}"
    );
    let carried_out = waiting.iter().filter(|(_, answer)| matches!(answer, Ok(Outcome::Register(Reply::Gone)))).count();
    assert!(carried_out >= 4096);
    assert!(store.stats().refused > 0);
}

#[test]
fn closing_carries_out_what_is_queued() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let answers = submit(&store, (0..1000).map(|n| add(&format!("user-{n}")).into()).collect());
    store.close();
    assert_eq!(answers.iter().filter(|(_, answer)| answer.is_ok()).count(), 1000);
    for operation in [Operation::from(add("late")), route_to("late").into()] {
        assert!(matches!(try_ask(&store, operation), Err(StoreError::Unavailable(_))));
    }
    store.close();
    let page = ask(&open(root.path()), Find { limit: 1000, ..Find::default() });
    assert_eq!((page.accounts.len(), page.more), (1000, false));
}

#[test]
fn the_last_handle_may_go_inside_a_reply() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (done, seen) = mpsc::channel();
    let last = store.clone();
    let reply: commpool_store::Reply = Box::new(move |answer| {
        drop(last);
        done.send(answer).unwrap();
    });
    let operation = Put::Change { address: "a@example.com".to_owned(), state: Some(State::On), display_name: None };
    store.submit(operation.into(), reply);
    drop(store);
    assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), Ok(Outcome::AccountPut(PutReply::NotFound)));
}

#[tokio::test]
async fn calls_are_awaited() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    assert!(matches!(store.ask(add("alice")).await, Ok(PutReply::Done(_))));
    assert!(store.ask(route_to("alice")).await.unwrap().found.is_some());
    let called = store.call(HealthRequest.into()).await;
    assert!(matches!(called, Ok(Outcome::Health(health)) if health.writable));
}
