//! The two commands of the README as somebody types them: `cargo xtask run`, and `cargo xtask cluster up` with what it
//! says to go on with.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::command::output;
use commpool_harness::process::{Process, Stream};
use commpool_harness::skip::not_run;
use commpool_tests::client::{Client, Device, Identity, expect};
use commpool_tests::link::{Target, Transport};
use commpool_tests::secrets::Secrets;
use commpool_tests::server::{Ready, own_address};
use rustix::process::Signal;

/// Building what is built, and starting.
const START: Duration = Duration::from_secs(300);
/// SIGINT is to be obeyed in 5 s.
const END: Duration = Duration::from_secs(15);

/// `cargo xtask …` from the top of the workspace.
fn xtask(workspace: &Workspace, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(workspace.binary("xtask")?);
    command.args(arguments).current_dir(workspace.root()).env_remove("CARGO_MANIFEST_DIR");
    Ok(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_on_a_laptop() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let listen = own_address().to_string();
    let run = ["run", "--json", "--listen", &listen, "--data", &data];
    let mut process = Process::start("run", folder.path(), &mut xtask(&Workspace::find()?, &run)?)?;
    let line = process.wait_for_line(Stream::Out, START, |line| line.starts_with('{'))?;
    let ready: Ready = serde_json::from_str(&line).with_context(|| format!("unexpected line {line}"))?;
    let secrets = Secrets::default();
    let target = Target {
        transport: Transport::Tls,
        address: *ready.addresses.get("tls").context("no TLS")?,
        server_name: ready.domain.clone(),
        ca: Some(ready.ca.clone()),
        network: None,
    };
    let mut people = Vec::new();
    for user in &ready.users {
        let password = user.password.clone().context("a password that is not shown")?;
        let identity = Identity { user: user.user.clone(), password, domain: ready.domain.clone() };
        let person = Client::connect(&identity, &target, Device::Plain, &secrets).await?;
        person.sign_in().await?;
        people.push(person);
    }
    let [alice, bob] = &people[..] else { anyhow::bail!("not two demo users: {line}") };
    expect(alice.say(&bob.aor(), "hello from the laptop").await?, 200)?;
    bob.hears("hello from the laptop").await?;
    process.signal(Signal::INT)?;
    let status = process.wait(END)?;
    ensure!(status.code() == Some(0), "Ctrl-C: {status}\n{}", process.text(Stream::Err));
    Ok(())
}

#[test]
fn one_command_on_a_cluster() -> Result<()> {
    let Some(name) = std::env::var("COMMPOOL_CLUSTER").ok().filter(|name| !name.is_empty()) else {
        not_run(
            "one command on a cluster",
            "COMMPOOL_CLUSTER names none; `cargo xtask test --only cluster` brings one up",
        );
        return Ok(());
    };
    let workspace = Workspace::find()?;
    let up = || {
        let said = xtask(&workspace, &["cluster", "--name", &name, "up", "--yes"])?.output()?;
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.success(), "up: {}\n{errors}", said.status);
        Ok((String::from_utf8_lossy(&said.stdout).into_owned(), errors))
    };
    let (said, _) = up()?;
    // It is the user who types what is shown; COMMAND is his.
    let shown = said.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
    let shown: Vec<&str> = shown.map(|line| line.split("   (").next().unwrap_or(line)).collect();
    ensure!(shown.len() == 4, "not what to go on with: {said}");
    let typed = |line: &str| {
        let line = line.replace("COMMAND", "getent hosts example.com");
        output(&mut xtask(&workspace, &line.split_whitespace().collect::<Vec<_>>())?)
    };
    let pools = typed(shown[0])?;
    ensure!(pools.contains("demo"), "kubectl does not show the sample: {pools}");
    let added = typed(shown[1])?;
    ensure!(added.contains("alice@example.com") && added.contains("password"), "alice was not added: {added}");
    let vip = format!(
        "cluster --name {name} exec kubectl get service demo -o jsonpath={{.status.loadBalancer.ingress[0].ip}}"
    );
    let (found, vip) = (typed(shown[2])?, typed(&vip)?);
    ensure!(!vip.is_empty() && found.starts_with(&vip), "a client's machine finds the pool at {found}, not at {vip}");
    ensure!(shown[3].ends_with(" down"), "how to end it: {}", shown[3]);
    let status = typed(&format!("cluster --name {name} status"))?;
    ensure!(status.contains(&format!("cluster {name}: up")), "{status}");
    let (_, errors) = up()?;
    ensure!(!errors.contains("images: ready"), "what the node has was loaded again:\n{errors}");
    typed(&format!("cluster --name {name} exec kubectl delete cpool demo")).map(drop)
}
