//! A client as real ones are: when its connection ends it comes back at once, through the VIP, by the same
//! registration; and what it sees is kept over all its connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::client::{Client, expect};
use crate::link::{Arrival, Target};
use crate::packet::Packet;
use crate::watch::{Notice, Watch};

/// Between two attempts to come back.
const AGAIN: Duration = Duration::from_millis(200);
/// How long it may take to come back before it counts as lost.
const LOST: Duration = Duration::from_secs(60);
/// A client gives a request up after this (its Timer F is 32 s).
const GIVES_UP: Duration = Duration::from_secs(32);

/// Where the VIP leads now.
pub type Vip = Arc<dyn Fn() -> Option<Target> + Send + Sync>;

/// One coming back.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    /// When the connection ended.
    pub lost: Instant,
    /// From then to the 200 to its REGISTER.
    pub took: Duration,
    /// Attempts that were needed.
    pub attempts: u32,
}

#[derive(Debug)]
struct State {
    client: Arc<Client>,
    history: Vec<Arrival>,
    returns: Vec<Return>,
    faults: Vec<String>,
}

/// A client that comes back. Dropping it takes it away without a word.
pub struct Roamer {
    state: Arc<Mutex<State>>,
    keeper: JoinHandle<()>,
}

impl Drop for Roamer {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.aor())
    }
}

impl Roamer {
    /// Takes a client that is signed in.
    #[must_use]
    pub fn of(client: Client, vip: Vip) -> Self {
        let state = State { client: Arc::new(client), history: Vec::new(), returns: Vec::new(), faults: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let keeper = tokio::spawn(keep(Arc::clone(&state), vip));
        Self { state, keeper }
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client on its present connection.
    #[must_use]
    pub fn now(&self) -> Arc<Client> {
        self.with(|state| Arc::clone(&state.client))
    }

    /// Address of record.
    #[must_use]
    pub fn aor(&self) -> String {
        self.now().aor()
    }

    /// When and how it came back so far.
    #[must_use]
    pub fn returns(&self) -> Vec<Return> {
        self.with(|state| state.returns.clone())
    }

    /// Waits until it has come back so often.
    ///
    /// # Errors
    /// When that does not come about within `limit`.
    pub async fn came_back(&self, times: usize, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.with(|state| state.returns.len()) < times {
            self.with(|state| state.faults.first().cloned()).map_or(Ok(()), |fault| Err(anyhow::anyhow!(fault)))?;
            ensure!(start.elapsed() < limit, "{} did not come back within {limit:?}", self.aor());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sends a text as real clients do: the same request once more on the next connection where one ended before its
    /// answer. Gives the final answer and how long it took.
    ///
    /// # Errors
    /// When there is no answer in a client's patience.
    pub async fn say(&self, to: &str, text: &str) -> Result<(Packet, Duration)> {
        let start = Instant::now();
        let mut request = self.now().message(to, text);
        let mut challenged = false;
        loop {
            let client = self.now();
            let sent = client.link().send(&request.octets()).await;
            let answer = match sent {
                Ok(()) => client.final_answer(&request, GIVES_UP.saturating_sub(start.elapsed())).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) if matches!(answer.packet.status(), Some(401 | 407)) && !challenged => {
                    challenged = true;
                    request = client.answered(request, &answer.packet)?;
                    continue;
                }
                Ok(answer) => return Ok((answer.packet, start.elapsed())),
                Err(error) if !client.link().is_closed() || start.elapsed() > GIVES_UP => return Err(error),
                Err(_) => {}
            }
            while Arc::ptr_eq(&client, &self.now()) && start.elapsed() < GIVES_UP {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Everything that arrived, in order.
    ///
    /// # Errors
    /// When it was lost on its way, or something came that must not.
    pub fn history(&self) -> Result<Vec<Arrival>> {
        self.with(|state| {
            ensure!(state.faults.is_empty(), "{}", state.faults.join("\n"));
            let new = state.client.link().take_all();
            state.history.extend(new);
            Ok(state.history.clone())
        })
    }

    /// How often it heard a text, copies of one transaction on one connection counted once.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub fn times_heard(&self, text: &str) -> Result<usize> {
        let is_it = |arrival: &&Arrival| arrival.packet.method() == Some("MESSAGE") && arrival.packet.text() == text;
        Ok(self.history()?.iter().filter(is_it).count())
    }

    /// Notices of a watch since the last look, in order, each checked.
    ///
    /// # Errors
    /// When one is malformed or out of order.
    pub fn notices(&self, watch: &mut Watch) -> Result<Vec<Notice>> {
        let all = self.history()?;
        let new: Vec<_> = all.iter().skip(watch.looked).filter(|arrival| watch.owns(&arrival.packet)).collect();
        watch.looked = all.len();
        new.into_iter().map(|arrival| watch.check(arrival)).collect()
    }

    /// Waits until a watch brings a notice that is as wanted, on whichever connection.
    ///
    /// # Errors
    /// When none comes within `limit`, or one is malformed or out of order.
    pub async fn sees(
        &self,
        watch: &mut Watch,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Notice) -> bool,
    ) -> Result<Notice> {
        let start = Instant::now();
        loop {
            if let Some(notice) = self.notices(watch)?.into_iter().rfind(&wanted) {
                return Ok(notice);
            }
            ensure!(start.elapsed() < limit, "{} waited {limit:?} in vain for {what}", self.aor());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn keep(state: Arc<Mutex<State>>, vip: Vip) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let old = Arc::clone(&lock().client);
        let lost = match old.link().closed(Duration::from_secs(3600)).await {
            Ok(at) => at,
            Err(error) => return lock().faults.push(format!("{error:#}")),
        };
        let back = come_back(&old, lost, &vip);
        match back.await {
            Ok((client, attempts)) => {
                let mut state = lock();
                state.history.extend(old.link().take_all());
                state.returns.push(Return { lost, took: lost.elapsed(), attempts });
                state.client = Arc::new(client);
            }
            Err(error) => return lock().faults.push(format!("{}: {error:#}", old.aor())),
        }
    }
}

async fn come_back(old: &Client, lost: Instant, vip: &Vip) -> Result<(Client, u32)> {
    let (mut attempts, mut last) = (0, anyhow::anyhow!("there was no way in"));
    while lost.elapsed() < LOST {
        if let Some(target) = vip() {
            attempts += 1;
            match sign_in(old, &target).await {
                Ok(client) => return Ok((client, attempts)),
                Err(error) => last = error,
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    Err(last).context("it did not come back")
}

async fn sign_in(old: &Client, target: &Target) -> Result<Client> {
    let client = old.moved(target).await?;
    expect(client.exchange(client.register(3600)).await?, 200)?;
    Ok(client)
}
