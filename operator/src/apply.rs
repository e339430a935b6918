//! Carries out writes, one by one, and stops at the first that fails.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::build::Blocker;
use crate::crd::{CommunicationsPool, PoolStatus};
use crate::error::{ApiError, Class, Error};
use crate::names::MANAGER;
use crate::plan::{Op, Write};
use crate::status::Outcome;
use kube::Resource;

/// Writes `ops` in order. What only a person can mend ends the run and is part of the outcome.
///
/// # Errors
/// If a write failed that can succeed later; what was written before it stays.
pub async fn run(client: &Client, namespace: &str, ops: Vec<Op>) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for op in ops {
        match write(client, namespace, &op).await {
            Ok(()) => {
                tracing::info!(kind = op.kind.as_str(), name = op.name, why = ?op.why, "wrote");
                outcome.wrote.push(op);
            }
            Err(error) => match error.class() {
                Class::Person(reason) => {
                    outcome.refusal = Some(Blocker::new(reason, error.message()));
                    break;
                }
                Class::Retry => return Err(error.into()),
            },
        }
    }
    Ok(outcome)
}

async fn write(client: &Client, namespace: &str, op: &Op) -> Result<(), ApiError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &op.kind.resource());
    let failed = |verb: &'static str| {
        let what = format!("{} {}", op.kind.as_str(), op.name);
        move |source| ApiError { verb, what, source }
    };
    match &op.write {
        Write::Create(object) => {
            let object = parsed(object).map_err(failed("create"))?;
            let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
            api.create(&params, &object).await.map(drop).map_err(failed("create"))
        }
        Write::Apply(object) => {
            api.patch(&op.name, &params(), &Patch::Apply(object)).await.map(drop).map_err(failed("patch"))
        }
        Write::Patch(edits) => {
            let patch = Patch::Json::<()>(parsed(edits).map_err(failed("patch"))?);
            let params = PatchParams { force: false, ..params() };
            api.patch(&op.name, &params, &patch).await.map(drop).map_err(failed("patch"))
        }
        Write::Delete { uid, version } => {
            let seen = Preconditions { uid: uid.clone(), resource_version: version.clone() };
            match api.delete(&op.name, &DeleteParams::background().preconditions(seen)).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(gone)) if gone.is_not_found() => Ok(()),
                Err(source) => Err(failed("delete")(source)),
            }
        }
    }
}

fn parsed<T: DeserializeOwned>(value: &Value) -> Result<T, kube::Error> {
    serde_json::from_value(value.clone()).map_err(kube::Error::SerdeError)
}

/// Writes the status of the pool `name` with identity `uid`. A pool that is gone needs none.
///
/// # Errors
/// If the API server refuses it or does not answer.
pub async fn status(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    status: &PoolStatus,
) -> Result<(), ApiError> {
    let api: Api<CommunicationsPool> = Api::namespaced(client.clone(), namespace);
    let body = json!({
        "apiVersion": CommunicationsPool::api_version(&()),
        "kind": CommunicationsPool::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "status": status,
    });
    match api.patch_status(name, &params(), &Patch::Apply(&body)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(gone)) if gone.is_not_found() => Ok(()),
        Err(source) => Err(ApiError { verb: "patch", what: format!("status of CommunicationsPool {name}"), source }),
    }
}

/// Unknown fields are errors, and our fields are ours.
fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force().validation_strict()
}
