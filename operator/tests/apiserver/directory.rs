//! Users from a directory on a real API server: the CronJob, and what runs came to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use commpool_operator::crd::CommunicationsPool;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::enterprise::{api, pod as pod_of, raise};
use crate::{NAMESPACE, Operator, apply, reaches, rests, serve_at, server::ApiServer, settles, until};

/// The pool of Enterprise Edition, and that of Standard Edition.
const POOL: &str = "enterprise-directory";
const STANDARD: &str = "directory";
const CRON_JOB: &str = "enterprise-directory-replicator";
const PATIENCE: Duration = Duration::from_secs(20);

async fn patch(admin: &Client, pool: &str, sync: Value) {
    let pools: Api<CommunicationsPool> = api(admin);
    let spec = json!({"spec": {"directorySync": sync}});
    pools.patch(pool, &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
}

async fn cron_job(admin: &Client, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let jobs: Api<CronJob> = api(admin);
    until(what, PATIENCE, || async {
        let job = serde_json::to_value(jobs.get_opt(CRON_JOB).await.unwrap()?).unwrap();
        is(&job["spec"]).then_some(job)
    })
    .await
}

/// What a run came to that ended a little while ago: of one long ago the next would be overdue.
fn outcome(result: &str, minute: u32, digest: &str) -> Value {
    let started = Timestamp::now() - SignedDuration::from_mins(30);
    let finished = started + SignedDuration::from_mins(minute.into());
    json!({"result": result, "message": format!("{result} in words"), "started": format!("{started:.0}"),
        "finished": format!("{finished:.0}"), "found": 7,
        "counts": {"added": 2, "unchanged": 5}, "planDigest": digest})
}

/// A run of the CronJob, as far as the API server sees it.
async fn run(admin: &Client, name: &str, outcome: &Value) {
    let (jobs, pods): (Api<CronJob>, Api<Pod>) = (api(admin), api(admin));
    let template = jobs.get(CRON_JOB).await.unwrap().spec.unwrap().job_template.spec.unwrap().template;
    pods.create(&PostParams::default(), &pod_of(name, template)).await.unwrap();
    let end = json!({"exitCode": 0, "reason": "Completed", "message": outcome.to_string()});
    let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [{"name": "replicator", "image": "x",
        "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end}}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

/// The sample of Enterprise Edition, from missing Secrets to a run that is told and released; the pool stays ready.
pub(crate) async fn replicates(admin: &Client) {
    raise(admin, POOL).await;
    reaches(admin, POOL, "Ready", "True", "Serving").await;
    reaches(admin, POOL, "DirectorySynced", "False", "SecretMissing").await;
    let job = cron_job(admin, "nothing is started", |spec| spec["suspend"] == true).await;
    assert_eq!(
        (&job["spec"]["schedule"], &job["spec"]["timeZone"]),
        (&json!("0 6-20 * * MON-FRI"), &json!("Europe/Berlin"))
    );
    for (name, keys) in [("ldap-bind", &["bindDN", "password"][..]), ("ldap-ca", &["ca.crt"])] {
        let data: serde_json::Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), json!("x"))).collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        apply(admin, &secret, NAMESPACE).await.unwrap();
    }
    cron_job(admin, "runs may start", |spec| spec["suspend"] == false).await;
    reaches(admin, POOL, "DirectorySynced", "False", "NotRunYet").await;
    by_hand(admin).await;

    run(admin, "run-1", &outcome("Synced", 1, "")).await;
    let pool = reaches(admin, POOL, "DirectorySynced", "True", "Synced").await;
    let status = pool.status.unwrap().directory_sync.unwrap();
    assert_eq!((status.found, status.added, status.last_success), (7, 2, status.last_attempt));
    run(admin, "run-2", &outcome("DeletionHeld", 2, "0123456789abcdef")).await;
    let pool = reaches(admin, POOL, "DirectorySynced", "False", "DeletionHeld").await;
    let status = pool.status.unwrap().directory_sync.unwrap();
    assert_eq!((status.held, status.plan_digest.as_deref()), (true, Some("0123456789abcdef")));
    patch(admin, POOL, json!({"removal": {"releaseDigest": "0123456789abcdef"}})).await;
    run(admin, "run-3", &outcome("Synced", 3, "")).await;
    reaches(admin, POOL, "DirectorySynced", "True", "Synced").await;
    reaches(admin, POOL, "Ready", "True", "Serving").await;
}

/// `kubectl create job --from=cronjob/…`: what it would make is taken by API server and namespace.
async fn by_hand(admin: &Client) {
    let (cron_jobs, jobs, pods): (Api<CronJob>, Api<Job>, Api<Pod>) = (api(admin), api(admin), api(admin));
    let template = cron_jobs.get(CRON_JOB).await.unwrap().spec.unwrap().job_template;
    let mut metadata = template.metadata.unwrap();
    metadata.name = Some("now".into());
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let spec = template.spec.unwrap();
    pods.create(&trial, &pod_of("now", spec.template.clone())).await.unwrap();
    jobs.create(&trial, &Job { metadata, spec: Some(spec), status: None }).await.unwrap();
}

/// A new process of the operator writes nothing, and knows what runs came to though their pods are gone.
pub(crate) async fn outlives(admin: &Client, server: &ApiServer, operator: Operator) -> Operator {
    rests(admin, &operator).await;
    operator.end().await;
    let pods: Api<Pod> = api(admin);
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for name in ["run-1", "run-2", "run-3"] {
        pods.delete(name, &now).await.unwrap();
    }
    let operator = Operator::start(server).await;
    settles(&operator).await;
    assert_eq!(operator.count("commpool_operator_writes_total").await, 0);
    reaches(admin, POOL, "DirectorySynced", "True", "Synced").await;
    operator
}

/// Another schedule, none for a while, and no directory any more.
pub(crate) async fn goes(admin: &Client) {
    let jobs: Api<CronJob> = api(admin);
    let uid = jobs.get(CRON_JOB).await.unwrap().uid();
    patch(admin, POOL, json!({"schedule": "@daily", "timeZone": null, "successfulJobsHistoryLimit": 1})).await;
    cron_job(admin, "the new schedule", |spec| {
        spec["schedule"] == "@daily" && spec["timeZone"] == "UTC" && spec["successfulJobsHistoryLimit"] == 1
    })
    .await;
    patch(admin, POOL, json!({"suspend": true})).await;
    cron_job(admin, "suspended", |spec| spec["suspend"] == true).await;
    reaches(admin, POOL, "DirectorySynced", "False", "Suspended").await;
    assert_eq!(jobs.get(CRON_JOB).await.unwrap().uid(), uid, "it was never made anew");
    patch(admin, POOL, Value::Null).await;
    until("the CronJob is gone", PATIENCE, || async { jobs.get_opt(CRON_JOB).await.unwrap().is_none().then_some(()) })
        .await;
    let pool = reaches(admin, POOL, "Ready", "True", "Serving").await.status.unwrap();
    assert!(pool.directory_sync.is_none() && pool.conditions.iter().all(|it| it.type_ != "DirectorySynced"));
}

type Answer = Arc<Mutex<Option<Value>>>;

/// A server's management port: gives where it is.
async fn management(answer: Answer) -> u16 {
    let answered = move || {
        let said = answer.lock().unwrap().clone();
        async move {
            let response: Response = match said {
                Some(outcome) => outcome.to_string().into_response(),
                None => StatusCode::NO_CONTENT.into_response(),
            };
            response
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/directory", get(answered));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// The sample of Standard Edition: the server is asked, now and then.
pub(crate) async fn asks(admin: &Client) {
    let answer = Answer::default();
    let port = management(answer.clone()).await;
    serve_at(admin, STANDARD, Some(port)).await;
    reaches(admin, STANDARD, "Ready", "True", "Serving").await;
    reaches(admin, STANDARD, "DirectorySynced", "False", "NotRunYet").await;
    *answer.lock().unwrap() = Some(outcome("Synced", 1, ""));
    let pools: Api<CommunicationsPool> = api(admin);
    // nothing tells the operator but the time
    until("the server was asked", Duration::from_secs(45), || async {
        let status = pools.get(STANDARD).await.unwrap().status?.directory_sync?;
        (status.found == 7).then_some(())
    })
    .await;
    reaches(admin, STANDARD, "DirectorySynced", "True", "Synced").await;
    *answer.lock().unwrap() = Some(outcome("DeletionHeld", 2, "0123456789abcdef"));
    patch(admin, STANDARD, json!({"removal": {"maxCount": 3}})).await;
    reaches(admin, STANDARD, "DirectorySynced", "False", "DeletionHeld").await;
    reaches(admin, STANDARD, "Ready", "True", "Serving").await;
}
