//! People on different front ends of one pool: they talk, and go on talking while parts of the pool come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::command::say;
use commpool_harness::wait;
use commpool_tests::client::Identity;
use commpool_tests::link::Transport;
use commpool_tests::linphone::{Linphone, talk_and_leave};
use serde_json::{Value, json};

use crate::crowd::{Crowd, Person, people};
use crate::lab::{ENTERPRISE_TO_READY, Pool, cluster, condition, ready_with};

/// Attempts to get to another front end; the VIP leads where it likes.
const ROUNDS: usize = 20;

/// From the request to end a front end to its end: its 60 s, the half minute beyond, and the cluster's own work.
const GONE: Duration = Duration::from_secs(120);

fn start(pool: &Pool) -> Result<()> {
    let listeners = json!({"listeners": {"tls": 5061, "tcp": 5060}});
    let size = json!({"embedded": {"storage": {"size": "2Gi"}}});
    let start = Instant::now();
    pool.apply(&pool.resource(&json!({"edition": "Enterprise", "service": listeners, "database": size})))?;
    pool.until("two front ends", ENTERPRISE_TO_READY, ready_with(2))?;
    say(&format!("kubectl apply to Ready with a database: {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// A phone that is signed in at another front end than somebody else, by the database's rows.
async fn phone_elsewhere(pool: &Pool, identity: &Identity, other: &str) -> Result<Linphone> {
    for _ in 0..ROUNDS {
        let mut phone = pool.phone(identity, Transport::Tls).await?;
        phone.sign_in().await?;
        let places = pool.places()?;
        let of = |aor: &str| places.get(aor).copied().with_context(|| format!("{aor} is nowhere: {places:?}"));
        if of(&identity.aor())? != of(other)? {
            return Ok(phone);
        }
        phone.quit(false).await?;
    }
    anyhow::bail!("the VIP led to one front end {ROUNDS} times")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_phones_on_different_front_ends() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "apart")?;
    start(&pool)?;
    let (her, him) = (pool.add_user("alice")?, pool.add_user("bob")?);
    let mut alice = pool.phone(&her, Transport::Tls).await?;
    alice.sign_in().await?;
    let bob = phone_elsewhere(&pool, &him, &her.aor()).await?;
    let (her, him) = (her.aor(), him.aor());
    talk_and_leave((alice, &her), (bob, &him)).await?;
    pool.finish()
}

/// A part of the pool that runs in pods of its own.
#[derive(Clone, Copy)]
enum Part {
    FrontEnd,
    Database,
}

/// One pod of a part.
#[derive(Debug)]
struct Pod {
    name: String,
    uid: String,
    is_ready: bool,
}

fn pods(pool: &Pool, part: Part) -> Result<Vec<Pod>> {
    let component = match part {
        Part::FrontEnd => "front-end",
        Part::Database => "database",
    };
    let label = format!("app.kubernetes.io/component={component}");
    let listed: Value = serde_json::from_str(&pool.kubectl(&["get", "pods", "-l", &label, "-o", "json"])?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pod = |pod: &Value| Pod {
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        is_ready: condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True"),
    };
    Ok(listed["items"].as_array().context("no list")?.iter().map(pod).collect())
}

/// Waits until none of these pods is left and so many others are ready, and the pool says so.
fn replaced(pool: &Pool, part: Part, old: &[Pod], replicas: usize) -> Result<()> {
    // One after the other, if all of them go.
    let limit = GONE * u32::try_from(old.len().max(1))?;
    wait::until("the end of pods that were told to go", limit, || {
        let now = pods(pool, part)?;
        let is_old = |pod: &Pod| old.iter().any(|old| old.uid == pod.uid);
        Ok((now.len() == replicas && now.iter().all(|pod| pod.is_ready && !is_old(pod))).then_some(()))
    })?;
    pool.ready(ENTERPRISE_TO_READY)
}

fn scale(pool: &Pool, replicas: usize) -> Result<()> {
    pool.kubectl(&["scale", &format!("cpool/{}", pool.name), &format!("--replicas={replicas}")])?;
    replaced(pool, Part::FrontEnd, &[], replicas)
}

/// Deletes the first pod of a part and waits until another has taken its place.
fn delete_one(pool: &Pool, part: Part, how: &[&str]) -> Result<()> {
    let mut old = pods(pool, part)?;
    let replicas = old.len();
    old.truncate(1);
    let name = &old.first().context("no pod")?.name;
    pool.kubectl(&[&["delete", "pod", name][..], how].concat())?;
    replaced(pool, part, &old, replicas)
}

/// Lets the Deployment replace its pods, and waits until all are replaced.
fn restart(pool: &Pool) -> Result<()> {
    let old = pods(pool, Part::FrontEnd)?;
    pool.kubectl(&["rollout", "restart", &format!("deployment/{}-front-end", pool.name)])?;
    replaced(pool, Part::FrontEnd, &old, old.len())
}

/// What is done to the pool while everybody talks.
type Change = fn(&Pool) -> Result<()>;

/// Talks from so many front ends while a part of the pool changes, and gives how often each had to connect again.
async fn under_load(
    pool: &Pool,
    people: &[Person],
    front_ends: usize,
    what: &str,
    change: Change,
) -> Result<Vec<usize>> {
    let crowd = Crowd::gather(pool, people, front_ends).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    change(pool)?;
    say(&format!("{what}: done after {:.1} s", start.elapsed().as_secs_f64()));
    crowd.judge(what).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_loses_a_word_while_the_pool_changes() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "together")?;
    start(&pool)?;
    let people = people(&pool)?;
    let deleted = |pool: &Pool| delete_one(pool, Part::FrontEnd, &[]);
    let returns = under_load(&pool, &people, 2, "a front end's pod is deleted", deleted).await?;
    ensure!(returns.iter().all(|times| *times <= 1), "those of the pod connect again once: {returns:?}");
    let returns = under_load(&pool, &people, 2, "from two to three", |pool| scale(pool, 3)).await?;
    ensure!(returns.iter().all(|times| *times == 0), "a new front end costs nobody a connection: {returns:?}");
    let returns = under_load(&pool, &people, 3, "the Deployment of three is restarted", restart).await?;
    ensure!(returns.iter().all(|times| *times == 1), "everybody connects again once: {returns:?}");
    let returns = under_load(&pool, &people, 3, "from three to two", |pool| scale(pool, 2)).await?;
    ensure!(returns.iter().sum::<usize>() == 2, "two were at the one that went: {returns:?}");
    let away = |pool: &Pool| delete_one(pool, Part::Database, &[]);
    let returns = under_load(&pool, &people, 2, "the database's pod is deleted", away).await?;
    ensure!(returns.iter().all(|times| *times == 0), "the database's absence costs connections: {returns:?}");
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_seems_to_go_with_a_front_end_that_is_lost() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "lost")?;
    start(&pool)?;
    let people = people(&pool)?;
    let lost = |pool: &Pool| delete_one(pool, Part::FrontEnd, &["--force", "--grace-period=0"]);
    let returns = under_load(&pool, &people, 2, "a front end is lost", lost).await?;
    ensure!(returns.iter().sum::<usize>() >= 3, "three were at the one that was lost: {returns:?}");
    pool.finish()
}
