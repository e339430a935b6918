//! When to look: watches of pools and of their objects, by metadata only, turned into passes over pools.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::runtime::controller::{Config, Controller, Error as ControllerError};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::controller::{Context, PoolMeta, after_failure, reconcile};
use crate::crd::CommunicationsPool;
use crate::error::Error;
use crate::names::{KEPT_FOR, MANAGED_SELECTOR, pool_of};

/// Events of one pool within this time lead to one pass.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Time between two tries to list pools.
const LIST_PAUSE: Duration = Duration::from_secs(2);
/// How long passes under way may take at the end; Kubernetes gives the process 30 s.
const LAST_PASSES: Duration = Duration::from_secs(10);
/// Passes at a time.
const CONCURRENCY: u16 = 8;

/// Pools of one namespace, or of all.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The namespace; `None` for all.
    pub namespace: Option<String>,
}

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<PartialObjectMeta<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

/// Waits until pools can be listed: the API server is there, it knows pools, and we may see them.
pub async fn until_listed(client: &Client, scope: &Scope) {
    let api = scope.api::<CommunicationsPool>(client);
    while let Err(error) = api.list(&ListParams::default().limit(1)).await {
        tracing::warn!(%error, "pools cannot be listed; are the CRDs installed?");
        tokio::time::sleep(LIST_PAUSE).await;
    }
}

/// Watches and reconciles until `shutdown` ends; passes under way are finished.
pub async fn run(
    client: Client,
    scope: Scope,
    context: Arc<Context>,
    shutdown: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let controller = controller(&client, &scope, &context).graceful_shutdown_on(shutdown.clone());
    let forgetful = context.clone();
    let passes = controller.run(reconcile, after_failure, context).for_each(|result| {
        tell(&forgetful, result);
        std::future::ready(())
    });
    // a controller that never got its first list does not end by itself
    let enough = async {
        shutdown.await;
        tokio::time::sleep(LAST_PASSES).await;
    };
    tokio::select! {
        () = passes => {}
        () = enough => {}
    }
}

fn tell<T>(context: &Context, result: Result<T, ControllerError<Error, watcher::Error>>) {
    match result {
        Err(ControllerError::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.clone().unwrap_or_default();
            context.forget(&ObjectRef::new(&gone.name).within(&namespace));
        }
        Err(ControllerError::QueueError(error)) => tracing::warn!(%error, "watch failed; it is begun anew"),
        Err(error @ ControllerError::RunnerError(_)) => tracing::error!(%error, "no more passes"),
        // told by `after_failure`
        Err(ControllerError::ReconcilerFailed(..)) | Ok(_) => {}
    }
}

fn controller(client: &Client, scope: &Scope, context: &Arc<Context>) -> Controller<PoolMeta> {
    let controller = Controller::new(scope.api::<CommunicationsPool>(client), watcher::Config::default())
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY));
    let controller = watch::<Service>(controller, client, scope);
    let controller = watch::<ServiceAccount>(controller, client, scope);
    let controller = watch::<PersistentVolumeClaim>(controller, client, scope);
    let controller = watch::<StatefulSet>(controller, client, scope);
    let controller = watch::<Deployment>(controller, client, scope);
    let controller = watch::<Job>(controller, client, scope);
    let controller = watch::<CronJob>(controller, client, scope);
    let controller = watch::<PodDisruptionBudget>(controller, client, scope);
    let controller = watch::<Pod>(controller, client, scope);
    let context = context.clone();
    // all Secrets, for those that users keep: their metadata passes by and is not stored
    controller.watches(scope.api::<Secret>(client), watcher::Config::default(), move |secret| {
        let (namespace, name) = (secret.metadata.namespace.clone(), secret.metadata.name.clone());
        let given = context.pools_given(&namespace.unwrap_or_default(), &name.unwrap_or_default());
        given.into_iter().chain(pool_behind(&secret.metadata))
    })
}

fn watch<K>(controller: Controller<PoolMeta>, client: &Client, scope: &Scope) -> Controller<PoolMeta>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let ours = watcher::Config::default().labels(MANAGED_SELECTOR);
    controller.watches(scope.api::<K>(client), ours, |object| pool_behind(&object.metadata))
}

/// The pool that an object was made for, as far as what is left of labels and owners tells.
fn pool_behind(metadata: &ObjectMeta) -> Option<ObjectRef<PoolMeta>> {
    let labels = metadata.labels.as_ref();
    let owner = || {
        let mut owners = metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.kind == CommunicationsPool::kind(&())).map(|owner| owner.name.as_str())
    };
    let kept = || labels?.get(KEPT_FOR).map(String::as_str);
    let pool = labels.and_then(pool_of).or_else(owner).or_else(kept)?;
    Some(ObjectRef::new(pool).within(metadata.namespace.as_deref()?))
}
