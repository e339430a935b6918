//! Reads a pool and its objects from the API server, all of them anew at every pass.
//!
//! Watches only say *when* to look; what is decided on was read in the same pass. So no decision rests on a stale cache,
//! and memory does not grow with other people's objects.

use futures::join;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::build::storage::needs_class;
use crate::crd::{CommunicationsPool, PoolSpec, PoolStatus};
use crate::error::ApiError;
use crate::names::{Component, selector_text};
use crate::observed::{ClassFacts, Observed};
use crate::validate::{TlsSource, ValidatedPool};

/// A pool as the API server has it.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What the user asks for, or what of it this operator does not understand.
    pub spec: Result<PoolSpec, String>,
    /// What was written last.
    pub status: PoolStatus,
}

/// Reads a pool; `None` if there is none (any more).
///
/// # Errors
/// If the API server does not answer with a pool.
pub async fn pool(client: &Client, namespace: &str, name: &str) -> Result<Option<Read>, ApiError> {
    let resource = kube::core::ApiResource::erase::<CommunicationsPool>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let object = api.get_opt(name).await.map_err(failed("get", "CommunicationsPool", name))?;
    Ok(object.map(|object| {
        let part = |key: &str| object.data.get(key).cloned().unwrap_or_default();
        Read {
            spec: serde_path_to_error::deserialize(part("spec")).map_err(|error| format!("spec.{error}")),
            status: serde_json::from_value(part("status")).unwrap_or_default(),
            metadata: object.metadata,
        }
    }))
}

/// Reads all objects of a pool.
///
/// # Errors
/// If the API server fails to answer one of the requests.
pub async fn objects(client: &Client, pool: &ValidatedPool) -> Result<Observed, ApiError> {
    let (names, namespace) = (&pool.names, pool.namespace.as_str());
    let secrets = [names.keys(), names.authority(), names.certificate(), names.config()];
    let [keys, authority, certificate, config] = &secrets;
    let (service, service_account, front_end, data) =
        (names.service(), names.front_end(), names.front_end(), names.data());
    let (service, service_account, front_end, claim, keys, authority, certificate, config, given, pods) = join!(
        get(client, namespace, &service),
        get(client, namespace, &service_account),
        get(client, namespace, &front_end),
        get(client, namespace, &data),
        get(client, namespace, keys),
        get(client, namespace, authority),
        get(client, namespace, certificate),
        get(client, namespace, config),
        given(client, pool),
        pods(client, pool),
    );
    let claim = claim?;
    let class = if needs_class(pool, claim.as_ref()) { class(client, pool, claim.as_ref()).await? } else { None };
    Ok(Observed {
        service: service?,
        service_account: service_account?,
        front_end: front_end?,
        claim,
        keys: keys?,
        authority: authority?,
        certificate: certificate?,
        config: config?,
        given: given?,
        pods: pods?,
        class,
    })
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    Api::namespaced(client.clone(), namespace).get_opt(name).await.map_err(failed("get", &K::kind(&()), name))
}

async fn given(client: &Client, pool: &ValidatedPool) -> Result<Option<Secret>, ApiError> {
    match &pool.tls {
        TlsSource::Secret(name) => get(client, &pool.namespace, name).await,
        TlsSource::NoListener | TlsSource::SelfManaged => Ok(None),
    }
}

async fn pods(client: &Client, pool: &ValidatedPool) -> Result<Vec<Pod>, ApiError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pool.namespace);
    let selector = selector_text(&pool.names.selector(Component::FrontEnd));
    let list = api.list(&ListParams::default().labels(&selector)).await;
    list.map(|list| list.items).map_err(failed("list", "Pod", pool.names.pool()))
}

/// The class of the claim, or the one it will get: the named one, else the cluster's default.
async fn class(
    client: &Client,
    pool: &ValidatedPool,
    claim: Option<&k8s_openapi::api::core::v1::PersistentVolumeClaim>,
) -> Result<Option<ClassFacts>, ApiError> {
    let named = match claim {
        Some(claim) => claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()),
        None => pool.spec.front_end.storage.storage_class_name.clone(),
    };
    let api: Api<StorageClass> = Api::all(client.clone());
    let classes = api.list(&ListParams::default()).await.map_err(failed("list", "StorageClass", ""))?.items;
    let Some(class) = choose(classes, named.as_deref()) else { return Ok(None) };
    let single_pod = claim.is_none() && is_csi(client, &class.provisioner).await?;
    Ok(Some(ClassFacts {
        name: class.name_any(),
        expandable: class.allow_volume_expansion.unwrap_or(false),
        single_pod,
    }))
}

/// Of several default classes the API server takes the newest.
fn choose(classes: Vec<StorageClass>, named: Option<&str>) -> Option<StorageClass> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    match named {
        Some(name) => classes.into_iter().find(|class| class.name_any() == name),
        None => classes
            .into_iter()
            .filter(|class| class.annotations().get(DEFAULT).is_some_and(|value| value == "true"))
            .max_by_key(|class| class.metadata.creation_timestamp.as_ref().map(|time| time.0)),
    }
}

/// Whether a provisioner is a CSI driver. Its name is then that of an object; names with a slash are of older kinds.
async fn is_csi(client: &Client, provisioner: &str) -> Result<bool, ApiError> {
    if provisioner.contains('/') {
        return Ok(false);
    }
    let api: Api<CSIDriver> = Api::all(client.clone());
    let found = api.get_opt(provisioner).await.map_err(failed("get", "CSIDriver", provisioner))?;
    Ok(found.is_some())
}

fn failed(verb: &'static str, kind: &str, name: &str) -> impl FnOnce(kube::Error) -> ApiError {
    let what = format!("{kind} {name}");
    move |source| ApiError { verb, what: what.trim_end().to_owned(), source }
}
