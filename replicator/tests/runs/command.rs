//! The program itself: what it prints, what it leaves behind, how it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use commpool_model::config::{
    Authentication, Drain, Edition, Listeners, LogConfig, Outward, Policy, PoolConfig, Schedule, SqliteStore,
    StoreConfig,
};
use commpool_model::directory::{Outcome, RunResult};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lists::{people, person};
use crate::stub::{Ask, Deed, Manner, Script, Stub};

/// A pool on disk, its directory a stub.
struct Place {
    folder: tempfile::TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new(stub: &Stub) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.point_at(stub, |_| ());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration anew, for another stub perhaps.
    fn point_at(&self, stub: &Stub, change: impl FnOnce(&mut PoolConfig)) {
        let mut directory = stub.configuration();
        directory.schedule = Some(Schedule { cron: "@hourly".to_owned(), time_zone: None, suspend: false });
        let mut config = PoolConfig {
            pool: "demo".to_owned(),
            edition: Edition::Standard,
            sip_domains: vec!["example.com".to_owned()],
            listeners: Listeners { udp: vec!["127.0.0.1:5060".parse().unwrap()], ..Listeners::default() },
            outward: Outward::default(),
            tls: None,
            key_file: self.path("key"),
            store: StoreConfig { sqlite: Some(SqliteStore { folder: self.path("data") }), postgres: None },
            peers: None,
            directory: Some(directory),
            drain: Drain::default(),
            authentication: Authentication::default(),
            policy: Policy::default(),
            management: None,
            log: LogConfig::default(),
        };
        change(&mut config);
        std::fs::write(self.path("config.yaml"), config.to_yaml().unwrap()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_commpool-replicator"));
        command.arg("--config").arg(self.path("config.yaml")).args(arguments).current_dir(self.folder.path());
        command.env_remove("COMMPOOL_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn say(&self, arguments: &[&str]) -> Said {
        let child = self.command(arguments).spawn().unwrap();
        finished(child).await
    }

    async fn run(&self) -> (i32, Outcome) {
        let said = self.say(&["run"]).await;
        (said.code, serde_json::from_str(&said.out).unwrap())
    }
}

async fn finished(child: Child) -> Said {
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_run_end_as_they_promise() {
    let stub = Stub::new(Manner { entries: people(1..=3), ..Manner::default() }).await;
    let place = Place::new(&stub);
    let plan = place.say(&["plan"]).await;
    assert_eq!((plan.code, plan.out.lines().count()), (10, 4), "{} {}", plan.out, plan.err);
    assert!(plan.out.starts_with("add       p1@example.com  CN=Person 1,DC=example,DC=com\n"), "{}", plan.out);
    assert!(plan.out.ends_with("3 entries: 3 added; 0 unchanged, 0 conflicts, 0 ignored\n"), "{}", plan.out);
    assert_eq!(place.run().await.0, 0);
    let plan = place.say(&["plan", "--format", "json"]).await;
    assert_eq!((plan.code, lines(&plan.out).len()), (0, 1));
    assert_eq!(lines(&plan.out)[0]["plan"]["counts"]["unchanged"], 3);
    let (code, outcome) = place.run().await;
    assert_eq!((code, outcome.message.as_str()), (0, "nothing to change"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_tells_every_kind_of_step() {
    let place = Place::new(&Stub::new(Manner { entries: people(1..=5), ..Manner::default() }).await);
    let before = Stub::new(Manner { entries: people(1..=5), ..Manner::default() }).await;
    place.point_at(&before, |_| ());
    place.run().await;
    let entries = vec![
        person(1, "new@example.com", &[]),
        person(2, "p2@example.com", &[("userAccountControl", &["2"])]),
        person(3, "P5@example.com", &[]),
        person(5, "p5@example.com", &[]),
        person(6, "p6@example.com", &[("displayName", &["Six"])]),
    ];
    let after = Stub::new(Manner { entries, ..Manner::default() }).await;
    place.point_at(&after, |_| ());
    let text = place.say(&["plan"]).await;
    assert_eq!(text.code, 10);
    for start in [
        "change    p1@example.com -> new@example.com  CN=Person 1,DC=example,DC=com  (the passwords",
        "disable   p2@example.com",
        "disable   p3@example.com",
        "conflict  p5@example.com: CN=Person 5,DC=example,DC=com has it, CN=Person 3",
        "missing   p4@example.com  (removed after 20",
        "add       p6@example.com",
    ] {
        assert!(text.out.lines().any(|line| line.starts_with(start)), "{start}\n{}", text.out);
    }
    let json = lines(&place.say(&["plan", "--format", "json"]).await.out);
    let steps: Vec<&str> = json.iter().filter_map(|line| line["step"].as_str()).collect();
    assert_eq!(steps, ["change", "disable", "disable", "missing", "add"]);
    assert_eq!(
        (&json[0]["dropsPasswords"], &json[0]["before"], &json[0]["address"]),
        (&Value::Bool(true), &"p1@example.com".into(), &"new@example.com".into())
    );
    let losing: Vec<bool> = json[..5].iter().map(|step| step["losing"] == true).collect();
    assert_eq!(losing, [true, false, true, true, false]);
    assert_eq!((&json[4]["displayName"], &json[4]["state"]), (&"Six".into(), &"on".into()));
    assert_eq!((&json[5]["plan"]["held"], &json[5]["plan"]["losing"]), (&Value::Bool(false), &3.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn held_is_said_by_plan_and_run_and_released_by_the_configuration() {
    let place = Place::new(&Stub::new(Manner::default()).await);
    let before = Stub::new(Manner { entries: people(1..=20), ..Manner::default() }).await;
    place.point_at(&before, |_| ());
    place.run().await;
    let after = Stub::new(Manner { entries: people(1..=10), ..Manner::default() }).await;
    place.point_at(&after, |_| ());
    let plan = place.say(&["plan", "--format", "json"]).await;
    let (code, outcome) = place.run().await;
    assert_eq!((plan.code, code, outcome.result), (11, 11, RunResult::DeletionHeld));
    assert_eq!(lines(&plan.out).last().unwrap()["plan"]["planDigest"], outcome.plan_digest.as_str());
    let digest = outcome.plan_digest;
    place.point_at(&after, |config| config.directory.as_mut().unwrap().removal.release_digest = digest);
    let (code, outcome) = place.run().await;
    assert_eq!((code, outcome.counts.missing), (0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_and_metrics_are_left_in_files() {
    let stub = Stub::new(Manner { entries: people(1..=3), ..Manner::default() }).await;
    let place = Place::new(&stub);
    let said = place.say(&["run", "--termination-log", "log", "--metrics-file", "metrics.prom"]).await;
    let left = std::fs::read_to_string(place.path("log")).unwrap();
    assert_eq!((said.code, said.out), (0, format!("{left}\n")));
    assert_eq!(serde_json::from_str::<Outcome>(&left).unwrap().counts.added, 3);
    let metrics = std::fs::read_to_string(place.path("metrics.prom")).unwrap();
    assert!(metrics.contains("commpool_directory_last_run_synced 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_told_in_the_log_too() {
    let stub = Stub::new(Manner::default()).await;
    let place = Place::new(&stub);
    place.point_at(&stub, |config| config.directory = None);
    for arguments in [&["check"][..], &["plan"]] {
        let said = place.say(arguments).await;
        assert_eq!(said.code, 2);
        assert!(said.err.contains("config.yaml: directory: is missing"), "{}", said.err);
    }
    place.say(&["run", "--termination-log", "log"]).await;
    let left: Outcome = serde_json::from_str(&std::fs::read_to_string(place.path("log")).unwrap()).unwrap();
    assert_eq!(left.result, RunResult::ConfigurationInvalid);
    assert!(left.message.contains("directory: is missing"), "{left:?}");
    assert_eq!(place.say(&["fly"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_as_well_as_the_directory_is() {
    let stub = Stub::new(Manner { entries: people(1..=3), ..Manner::default() }).await;
    let place = Place::new(&stub);
    let said = place.say(&["check"]).await;
    assert!(said.code == 0 && said.out.contains("good     users       3 entries"), "{} {}", said.out, said.err);
    std::fs::write(stub.configuration().ldap.password_file, "wrong").unwrap();
    let said = place.say(&["check", "--format", "json"]).await;
    let last = lines(&said.out).pop().unwrap();
    assert_eq!((said.code, &last["step"], &last["status"]), (1, &"bind".into(), &"failed".into()), "{last}");
    // It reads; a store it would write to is not even made.
    assert!(!place.path("data").exists());
}

/// Starts a run whose read never ends, and waits until it reads.
async fn reading(stub: &Stub, command: &mut Command) -> Child {
    let child = command.spawn().unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !stub.seen().iter().any(|ask| matches!(ask, Ask::Search { .. })) {
        assert!(tokio::time::Instant::now() < until, "it does not read");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child
}

fn silent_at_the_search() -> Script {
    Arc::new(|_, ask| matches!(ask, Ask::Search { .. }).then(|| vec![Deed::Silence]))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_stops_and_leaves_the_lease_to_the_next() {
    let stub = Stub::new(Manner { script: Some(silent_at_the_search()), ..Manner::default() }).await;
    let place = Place::new(&stub);
    let slow = reading(&stub, &mut place.command(&["run", "--holder", "slow one"])).await;
    let (code, outcome) = place.run().await;
    assert_eq!((code, outcome.result), (12, RunResult::Busy));
    assert!(outcome.message.contains("slow one"), "{outcome:?}");
    signal(&slow, Signal::TERM);
    let said = finished(slow).await;
    let outcome: Outcome = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, outcome.result), (1, RunResult::ReadIncomplete));
    let good = Stub::new(Manner { entries: people(1..=3), ..Manner::default() }).await;
    place.point_at(&good, |_| ());
    assert_eq!(place.run().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_it_leaves_nothing_behind_but_its_lease_and_that_is_waited_for() {
    let stub = Stub::new(Manner { script: Some(silent_at_the_search()), ..Manner::default() }).await;
    let place = Place::new(&stub);
    let scratch = tempfile::tempdir().unwrap();
    let mut slow = reading(&stub, place.command(&["run"]).env("TMPDIR", scratch.path())).await;
    signal(&slow, Signal::KILL);
    slow.wait().unwrap();
    assert_eq!(files_in(scratch.path()), 0);
    let good = Stub::new(Manner { entries: people(1..=3), ..Manner::default() }).await;
    place.point_at(&good, |_| ());
    // Most of its minute passes.
    let store = rusqlite::Connection::open(place.path("data").join("commpool.db")).unwrap();
    let lease: i64 = store.query_row("SELECT until FROM lease", [], |row| row.get(0)).unwrap();
    assert!(lease > 0, "the lease is held");
    assert_eq!(store.execute("UPDATE lease SET until = until - 55000000", []).unwrap(), 1);
    let (code, outcome) = place.run().await;
    assert_eq!((code, outcome.counts.added), (0, 3), "{outcome:?}");
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
