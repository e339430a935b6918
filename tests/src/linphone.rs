//! Linphone's engine as a client: one process of `clients/linphone.py` for each.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use commpool_harness::Workspace;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;

use crate::client::Identity;
use crate::link::{Target, Transport};

/// How long the engine may take for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Its second attempt to sign in comes 60 s after the first that failed.
pub const COMES_BACK: Duration = Duration::from_secs(90);

/// Events so far, and whether the engine has ended.
#[derive(Debug, Default)]
struct Events {
    list: Mutex<(Vec<Value>, bool)>,
    changed: Notify,
}

/// A running engine. Dropping it kills it.
#[derive(Debug)]
pub struct Linphone {
    name: String,
    process: Child,
    input: ChildStdin,
    events: Arc<Events>,
    folder: PathBuf,
}

/// What a Linphone is told of its account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who signs in.
    pub identity: Identity,
    /// Host name and port of the server, as a user would type them.
    pub server: String,
    /// Transport.
    pub transport: Transport,
    /// Authority for TLS.
    pub ca: Option<PathBuf>,
    /// Hosts file that only this client reads.
    pub hosts: Option<PathBuf>,
    /// Folder kept between runs: identity of the device, settings, log.
    pub folder: PathBuf,
}

impl Account {
    /// An account on a server under its domain's name; the folder gets a hosts file that resolves the name.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(identity: &Identity, target: &Target, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let hosts = folder.join("hosts");
        std::fs::write(&hosts, format!("{} {}\n", target.address.ip(), target.server_name))?;
        Ok(Self {
            identity: identity.clone(),
            server: format!("{}:{}", target.server_name, target.address.port()),
            transport: target.transport,
            ca: target.ca.clone(),
            hosts: Some(hosts),
            folder: folder.to_owned(),
        })
    }
}

impl Linphone {
    /// Starts an engine and gives it its account; it does not sign in yet. `prefix` is a command to run it under, such
    /// as `ip netns exec NAME`; often empty.
    ///
    /// # Errors
    /// When Python or the library is missing, or the engine refuses the account.
    pub async fn start(account: &Account, prefix: &[String]) -> Result<Self> {
        let script = Workspace::find()?.root().join("tests/clients/linphone.py");
        let mut words: Vec<&std::ffi::OsStr> = prefix.iter().map(AsRef::as_ref).collect();
        words.extend(["python3".as_ref(), script.as_os_str()]);
        let (program, arguments) = words.split_first().context("no program")?;
        std::fs::create_dir_all(&account.folder)?;
        let errors = std::fs::File::create(account.folder.join("stderr"))?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let input = process.stdin.take().context("no standard input")?;
        let output = process.stdout.take().context("no standard output")?;
        let events = Arc::new(Events::default());
        tokio::spawn(read(output, Arc::clone(&events)));
        let name = account.identity.user.clone();
        let mut engine = Self { name, process, input, events, folder: account.folder.clone() };
        engine.configure(account).await?;
        Ok(engine)
    }

    async fn configure(&mut self, account: &Account) -> Result<()> {
        let Identity { user, password, domain } = &account.identity;
        let transport = account.transport.name();
        self.tell(json!({
            "do": "configure", "user": user, "password": password, "domain": domain, "transport": transport,
            "proxy": format!("sip:{};transport={transport}", account.server),
            "ca": account.ca, "hosts": account.hosts, "folder": account.folder,
        }))
        .await?;
        self.wait("ready", PATIENCE, |event| event["event"] == "ready").await?;
        Ok(())
    }

    async fn tell(&mut self, command: Value) -> Result<()> {
        let line = format!("{command}\n");
        self.input.write_all(line.as_bytes()).await.with_context(|| format!("{} is gone", self.name))?;
        self.input.flush().await?;
        Ok(())
    }

    /// Waits for an event that `wanted` accepts, and takes it out with all of its kind before it: what a test waits for
    /// next of that kind must happen after it.
    ///
    /// # Errors
    /// When it does not come within `limit`, the engine ends, or it reports an error.
    pub async fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let changed = self.events.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = {
                let mut list = self.events.list.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(place) = list.0.iter().position(&wanted) {
                    let found = list.0.remove(place);
                    let mut before = place;
                    list.0.retain(|event| {
                        let passed = before > 0 && event["event"] == found["event"];
                        before = before.saturating_sub(1);
                        !passed
                    });
                    return Ok(found);
                }
                if let Some(error) = list.0.iter().find(|event| event["event"] == "error") {
                    bail!("{}: {error}", self.name);
                }
                ensure!(!list.1, "{} ended while waiting for {what}; see {}", self.name, self.folder.display());
                format!("{:?}", list.0.iter().map(Value::to_string).collect::<Vec<_>>())
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                bail!("{}: waited {limit:?} in vain for {what}; seen since: {seen}", self.name);
            }
        }
    }

    /// Signs in and demands success.
    ///
    /// # Errors
    /// When it fails.
    pub async fn sign_in(&mut self) -> Result<()> {
        self.tell(json!({"do": "register"})).await?;
        self.signed_in(PATIENCE).await
    }

    /// Waits until it is signed in, again or at last.
    ///
    /// # Errors
    /// When that does not come within `limit`.
    pub async fn signed_in(&self, limit: Duration) -> Result<()> {
        self.wait("sign-in", limit, |e| registration(e, "ok")).await.map(drop)
    }

    /// Tries to sign in, demands to be refused and gives the SIP status.
    ///
    /// # Errors
    /// When it is let in, or nothing comes.
    pub async fn is_refused(&mut self) -> Result<u64> {
        self.tell(json!({"do": "register"})).await?;
        let end = |e: &Value| registration(e, "failed") || registration(e, "ok");
        let event = self.wait("a refusal", PATIENCE, end).await?;
        ensure!(event["state"] == "failed", "{} was let in: {event}", self.name);
        Ok(event["code"].as_u64().unwrap_or_default())
    }

    /// Signs out and stays.
    ///
    /// # Errors
    /// When the engine does not report it.
    pub async fn sign_out(&mut self) -> Result<()> {
        self.tell(json!({"do": "unregister"})).await?;
        self.wait("sign-out", PATIENCE, |e| registration(e, "cleared")).await.map(drop)
    }

    /// Sends a text; the states it goes through carry `reference`.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn say(&mut self, to: &str, text: &str, reference: &str) -> Result<()> {
        self.tell(json!({"do": "message", "to": to, "text": text, "ref": reference})).await
    }

    /// Waits until a text sent has come to an end and gives the state: `delivered` or `not-delivered`.
    ///
    /// # Errors
    /// When neither comes.
    pub async fn outcome(&self, reference: &str) -> Result<String> {
        let event = self
            .wait("the outcome of a message", PATIENCE, |e| {
                e["event"] == "message_state" && e["ref"] == reference && e["state"] != "in-progress"
            })
            .await?;
        Ok(event["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for a text from somebody.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn hears(&self, from: &str, text: &str) -> Result<()> {
        self.wait(text, PATIENCE, |e| e["event"] == "message" && e["from"] == from && e["text"] == text).await.map(drop)
    }

    /// Publishes a state; `activity` by its RPID name, `online` for none.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn publish(&mut self, basic: &str, activity: &str, note: Option<&str>) -> Result<()> {
        self.tell(json!({"do": "publish", "basic": basic, "activity": activity, "note": note})).await
    }

    /// Begins to watch somebody.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn watch(&mut self, friend: &str) -> Result<()> {
        self.tell(json!({"do": "subscribe", "friend": friend})).await
    }

    /// Waits until it shows a friend as wanted: `basic`, and the activity (`None`: none).
    ///
    /// # Errors
    /// When it does not.
    pub async fn sees(&self, friend: &str, basic: &str, activity: Option<&str>, limit: Duration) -> Result<Value> {
        let what = format!("{friend} being {basic} {activity:?}");
        self.wait(&what, limit, |e| {
            e["event"] == "presence"
                && e["friend"] == friend
                && e["basic"] == basic
                && e["activity"].as_str() == activity
        })
        .await
    }

    /// Leaves: with a word to the server, or without.
    ///
    /// # Errors
    /// When the process does not end in time.
    pub async fn quit(mut self, abrupt: bool) -> Result<()> {
        self.tell(json!({"do": "quit", "abrupt": abrupt})).await?;
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

fn registration(event: &Value, state: &str) -> bool {
    event["event"] == "registration" && event["state"] == state
}

async fn read(output: ChildStdout, events: Arc<Events>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str(&line).unwrap_or_else(|_| json!({"event": "error", "what": line}));
        events.list.lock().unwrap_or_else(PoisonError::into_inner).0.push(event);
        events.changed.notify_waiters();
    }
    events.list.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    events.changed.notify_waiters();
}

/// Two who are signed in see each other, talk both ways, change what is seen of them, and leave one after the other.
///
/// # Errors
/// When one does not see or hear what the other did.
pub async fn talk_and_leave((mut alice, her): (Linphone, &str), (mut bob, him): (Linphone, &str)) -> Result<()> {
    alice.watch(him).await?;
    bob.watch(her).await?;
    alice.sees(him, "open", None, PATIENCE).await?;
    bob.sees(her, "open", None, PATIENCE).await?;
    alice.say(him, "hello over there", "a1").await?;
    bob.hears(her, "hello over there").await?;
    bob.say(her, "hello yourself", "b1").await?;
    alice.hears(him, "hello yourself").await?;
    ensure!(alice.outcome("a1").await?.starts_with("delivered"), "alice was not told");
    ensure!(bob.outcome("b1").await?.starts_with("delivered"), "bob was not told");
    alice.publish("open", "busy", Some("in a meeting")).await?;
    bob.sees(her, "open", Some("busy"), PATIENCE).await?;
    bob.publish("open", "away", None).await?;
    alice.sees(him, "open", Some("away"), PATIENCE).await?;
    alice.quit(false).await?;
    bob.sees(her, "closed", None, PATIENCE).await?;
    bob.quit(false).await
}
