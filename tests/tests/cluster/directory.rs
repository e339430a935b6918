//! Users from an Active Directory: the CronJob brings them, they talk through the VIP, and nobody goes by accident.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::command::say;
use commpool_harness::directory::{Directory, Kind, Person, Place, Settings, can_run, people};
use commpool_tests::client::Identity;
use commpool_tests::link::Transport;
use serde_json::{Value, json};

use crate::lab::{ENTERPRISE_TO_READY, Pool, cluster, condition, ready_with};
use crate::talk::{meet, talk};

/// People of the crowd.
const CROWD: u32 = 2000;
/// Those of them that vanish at once.
const VANISH: u32 = 500;
/// A cycle of a schedule of every minute: until it comes, a pod's start, the run, and until it is seen.
const CYCLE: Duration = Duration::from_secs(60 + 45);
/// Until a Job that is started by hand has run and is seen.
const RUN: Duration = Duration::from_secs(60);
/// Until the kubelet has brought a changed configuration to the pod and the operator has asked what came of it.
const BROUGHT: Duration = Duration::from_secs(240);
/// Name of the Secret with the directory's account and authority.
const SECRET: &str = "lab-directory";

/// A directory on a machine of its own, which the pool's pods reach; its account as a Secret.
fn directory(pool: &Pool, crowd: u32) -> Result<Directory> {
    let machine = pool.machine("dc")?;
    let place = Place::within(machine.namespace(), machine.address().parse()?);
    let settings = Settings { crowd, ..Settings::new(place, &pool.domain()) };
    let directory = Directory::start(&Workspace::find()?, Kind::Samba, &settings)?;
    directory.add(&people::demo(&pool.domain()))?;
    let access = directory.access();
    let file = |key: &str, path: &std::path::Path| format!("--from-file={key}={}", path.display());
    pool.kubectl(&[
        "create",
        "secret",
        "generic",
        SECRET,
        &format!("--from-literal=bindDN={}", access.bind_dn()?.trim()),
        &file("password", &access.password_file),
        &file("ca.crt", &access.ca_file),
    ])?;
    Ok(directory)
}

/// The section of a pool that reads it.
fn section(directory: &Directory, schedule: &str) -> Value {
    let ldap = json!({
        "urls": [directory.access().ldaps], "baseDN": Kind::Samba.base(), "bindSecret": SECRET, "caSecret": SECRET,
    });
    json!({"schedule": schedule, "ldap": ldap, "mapping": {"enabled": {"attribute": "msRTCSIP-UserEnabled"}}})
}

/// Whether the last run came to this, and its counts are as wanted.
fn came_to(reason: &str, wanted: impl Fn(&Value) -> bool) -> impl Fn(&Value) -> bool {
    move |pool| {
        let synced = condition(pool, "DirectorySynced");
        synced.is_some_and(|it| it["reason"] == reason) && wanted(&pool["status"]["directorySync"])
    }
}

fn ready(pool: &Value) -> bool {
    condition(pool, "Ready").is_some_and(|it| it["status"] == "True")
}

/// A replicated user with a password of the pool's making.
fn person(pool: &Pool, user: &str) -> Result<Identity> {
    let said = pool.server(&["user", "passwd", user])?;
    let (_, password) = said.rsplit_once("password ").with_context(|| format!("no password in: {said}"))?;
    Ok(Identity { user: user.to_owned(), password: password.trim().to_owned(), domain: pool.domain() })
}

/// Runs the replicator now, as an administrator would.
fn run_now(pool: &Pool, name: &str) -> Result<()> {
    pool.kubectl(&["create", "job", name, &format!("--from=cronjob/{}-replicator", pool.name)]).map(drop)
}

fn patch(pool: &Pool, section: &Value) -> Result<()> {
    let patch = json!({"spec": {"directorySync": section}}).to_string();
    pool.kubectl(&["patch", "cpool", &pool.name, "--type=merge", "-p", &patch]).map(drop)
}

/// Lets the plan that is held through.
fn release(pool: &Pool, held: &Value) -> Result<()> {
    let digest = held["status"]["directorySync"]["planDigest"].as_str().context("no digest")?;
    let message = condition(held, "DirectorySynced").map(|it| it["message"].to_string()).unwrap_or_default();
    ensure!(message.contains(digest), "the condition does not name the digest {digest}: {message}");
    patch(pool, &json!({"removal": {"releaseDigest": digest}}))?;
    let asked = pool.get("cpool", &pool.name)?["metadata"]["generation"].clone();
    // a run started before the operator has passed it on would not know it yet
    pool.until("the digest passed on", RUN, |it| it["status"]["observedGeneration"].as_i64() >= asked.as_i64())?;
    Ok(())
}

/// Users of the pool in a state.
fn users(pool: &Pool, state: &str) -> Result<usize> {
    Ok(pool.server_json(&["user", "list"])?.iter().filter(|user| user["state"] == state).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_cron_job_brings_users_who_talk_and_go_as_the_directory_says() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    if !can_run("users from a directory on the cluster") {
        return Ok(());
    }
    let pool = Pool::prepare(cluster, "people")?;
    let mut samba = directory(&pool, CROWD)?;
    let demo = people::demo(&pool.domain());
    let all = u64::from(CROWD) + demo.iter().filter(|person| signs_in(person)).count() as u64;
    pool.apply(&pool.resource(&json!({
        "edition": "Enterprise",
        "database": {"embedded": {"storage": {"size": "2Gi"}}},
        "directorySync": section(&samba, "* * * * *"),
    })))?;
    pool.until("two front ends", ENTERPRISE_TO_READY, ready_with(2))?;
    pool.until("the directory's users", CYCLE, came_to("Synced", |_| true))?;
    ensure!(users(&pool, "on")? as u64 == all, "{} users instead of {all}", users(&pool, "on")?);

    let [alice, bob] = [person(&pool, "alice")?, person(&pool, "bob")?];
    let mut phones = meet(&pool, &[alice, bob], Transport::Tls).await?;
    talk(&pool, &mut phones, "from the directory").await?;
    samba.apply(&Kind::Samba.enable("alice", false))?;
    let told = Instant::now();
    phones[1].sees(&pool.aor("alice"), "closed", None, CYCLE).await?;
    say(&format!("disabled in the directory, seen to be gone after {:.1} s", told.elapsed().as_secs_f64()));
    ensure!(!pool.places()?.contains_key(&pool.aor("alice")), "alice is still signed in");
    pool.until("one less", CYCLE, came_to("Synced", |_| true))?;

    // From here on runs are started by hand, as they are told to be.
    patch(&pool, &json!({"schedule": "0 3 1 1 *"}))?;
    let vanish: Vec<String> = (0..VANISH).map(|number| Person::numbered(number, "").login).collect();
    samba.delete(vanish.iter().map(String::as_str))?;
    run_now(&pool, "after-the-accident")?;
    let held = pool.until(
        "held",
        RUN,
        came_to("DeletionHeld", |status| status["held"] == true && status["missing"] == VANISH),
    )?;
    ensure!(ready(&held), "the pool is not ready: {:#}", held["status"]);
    ensure!(users(&pool, "on")? as u64 == all - 1, "somebody is gone");
    release(&pool, &held)?;
    run_now(&pool, "released")?;
    pool.until("released", RUN, came_to("Synced", |status| status["missing"] == VANISH))?;
    ensure!(users(&pool, "on")? as u64 == all - 1 - u64::from(VANISH), "not those who were released");

    samba.stop()?;
    run_now(&pool, "without-a-directory")?;
    let without = pool.until("no directory", RUN, came_to("DirectoryUnavailable", |_| true))?;
    ensure!(ready(&without), "the pool is not ready: {:#}", without["status"]);
    samba.start_again()?;
    run_now(&pool, "with-it-again")?;
    pool.until("the directory again", RUN, came_to("Synced", |_| true))?;
    let [alice, bob] = phones;
    alice.quit(false).await?;
    bob.quit(false).await?;
    drop(samba);
    pool.finish()
}

/// Whether the directory lets somebody sign in.
fn signs_in(person: &Person) -> bool {
    !person.disabled && (!person.address.is_empty() || !person.mail.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_one_front_end_of_standard_edition_reads_the_directory_itself() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    if !can_run("users from a directory in Standard Edition") {
        return Ok(());
    }
    let pool = Pool::prepare(cluster, "staff")?;
    let samba = directory(&pool, 100)?;
    pool.start(&json!({"directorySync": section(&samba, "* * * * *")}))?;
    pool.until("the directory's users", CYCLE, came_to("Synced", |_| true))?;
    let pod = pool.get("pod", &format!("{}-front-end-0", pool.name))?["metadata"]["uid"].clone();
    let [alice, bob] = [person(&pool, "alice")?, person(&pool, "bob")?];
    let mut phones = meet(&pool, &[alice, bob], Transport::Tls).await?;
    talk(&pool, &mut phones, "from the directory").await?;

    let vanish: Vec<String> = (0..20).map(|number| Person::numbered(number, "").login).collect();
    samba.delete(vanish.iter().map(String::as_str))?;
    let held = pool.until(
        "held",
        CYCLE + RUN,
        came_to("DeletionHeld", |status| status["held"] == true && status["missing"] == 20),
    )?;
    ensure!(ready(&held), "the pool is not ready: {:#}", held["status"]);
    release(&pool, &held)?;
    pool.until("released", BROUGHT, came_to("Synced", |_| true))?;
    ensure!(users(&pool, "disabled")? >= 20, "those who were released are still here");
    ensure!(
        pool.get("pod", &format!("{}-front-end-0", pool.name))?["metadata"]["uid"] == pod,
        "the pod was replaced for it"
    );
    talk(&pool, &mut phones, "after the release").await?;
    for phone in phones {
        phone.quit(false).await?;
    }
    drop(samba);
    pool.finish()
}
