//! Enterprise Edition: scale, rest, and what stays when the pool goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::lab::{ENTERPRISE_TO_READY, Pool, cluster, ready_with};

/// How long a pool at rest is watched.
const QUIET: Duration = Duration::from_secs(60);

fn enterprise(pool: &Pool) -> Value {
    pool.resource(&json!({"edition": "Enterprise", "database": {"embedded": {"storage": {"size": "2Gi"}}}}))
}

/// When the operator last wrote to each object; others write to them too.
fn writes(pool: &Pool) -> Result<String> {
    let kinds = "communicationspools,deployments,statefulsets,jobs,services,serviceaccounts,secrets,persistentvolumeclaims,\
                 poddisruptionbudgets";
    let ours = r#"{.metadata.managedFields[?(@.manager=="commpool-operator")].time}"#;
    let each = format!(
        r#"-o=jsonpath={{range .items[*]}}{{.kind}} {{.metadata.name}} {{.metadata.uid}} {ours}{{"\n"}}{{end}}"#
    );
    pool.kubectl(&["get", kinds, "--show-managed-fields", &each])
}

#[test]
fn an_enterprise_pool_scales_rests_and_is_found_again() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "enterprise")?;
    pool.apply(&enterprise(&pool))?;
    pool.until("two front ends", ENTERPRISE_TO_READY, ready_with(2))?;
    pool.add_user("alice")?;
    let name = format!("cpool/{}", pool.name);
    for replicas in [3, 2] {
        pool.kubectl(&["scale", &name, &format!("--replicas={replicas}")])?;
        pool.until(&format!("{replicas} front ends"), ENTERPRISE_TO_READY, ready_with(replicas))?;
    }
    let before = writes(&pool)?;
    ensure!(before.lines().filter(|line| line.ends_with('Z')).count() >= 12, "{before}");
    // The operator looks at the pool once more, as it does every ten minutes, and finds nothing to do.
    pool.kubectl(&["annotate", &name, "stranger.example/look=again"])?;
    std::thread::sleep(QUIET);
    let after = writes(&pool)?;
    ensure!(after == before, "written at rest: {before}\n{after}");

    pool.kubectl(&["delete", &name, "--wait"])?;
    let left =
        pool.kubectl(&["get", "pvc,secret", "-l", &format!("commpool.dev/kept-for={}", pool.name), "-o", "name"])?;
    let (claim, logins) = (format!("{}-database", pool.name), format!("{}-database-credentials", pool.name));
    ensure!(left.lines().any(|line| line.ends_with(&claim)) && left.contains(&logins), "left: {left}");
    pool.apply(&enterprise(&pool))?;
    pool.until("two front ends again", ENTERPRISE_TO_READY, ready_with(2))?;
    let users = pool.server(&["user", "list"])?;
    ensure!(users.contains("alice"), "the users are gone: {users}");
    pool.finish()
}
