//! People who talk and watch each other through the VIP without a pause, and the judgement of what each was told and saw.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::command::say;
use commpool_harness::wait;
use commpool_tests::client::{Client, Device, Identity, PATIENCE, unique};
use commpool_tests::link::{Target, Transport};
use commpool_tests::roamer::{Roamer, Vip};
use commpool_tests::secrets::Secrets;
use commpool_tests::watch::{Notice, Watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::lab::Pool;

/// Each says something so often: six people, twenty texts a second.
const BEAT: Duration = Duration::from_millis(300);

/// A text has its final answer within this.
const ANSWERED: Duration = Duration::from_secs(8);

/// A connection's presence outlives it by 15 s; who did not come back until then seems to have gone.
const GRACE: Duration = Duration::from_secs(17);

/// How long it may take until everybody is back for good.
const SETTLED: Duration = Duration::from_secs(120);

/// Attempts to get to a front end; the VIP leads where it likes.
const ROUNDS: usize = 40;

/// One text and what became of it.
#[derive(Debug)]
struct Said {
    text: String,
    status: u16,
    took: Duration,
}

/// One who may sign in, from a machine of their own.
pub(crate) struct Person {
    identity: Identity,
    target: Target,
}

/// Makes six people, on machines of their own; three use TLS, three TCP.
pub(crate) fn people(pool: &Pool) -> Result<Vec<Person>> {
    let person = |(n, user): (usize, &str)| {
        let target = pool.target(&pool.machine(user)?, [Transport::Tls, Transport::Tcp][n % 2])?;
        Ok(Person { identity: pool.add_user(user)?, target })
    };
    ["ann", "ben", "cid", "dora", "eve", "fred"].into_iter().enumerate().map(person).collect()
}

/// People who are signed in, two and two talking with each other and watching each other.
pub(crate) struct Crowd {
    people: Vec<Arc<Roamer>>,
    watches: Vec<Watch>,
    stop: Arc<AtomicBool>,
    talkers: Vec<JoinHandle<Result<Vec<Said>>>>,
}

/// With whom each talks.
const fn partner(number: usize) -> usize {
    number ^ 1
}

/// Signs everybody in until each is where they are wanted: number `n` at front end `n` modulo their number. So partners
/// are never at the same one.
async fn spread(pool: &Pool, people: &[Person], front_ends: &[u64]) -> Result<Vec<Client>> {
    let secrets = Secrets::default();
    let mut placed: BTreeMap<usize, Client> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (n, Person { identity, target }) in people.iter().enumerate() {
            if let Entry::Vacant(place) = placed.entry(n) {
                let device = Device::Instance(format!("urn:{}", unique("device")));
                let client = Client::connect(identity, target, device, &secrets).await?;
                client.sign_in().await?;
                place.insert(client);
            }
        }
        let places = pool.places()?;
        let (mut right, mut wrong) = (BTreeMap::new(), Vec::new());
        for (n, client) in placed {
            let place =
                places.get(&client.aor()).with_context(|| format!("{} is nowhere: {places:?}", client.aor()))?;
            if *place == front_ends[n % front_ends.len()] {
                right.insert(n, client);
            } else {
                wrong.push(client);
            }
        }
        if wrong.is_empty() {
            return Ok(right.into_values().collect());
        }
        for client in wrong {
            client.sign_out().await?;
        }
        placed = right;
    }
    anyhow::bail!("the VIP never led everybody to another of the front ends {front_ends:?}")
}

/// One who talks until told to stop, without waiting for answers before the next text.
async fn talk(from: Arc<Roamer>, to: String, stop: Arc<AtomicBool>) -> Result<Vec<Said>> {
    let (mut texts, mut said) = (JoinSet::new(), Vec::new());
    let mut beat = tokio::time::interval(BEAT);
    while !stop.load(Ordering::Relaxed) {
        beat.tick().await;
        let (from, to, text) = (Arc::clone(&from), to.clone(), unique("text "));
        texts.spawn(async move {
            let (answer, took) = from.say(&to, &text).await.with_context(|| format!("{text} to {to}"))?;
            Ok::<_, anyhow::Error>(Said { text, status: answer.status().unwrap_or_default(), took })
        });
    }
    while let Some(outcome) = texts.join_next().await {
        said.push(outcome??);
    }
    Ok(said)
}

impl Crowd {
    /// Signs everybody in, spread over so many front ends, lets them watch each other and begin to talk.
    pub(crate) async fn gather(pool: &Pool, people: &[Person], front_ends: usize) -> Result<Self> {
        let front_ends = wait::until("front ends that serve", PATIENCE, || {
            Ok(Some(pool.front_ends()?).filter(|serving| serving.len() == front_ends))
        })?;
        let clients = spread(pool, people, &front_ends).await?;
        let mut watches = Vec::new();
        for (n, client) in clients.iter().enumerate() {
            let mut watch = client.watch(&clients[partner(n)].aor()).await?;
            client.notice(&mut watch, "the first state", PATIENCE, Notice::is_open).await?;
            watches.push(watch);
        }
        let roam = |(client, person): (Client, &Person)| {
            let target = person.target.clone();
            let vip: Vip = Arc::new(move || Some(target.clone()));
            Arc::new(Roamer::of(client, vip))
        };
        let people: Vec<_> = clients.into_iter().zip(people).map(roam).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let talker = |(n, one): (usize, &Arc<Roamer>)| {
            tokio::spawn(talk(Arc::clone(one), people[partner(n)].aor(), Arc::clone(&stop)))
        };
        let talkers = people.iter().enumerate().map(talker).collect();
        Ok(Self { people, watches, stop, talkers })
    }

    /// Waits until everybody is connected and has been for so long that whoever watches would have been told otherwise.
    async fn settle(&self) -> Result<()> {
        let start = Instant::now();
        let mut calm = Instant::now();
        while calm.elapsed() < GRACE {
            if self.people.iter().any(|one| one.now().link().is_closed()) {
                calm = Instant::now();
            }
            ensure!(start.elapsed() < SETTLED, "not everybody is back after {SETTLED:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// How often each had to come back.
    fn returns(&self) -> Vec<usize> {
        self.people.iter().map(|one| one.returns().len()).collect()
    }

    /// Lets everybody finish, judges what they were told and saw, and gives how often each had to come back.
    pub(crate) async fn judge(mut self, what: &str) -> Result<Vec<usize>> {
        self.settle().await?;
        self.stop.store(true, Ordering::Relaxed);
        let mut said = Vec::new();
        for talker in std::mem::take(&mut self.talkers) {
            said.push(talker.await??);
        }
        self.judge_texts(what, &said).await?;
        let returns = self.returns();
        let longest = self.people.iter().flat_map(|one| one.returns()).map(|back| back.took).max();
        say(&format!("{what}: reconnects {returns:?}, the slowest took {longest:?}"));
        self.judge_notices(what).await?;
        for one in &self.people {
            one.now().sign_out().await?;
        }
        Ok(returns)
    }

    /// Nothing that was promised is missing, nothing came twice, nobody waited too long.
    async fn judge_texts(&self, what: &str, said: &[Vec<Said>]) -> Result<()> {
        let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
        said.iter().flatten().for_each(|one| *statuses.entry(one.status).or_default() += 1);
        let slowest = said.iter().flatten().map(|one| one.took).max().unwrap_or_default();
        let number: usize = statuses.values().sum();
        say(&format!("{what}: {number} texts, answers {statuses:?}, the slowest after {slowest:?}"));
        for (n, said) in said.iter().enumerate() {
            let hearer = &self.people[partner(n)];
            let heard = self.heard(hearer, said).await?;
            for one in said {
                let times = heard.get(&one.text).copied().unwrap_or_default();
                ensure!(times <= 1, "{what}: {} was shown {times} times: {one:?}", hearer.aor());
                ensure!(one.status / 100 != 2 || times == 1, "{what}: {} never heard {one:?}", hearer.aor());
                ensure!(one.took <= ANSWERED, "{what}: answered too late: {one:?}");
            }
        }
        Ok(())
    }

    /// How often each text was heard, once all that were promised are there or have had their time.
    async fn heard(&self, hearer: &Roamer, said: &[Said]) -> Result<HashMap<String, usize>> {
        let start = Instant::now();
        loop {
            let mut heard: HashMap<String, usize> = HashMap::new();
            for arrival in hearer.history()?.iter().filter(|arrival| arrival.packet.method() == Some("MESSAGE")) {
                *heard.entry(arrival.packet.text()).or_default() += 1;
            }
            let is_there = |one: &Said| one.status / 100 != 2 || heard.contains_key(&one.text);
            if said.iter().all(is_there) || start.elapsed() > PATIENCE {
                return Ok(heard);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nobody seemed to have gone, and what each watches goes on.
    async fn judge_notices(&mut self, what: &str) -> Result<()> {
        for (watcher, watch) in self.people.iter().zip(&mut self.watches) {
            watcher.notices(watch)?;
            ensure!(watch.ends == 0, "{what}: {} saw a false end {} times", watcher.aor(), watch.ends);
        }
        for one in &self.people {
            one.now().publish("open", Some("meeting"), None, None).await?;
        }
        for (watcher, watch) in self.people.iter().zip(&mut self.watches) {
            watcher.sees(watch, "a change afterwards", PATIENCE, |notice| notice.is_doing("meeting")).await?;
        }
        Ok(())
    }
}
