//! Standard Edition replicates by itself: at its first start, and at once when its configuration changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commpool_harness::directory::{Kind, Person, people};
use commpool_harness::process::{Process, Stream};
use commpool_harness::wait;
use commpool_model::directory::{Outcome, RunResult};
use commpool_tests::client::{Client, Device, Identity, PATIENCE, expect};
use commpool_tests::directory::{Section, directory};
use commpool_tests::http;
use commpool_tests::link::Transport;
use commpool_tests::server::{DOMAIN, Server, Setup, binary};
use commpool_tests::watch::Notice;

use crate::ready;

/// A server may take as long to start, to see another configuration, and to run.
const LIMIT: Duration = Duration::from_secs(60);
/// People beside the usual ones.
const CROWD: u32 = 30;

/// `serve` with a configuration that a test changes.
struct Served {
    process: Process,
    config: PathBuf,
    base: String,
    management: SocketAddr,
}

impl Served {
    fn start(base: String, section: &Section, management: SocketAddr, folder: &Path) -> Result<Self> {
        let config = folder.join("served.yaml");
        std::fs::write(&config, format!("{base}{}", section.yaml(true)))?;
        let mut command = Command::new(binary(&Setup::default())?);
        command.arg("serve").arg("--config").arg(&config).env("COMMPOOL_LOG", "debug");
        let process = Process::start("served", folder, &mut command)?;
        Ok(Self { process, config, base, management })
    }

    /// Puts another configuration in place, as an editor does.
    fn configure(&self, section: &Section) -> Result<()> {
        let new = self.config.with_extension("new");
        std::fs::write(&new, format!("{}{}", self.base, section.yaml(true)))?;
        Ok(std::fs::rename(new, &self.config)?)
    }

    /// Waits for an outcome, as the management port shows it.
    fn outcome(&mut self, what: &str, so: impl Fn(&Outcome) -> bool) -> Result<Outcome> {
        let mut last = String::new();
        let found = wait::until(what, LIMIT, || {
            if let Some(status) = self.process.try_status()? {
                anyhow::bail!("the server ended: {status}");
            }
            let Ok((200, text)) = http::get(self.management, "/directory") else { return Ok(None) };
            let outcome: Outcome = serde_json::from_str(&text).with_context(|| text.clone())?;
            last = text;
            Ok(so(&outcome).then_some(outcome))
        });
        found.with_context(|| format!("last outcome: {last}\n{}", self.process.text(Stream::Err)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_edition_replicates_by_itself() -> Result<()> {
    if !ready("standard_edition_replicates_by_itself") {
        return Ok(());
    }
    let kind = Kind::Samba;
    let lab = directory(kind, 0)?;
    lab.add(&people::demo(DOMAIN))?;
    lab.add(&(0..CROWD).map(|number| Person::numbered(number, DOMAIN)).collect::<Vec<_>>())?;
    // Makes what a server needs, and is then replaced by one with a directory.
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let first = Server::with(Setup { data: Some(data), ..Setup::default() })?;
    let (target, secrets) = (first.target(Transport::Tls)?, first.secrets().clone());
    let management = *first.ready().addresses.get("management").context("no management port")?;
    let config = first.ready().config.clone();
    first.finish()?;
    let mut section = Section::of(lab.access());
    let mut served = Served::start(std::fs::read_to_string(config)?, &section, management, folder.path())?;

    // Four of the people were added by hand before, and stay what they are.
    let outcome = served.outcome("the first run", |_| true)?;
    ensure!(outcome.result == RunResult::Synced && outcome.counts.added == u64::from(CROWD) + 6, "{outcome:?}");
    ensure!(outcome.counts.conflicts == 4, "{outcome:?}");

    let passwd = |login: &str| -> Result<Identity> {
        let mut command = Command::new(binary(&Setup::default())?);
        let told = command.args(["user", "passwd", login, "--config"]).arg(&served.config).output()?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let text = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let password = text.rsplit(' ').next().context("no password")?.to_owned();
        Ok(Identity { user: login.to_owned(), password, domain: DOMAIN.to_owned() })
    };
    let client = async |login: &str| -> Result<Client> {
        let client = Client::connect(&passwd(login)?, &target, Device::Plain, &secrets).await?;
        client.sign_in().await?;
        Ok(client)
    };
    let (yuki, noa) = (client("yuki").await?, client("noa").await?);
    expect(yuki.say(&noa.aor(), "good morning").await?, 200)?;
    noa.hears("good morning").await?;
    let mut watch = noa.watch(&yuki.aor()).await?;
    noa.notice(&mut watch, "open", PATIENCE, Notice::is_open).await?;
    lab.apply(&kind.enable("yuki", false))?;
    section.removal = "graceDays: 8".to_owned();
    served.configure(&section)?;
    served.outcome("the run after a change", |outcome| outcome.counts.disabled == 1)?;
    noa.notice(&mut watch, "closed", PATIENCE, Notice::is_closed).await?;
    expect(noa.say(&yuki.aor(), "still there?").await?, 480)?;

    let gone: Vec<String> = (0..20).map(|number| Person::numbered(number, DOMAIN).login).collect();
    lab.delete(gone.iter().map(String::as_str))?;
    section.removal = "graceDays: 9".to_owned();
    served.configure(&section)?;
    let held = served.outcome("a held run", |outcome| outcome.result == RunResult::DeletionHeld)?;
    section.removal = format!("graceDays: 9\nreleaseDigest: \"{}\"", held.plan_digest);
    served.configure(&section)?;
    let released = served.outcome("the released run", |outcome| outcome.result == RunResult::Synced)?;
    ensure!(released.counts.missing == gone.len() as u64, "{released:?}");

    let (status, _) = served.process.stop(LIMIT)?;
    let log = served.process.text(Stream::Err);
    ensure!(status.success() && !log.contains("panicked at"), "{status}\n{log}");
    let password = std::fs::read_to_string(&section.password_file)?;
    ensure!(!log.contains(password.trim()), "the password of the directory is in the log");
    Ok(())
}
