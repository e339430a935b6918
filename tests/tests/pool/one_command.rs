//! `run --front-ends N`: a pool in one command, all front ends on one address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commpool_harness::postgres::{Cluster, Settings};
use commpool_harness::process::{Process, Stream};
use commpool_harness::wait;
use commpool_tests::client::{Client, Device, Identity, PATIENCE, expect, unique};
use commpool_tests::http;
use commpool_tests::link::{Target, Transport};
use commpool_tests::roamer::Roamer;
use commpool_tests::secrets::Secrets;
use commpool_tests::server::{Setup, binary, own_address};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

const START: Duration = Duration::from_secs(60);
/// All of it ends within a few seconds.
const END: Duration = Duration::from_secs(10);
const USERS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    domain: String,
    addresses: BTreeMap<String, SocketAddr>,
    ca: PathBuf,
    front_ends: Vec<FrontEnd>,
    users: Vec<User>,
}

#[derive(Debug, Deserialize)]
struct FrontEnd {
    management: SocketAddr,
    tcp: SocketAddr,
    config: PathBuf,
    pid: u32,
}

#[derive(Debug, Deserialize)]
struct User {
    user: String,
    password: String,
}

fn command(database: &Cluster, folder: &Path, listen: SocketAddr) -> Result<Command> {
    let password = folder.join("superuser");
    std::fs::write(&password, database.password())?;
    let mut command = Command::new(binary(&Setup::default())?);
    command.args(["run", "--json", "--front-ends", "3", "--domain", "commpool.test", "--listen", &listen.to_string()]);
    command.arg("--data").arg(folder.join("data")).arg("--postgres-password").arg(&password);
    command.arg("--postgres").arg(format!("{}:{}", database.host(), database.port()));
    for user in USERS {
        command.arg("--user").arg(format!("{user}:{}", unique("password")));
    }
    Ok(command)
}

impl Ready {
    fn identity(&self, user: &str) -> Result<Identity> {
        let found = self.users.iter().find(|one| one.user == user).context("no such user")?;
        Ok(Identity { user: user.to_owned(), password: found.password.clone(), domain: self.domain.clone() })
    }

    fn target(&self, transport: Transport) -> Result<Target> {
        let address = *self.addresses.get(transport.name()).context("no address")?;
        let (server_name, ca) = (self.domain.clone(), Some(self.ca.clone()));
        Ok(Target { transport, address, server_name, ca, network: None })
    }

    /// Front ends of all devices signed in.
    fn front_ends_in_use(&self) -> Result<BTreeSet<String>> {
        let mut command = Command::new(binary(&Setup::default())?);
        command.args(["endpoints", "list", "--json", "--config"]).arg(&self.front_ends[0].config);
        let listed = wait::until("endpoints list", Duration::from_secs(15), || {
            let output = command.output()?;
            Ok(output.status.success().then_some(output.stdout))
        })?;
        let rows = String::from_utf8(listed)?;
        let rows = rows.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(rows.iter().filter(|row| row["lostSeconds"].is_null()).map(|row| row["frontEnd"].to_string()).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_share_an_address_and_one_may_die() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = Cluster::start(&Settings::default())?;
    database.make_database("commpool")?;
    let listen = SocketAddr::new(own_address(), 5060);
    let mut pool = Process::start("pool", folder.path(), &mut command(&database, folder.path(), listen)?)?;
    let line = pool.wait_for_line(Stream::Out, START, |line| line.starts_with('{'))?;
    let ready: Ready = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(ready.front_ends.len() == 3, "{line}");
    let target = ready.target(Transport::Tls)?;
    let back_to = target.clone();
    let (mut people, secrets) = (Vec::new(), Secrets::default());
    for user in USERS {
        let device = Device::Instance(format!("urn:{}", unique("device")));
        let client = Client::connect(&ready.identity(user)?, &target, device, &secrets).await?;
        client.sign_in().await?;
        let target = back_to.clone();
        people.push(Roamer::of(client, Arc::new(move || Some(target.clone()))));
    }
    // The kernel deals them out; that six come to one only happens once in hundreds of times.
    let in_use = ready.front_ends_in_use()?;
    ensure!(in_use.len() > 1, "all came to one front end: {in_use:?}");
    everybody_talks(&people).await?;

    let killed = &ready.front_ends[1];
    let pid = Pid::from_raw(i32::try_from(killed.pid)?).context("no process")?;
    kill_process(pid, Signal::KILL)?;
    let again = || Ok(http::get(killed.management, "/readyz").is_ok_and(|(status, _)| status == 200).then_some(()));
    wait::until("the killed one being ready again", START, again)?;
    everybody_talks(&people).await?;

    // Without sharing, somebody else's address is somebody else's.
    let second = tempfile::tempdir()?;
    let refused = command(&database, second.path(), listen)?.output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(3) && said.contains("is taken by commpool-server"), "{refused:?}");
    let beside = SocketAddr::new(killed.tcp.ip(), killed.tcp.port());
    let alone = Command::new(binary(&Setup::default())?)
        .args(["run", "--listen", &beside.to_string(), "--data"])
        .arg(second.path().join("alone"))
        .output()?;
    ensure!(alone.status.code() == Some(3), "a second server shares a port: {alone:?}");

    pool.signal(Signal::INT)?;
    let status = pool.wait(END)?;
    ensure!(status.success(), "ended with {status}");
    for one in &ready.front_ends {
        ensure!(http::get(one.management, "/healthz").is_err(), "{} outlived the command", one.management);
    }
    let log = pool.text(Stream::Err);
    ensure!(log.contains("front end 2 ended") && !log.contains("panicked at"), "{log}");
    Ok(())
}

async fn everybody_talks(people: &[Roamer]) -> Result<()> {
    for from in people {
        for to in people {
            let text = unique("text ");
            let start = std::time::Instant::now();
            // Right after a death somebody may be on his way back.
            loop {
                let (answer, _) = from.say(&to.aor(), &text).await?;
                if answer.status() == Some(200) {
                    break;
                }
                ensure!(start.elapsed() < PATIENCE, "{} does not reach {}:\n{answer}", from.aor(), to.aor());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            ensure!(to.times_heard(&text)? >= 1, "answered 200 and not heard by {}", to.aor());
        }
    }
    expect(people[0].now().exchange(people[0].now().query()).await?, 200).map(drop)
}
