//! Reads a pool and its objects from the API server, all of them anew at every pass.
//!
//! Watches only say *when* to look; what is decided on was read in the same pass. So no decision rests on a stale cache,
//! and memory does not grow with other people's objects.

use std::collections::BTreeMap;

use futures::join;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::build::storage::Wanted;
use crate::crd::{CommunicationsPool, PoolSpec, PoolStatus};
use crate::error::ApiError;
use crate::names::{Component, selector_text};
use crate::observed::{ClassFacts, Observed, Workload};
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
    let of = Source { client, namespace: &pool.namespace };
    let (names, volume) = (&pool.names, Wanted::by(pool));
    let claim_name = volume.as_ref().map(|volume| volume.name.clone());
    let given = match &pool.tls {
        TlsSource::Secret(name) => Some(name.clone()),
        TlsSource::NoListener | TlsSource::SelfManaged => None,
    };
    let ldap = pool.spec.directory_sync.as_ref().map(|sync| &sync.ldap);
    let all_pods = names.all_pods();
    let everywhere = join!(
        of.get(Some(names.service())),
        of.get(Some(names.front_end())),
        of.get(Some(names.keys())),
        of.get(Some(names.authority())),
        of.get(Some(names.certificate())),
        of.get(Some(names.config())),
        of.get(claim_name),
        of.get(given),
        of.get(ldap.map(|ldap| ldap.bind_secret.clone())),
        of.get(ldap.map(|ldap| ldap.ca_secret.clone())),
        of.list(&all_pods),
    );
    let (service, service_account, keys, authority, certificate, config, claim, given, bind, trust, pods) = everywhere;
    let (front_end, claim) = (of.front_end(pool).await?, claim?);
    let class = match &volume {
        Some(volume) if volume.needs_class(claim.as_ref()) => class(client, volume, claim.as_ref()).await?,
        _ => None,
    };
    let observed = Observed {
        service: service?,
        service_account: service_account?,
        keys: keys?,
        authority: authority?,
        certificate: certificate?,
        config: config?,
        given: given?,
        bind: bind?,
        directory_authority: trust?,
        pods: pods?,
        front_end,
        claim,
        class,
        ..Observed::default()
    };
    if pool.is_enterprise() { back_end(of, pool, observed).await } else { Ok(observed) }
}

/// Reads what Enterprise Edition has besides.
async fn back_end(of: Source<'_>, pool: &ValidatedPool, observed: Observed) -> Result<Observed, ApiError> {
    let (names, external) = (&pool.names, pool.external());
    let embedded = |name: String| pool.embedded().map(|_| name);
    let migrations = names.selector(Component::Migration);
    let besides = join!(
        of.get(Some(names.peers())),
        of.get(Some(names.front_end())),
        of.get(Some(names.peer_certificate())),
        of.get(embedded(names.credentials())),
        of.get(embedded(names.database())),
        of.get(embedded(names.database())),
        of.get(external.map(|external| external.credentials_secret.clone())),
        of.get(external.and_then(|external| external.tls.ca_secret.clone())),
        of.get::<CronJob>(Some(names.replicator())),
        of.list::<Job>(&migrations),
    );
    let (peers, budget, peer_tls, credentials, service, database, logins, authority, replicator, migrations) = besides;
    Ok(Observed {
        peers: peers?,
        disruption_budget: budget?,
        peer_certificate: peer_tls?,
        credentials: credentials?,
        database_service: service?,
        database: database?,
        logins: logins?,
        database_authority: authority?,
        replicator: replicator?,
        migrations: migrations?,
        ..observed
    })
}

/// Where a pool's objects are read.
#[derive(Clone, Copy)]
struct Source<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Source<'_> {
    /// The object of this name, where there is a name.
    async fn get<K>(self, name: Option<String>) -> Result<Option<K>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let Some(name) = name else { return Ok(None) };
        let api = Api::namespaced(self.client.clone(), self.namespace);
        api.get_opt(&name).await.map_err(failed("get", &K::kind(&()), &name))
    }

    /// All objects with these labels.
    async fn list<K>(self, labels: &BTreeMap<String, String>) -> Result<Vec<K>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let list = api.list(&ListParams::default().labels(&selector_text(labels))).await;
        let pool = labels.get("app.kubernetes.io/instance").map_or("", String::as_str);
        list.map(|list| list.items).map_err(failed("list", &K::kind(&()), pool))
    }

    async fn front_end(self, pool: &ValidatedPool) -> Result<Option<Workload>, ApiError> {
        let name = Some(pool.names.front_end());
        Ok(if pool.is_enterprise() {
            self.get::<Deployment>(name).await?.map(Workload::Deployment)
        } else {
            self.get::<StatefulSet>(name).await?.map(Workload::Set)
        })
    }
}

/// The class of the claim, or the one it will get: the named one, else the cluster's default.
async fn class(
    client: &Client,
    wanted: &Wanted<'_>,
    claim: Option<&PersistentVolumeClaim>,
) -> Result<Option<ClassFacts>, ApiError> {
    let named = match claim {
        Some(claim) => claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()),
        None => wanted.class,
    };
    let api: Api<StorageClass> = Api::all(client.clone());
    let classes = api.list(&ListParams::default()).await.map_err(failed("list", "StorageClass", ""))?.items;
    let Some(class) = choose(classes, named) else { return Ok(None) };
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
