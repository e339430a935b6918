//! Network namespaces joined by a cable: traffic, names, and that nothing is left behind. Needs root and Python.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use commpool_harness::command::output;
use commpool_harness::netns::Namespace;
use commpool_harness::process::{Process, Stream};
use commpool_harness::skip::{Need, can_run};

/// A name of this test run's own.
fn unique(name: &str) -> String {
    format!("commpool-test-{name}-{}", std::process::id())
}

/// Two namespaces with a cable between 198.18.9.1 and 198.18.9.2.
fn pair(name: &str) -> (Namespace, Namespace) {
    let near = Namespace::create(&unique(&format!("{name}-a"))).unwrap();
    let far = Namespace::create(&unique(&format!("{name}-b"))).unwrap();
    near.connect(("eth0", "198.18.9.1/30"), &far, ("eth0", "198.18.9.2/30")).unwrap();
    (near, far)
}

#[test]
fn programs_reach_each_other_over_the_cable_and_by_names_of_their_own() {
    if !can_run(
        "programs_reach_each_other_over_the_cable_and_by_names_of_their_own",
        &[Need::Root, Need::Program("python3")],
    ) {
        return;
    }
    let (near, far) = pair("names");
    let folder = tempfile::tempdir().unwrap();
    let serve = "import http.server as h; s=h.HTTPServer(('198.18.9.2',8080),h.SimpleHTTPRequestHandler); \
                 print('listens',flush=True); s.serve_forever()";
    let mut command = far.command("python3");
    command.args(["-c", serve]).current_dir(folder.path());
    let mut server = Process::start("server", folder.path(), &mut command).unwrap();
    server.wait_for_line(Stream::Out, Duration::from_secs(20), |line| line == "listens").unwrap();

    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "198.18.9.2 pool.example\n").unwrap();
    std::fs::write(folder.path().join("hello"), "reached").unwrap();
    let files: [(PathBuf, &str); 1] = [(hosts, "/etc/hosts")];
    let fetch =
        "import urllib.request as u; print(u.urlopen('http://pool.example:8080/hello',timeout=10).read().decode())";
    let got = output(near.command_with_files(&files, "python3").args(["-c", fetch])).unwrap();
    assert_eq!(got, "reached");
    // The machine's own file is as it was.
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap_or_default().contains("pool.example"));
}

#[test]
fn exit_codes_and_arguments_pass_through() {
    if !can_run("exit_codes_and_arguments_pass_through", &[Need::Root]) {
        return;
    }
    let (near, _far) = pair("codes");
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let mut command = near.command_with_files(&[(hosts, "/etc/hosts")], "sh");
    let status = command.args(["-c", r#"[ "$1" = "a b" ] && exit 7"#, "sh", "a b"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_dropped_namespace_is_gone_and_a_taken_name_refused() {
    if !can_run("a_dropped_namespace_is_gone_and_a_taken_name_refused", &[Need::Root]) {
        return;
    }
    let name = unique("dropped");
    let namespace = Namespace::create(&name).unwrap();
    assert!(Namespace::exists(&name));
    let error = Namespace::create(&name).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    drop(namespace);
    assert!(!Namespace::exists(&name));
    assert!(!output(Command::new("ip").args(["netns", "list"])).unwrap().contains(&name));
}
