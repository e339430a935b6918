//! What people and accidents do to a pool's objects, and what the operator makes of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use commpool_tests::link::Transport;
use serde_json::{Value, json};

use crate::lab::{Pool, TO_READY, cluster};

/// Time within which a change by a stranger is put right.
const REPAIRED: Duration = Duration::from_secs(10);

/// Time without writes that is watched; the benches watch longer.
const QUIET: Duration = Duration::from_secs(60);

/// Kinds of a pool's objects.
const KINDS: &str = "communicationspools,statefulsets,services,secrets,persistentvolumeclaims,serviceaccounts";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ours_is_put_right_and_what_is_not_is_left() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "repair")?;
    pool.start(&json!({}))?;
    let name = pool.name.clone();
    let address = vip(&pool.get("service", &name)?).context("the VIP has no address")?;

    pool.kubectl(&["delete", "service", &name])?;
    pool.until_object("service", &name, "back at its address", REPAIRED, |it| vip(it).as_ref() == Some(&address))?;

    let set = format!("{name}-front-end");
    let image = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let right = image(&pool.get("statefulset", &set)?);
    let wrong =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "localhost/stranger:1"}]);
    pool.kubectl(&["patch", "statefulset", &set, "--type=json", "-p", &wrong.to_string()])?;
    pool.until_object("statefulset", &set, "its own image", REPAIRED, |it| image(it) == right)?;
    pool.ready(TO_READY)?;

    pool.kubectl(&["label", "service", &name, "stranger.example/mark=kept"])?;
    pool.kubectl(&["label", "statefulset", &set, "stranger.example/mark=kept"])?;
    // Changes that the operator does put right show that it has looked at the object since.
    let affinity = json!({"spec": {"sessionAffinity": "ClientIP"}}).to_string();
    pool.kubectl(&["patch", "service", &name, "--type=merge", "-p", &affinity])?;
    pool.until_object("service", &name, "without affinity", REPAIRED, |it| it["spec"]["sessionAffinity"] == "None")?;
    let ports = pool.get("service", &name)?["spec"]["ports"].clone();
    let moved = json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 9999}]).to_string();
    pool.kubectl(&["patch", "service", &name, "--type=json", "-p", &moved])?;
    pool.until_object("service", &name, "its own ports", REPAIRED, |it| it["spec"]["ports"] == ports)?;
    pool.ready(TO_READY)?;
    for (kind, name) in [("service", &name), ("statefulset", &set)] {
        let labels = pool.get(kind, name)?["metadata"]["labels"].clone();
        ensure!(labels["stranger.example/mark"] == "kept", "the label of a stranger is gone from {kind}: {labels}");
    }
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deleted_pool_leaves_its_data_and_comes_back_with_its_users() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "keep")?;
    pool.start(&json!({}))?;
    let alice = pool.add_user("alice")?;
    let mut phone = pool.phone(&alice, Transport::Tls).await?;
    phone.sign_in().await?;
    phone.quit(true).await?;
    let name = pool.name.clone();
    let uid = |kind: &str, name: &str| Ok::<_, anyhow::Error>(pool.get(kind, name)?["metadata"]["uid"].clone());
    let (data, authority) = (format!("{name}-data"), format!("{name}-ca"));
    let before = [uid("persistentvolumeclaim", &data)?, uid("secret", &authority)?];

    pool.kubectl(&["delete", "communicationspool", &name])?;
    pool.kubectl(&["wait", "--for=delete", &format!("pod/{name}-front-end-0"), "--timeout=60s"])?;
    pool.kubectl(&["wait", "--for=delete", &format!("service/{name}"), "--timeout=60s"])?;
    let after = [uid("persistentvolumeclaim", &data)?, uid("secret", &authority)?];
    ensure!(before == after, "data and authority are not those from before: {before:?}, {after:?}");

    pool.start(&json!({}))?;
    ensure!(pool.server(&["user", "list"])?.contains("alice@"), "the users are gone");
    let mut phone = pool.phone(&alice, Transport::Tls).await?;
    phone.sign_in().await?;
    phone.quit(false).await?;
    pool.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_at_rest_is_not_written_to() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "quiet")?;
    pool.start(&json!({}))?;
    // Ready is reached before the last of the first writes: what counts is the time after they have ended.
    let mut before = versions(&pool)?;
    let settled = Instant::now();
    while settled.elapsed() < REPAIRED {
        tokio::time::sleep(Duration::from_secs(2)).await;
        before = versions(&pool)?;
    }
    tokio::time::sleep(QUIET).await;
    let after = versions(&pool)?;
    ensure!(before == after, "written to at rest:\n{before:#?}\n{after:#?}");
    pool.finish()
}

/// Address of a Service of type LoadBalancer.
fn vip(service: &Value) -> Option<String> {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
}

/// Version of every object of the pool.
fn versions(pool: &Pool) -> Result<Vec<(String, String)>> {
    let list: Value = serde_json::from_str(&pool.kubectl(&["get", KINDS, "-o", "json"])?)?;
    let items = list["items"].as_array().context("no list")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |item: &Value| {
        let name = format!("{}/{}", text(&item["kind"]), text(&item["metadata"]["name"]));
        (name, text(&item["metadata"]["resourceVersion"]))
    };
    Ok(items.iter().map(of).collect())
}
