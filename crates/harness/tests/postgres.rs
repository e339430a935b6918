//! A PostgreSQL of our own: stopped, killed, standing still, and gone with whoever started it.

use std::thread;
use std::time::Duration;

use commpool_harness::postgres::{Cluster, Settings, can_run};

#[test]
fn a_server_is_stopped_killed_paused_and_leaves_nothing() {
    if !can_run("a PostgreSQL of our own") {
        return;
    }
    let mut cluster = Cluster::start(&Settings::default()).unwrap();
    let data = cluster.data();
    cluster.sql("postgres", "create table t (n int); insert into t values (7);").unwrap();
    cluster.stop().unwrap();
    assert!(cluster.sql("postgres", "select 1").is_err());
    cluster.start_again().unwrap();
    cluster.kill9().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(cluster.sql("postgres", "select n from t").unwrap(), "7");

    cluster.pause();
    thread::scope(|scope| {
        let asked = scope.spawn(|| cluster.sql("postgres", "select n + 1 from t"));
        thread::sleep(Duration::from_millis(300));
        assert!(!asked.is_finished(), "nobody answers");
        cluster.resume();
        assert_eq!(asked.join().unwrap().unwrap(), "8");
    });
    assert!(cluster.cpu() > Duration::ZERO);
    let port = cluster.port();
    drop(cluster);
    assert!(!data.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_folder_that_is_named_is_kept() {
    if !can_run("a PostgreSQL that is kept") {
        return;
    }
    let parent =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let settings = Settings { folder: Some(parent.path().join("kept")), ..Settings::default() };
    let cluster = Cluster::start(&settings).unwrap();
    cluster.sql("postgres", "create table t (n int); insert into t values (7);").unwrap();
    drop(cluster);
    let cluster = Cluster::start(&settings).unwrap();
    assert_eq!(cluster.sql("postgres", "select n from t").unwrap(), "7");
}
