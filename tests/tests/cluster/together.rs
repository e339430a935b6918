//! People on different front ends of one pool: they talk, and go on talking while parts of the pool come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::command::say;
use commpool_harness::wait;
use commpool_tests::client::Identity;
use commpool_tests::link::Transport;
use commpool_tests::linphone::{Linphone, PATIENCE};
use serde_json::json;

use crate::crowd::{Crowd, Person, people};
use crate::lab::{ENTERPRISE_TO_READY, Pool, cluster, ready_with};

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
    let mut bob = phone_elsewhere(&pool, &him, &her.aor()).await?;
    let (her, him) = (her.aor(), him.aor());
    alice.watch(&him).await?;
    bob.watch(&her).await?;
    alice.sees(&him, "open", None, PATIENCE).await?;
    bob.sees(&her, "open", None, PATIENCE).await?;
    alice.say(&him, "hello over there", "a1").await?;
    bob.hears(&her, "hello over there").await?;
    bob.say(&her, "hello yourself", "b1").await?;
    alice.hears(&him, "hello yourself").await?;
    ensure!(alice.outcome("a1").await?.starts_with("delivered"), "alice was not told");
    ensure!(bob.outcome("b1").await?.starts_with("delivered"), "bob was not told");
    alice.publish("open", "busy", Some("in a meeting")).await?;
    bob.sees(&her, "open", Some("busy"), PATIENCE).await?;
    bob.publish("open", "away", None).await?;
    alice.sees(&him, "open", Some("away"), PATIENCE).await?;
    alice.quit(false).await?;
    bob.sees(&her, "closed", None, PATIENCE).await?;
    bob.quit(false).await?;
    pool.finish()
}

/// Names of the pods of a component, as `pod/NAME`.
fn pods(pool: &Pool, component: &str) -> Result<Vec<String>> {
    let label = format!("app.kubernetes.io/component={component}");
    Ok(pool.kubectl(&["get", "pods", "-l", &label, "-o", "name"])?.lines().map(str::to_owned).collect())
}

/// Waits until these pods are gone and no others than so many serve.
fn replaced(pool: &Pool, old: &[String], replicas: u64) -> Result<()> {
    wait::until("the end of front ends that were told to go", GONE, || {
        let now = pods(pool, "front-end")?;
        let is_so = now.len() as u64 == replicas && !old.iter().any(|pod| now.contains(pod));
        Ok(is_so.then_some(()))
    })?;
    pool.until("its front ends", ENTERPRISE_TO_READY, ready_with(replicas)).map(drop)
}

fn scale(pool: &Pool, replicas: u64) -> Result<()> {
    pool.kubectl(&["scale", &format!("cpool/{}", pool.name), &format!("--replicas={replicas}")])?;
    replaced(pool, &[], replicas)
}

/// What is done to the pool while everybody talks.
type Change = fn(&Pool) -> Result<()>;

/// Talks while a part of the pool changes, and gives how often each had to connect again.
async fn under_load(pool: &Pool, people: &[Person], what: &str, change: Change) -> Result<Vec<usize>> {
    let crowd = Crowd::gather(pool, people).await?;
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
    under_load(&pool, &people, "a front end's pod is deleted", |pool| {
        let pod = pods(pool, "front-end")?.swap_remove(0);
        pool.kubectl(&["delete", &pod, "--wait=false"])?;
        replaced(pool, &[pod], 2)
    })
    .await?;
    let returns = under_load(&pool, &people, "from two to three", |pool| scale(pool, 3)).await?;
    ensure!(returns.iter().all(|times| *times == 0), "a new front end costs nobody a connection: {returns:?}");
    under_load(&pool, &people, "from three to two", |pool| scale(pool, 2)).await?;
    let returns = under_load(&pool, &people, "the Deployment is restarted", |pool| {
        let old = pods(pool, "front-end")?;
        pool.kubectl(&["rollout", "restart", &format!("deployment/{}-front-end", pool.name)])?;
        replaced(pool, &old, 2)
    })
    .await?;
    ensure!(returns.iter().all(|times| *times == 1), "everybody connects again once: {returns:?}");
    under_load(&pool, &people, "the database's pod is deleted", |pool| {
        pool.kubectl(&["delete", &format!("pod/{}-database-0", pool.name)])?;
        pool.until("two front ends", ENTERPRISE_TO_READY, ready_with(2)).map(drop)
    })
    .await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_seems_to_go_with_a_front_end_that_is_lost() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "lost")?;
    start(&pool)?;
    let people = people(&pool)?;
    under_load(&pool, &people, "a front end is lost", |pool| {
        let pod = pods(pool, "front-end")?.swap_remove(0);
        pool.kubectl(&["delete", &pod, "--force", "--grace-period=0"])?;
        replaced(pool, &[pod], 2)
    })
    .await?;
    pool.finish()
}
