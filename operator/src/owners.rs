//! Whose the objects of a pool's names are. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use crate::build::Blocker;
use crate::crd::{CommunicationsPool, Reason};
use crate::names::{KEPT_FOR, pool_of};
use crate::observed::Observed;
use crate::plan::Kind;
use crate::validate::{TlsSource, ValidatedPool};

/// Objects of our names that are not ours to write: a pool with such an object is left alone.
pub fn strangers(pool: &ValidatedPool, observed: &Observed, migration: Option<&Job>) -> Vec<Blocker> {
    let syncs = pool.spec.directory_sync.is_some();
    let self_managed = pool.tls == TlsSource::SelfManaged;
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.metadata.clone());
    let service = |service: &Option<Service>| service.as_ref().map(|service| service.metadata.clone());
    let job = migration.and_then(|wanted| {
        observed.migrations.iter().map(|job| &job.metadata).find(|live| live.name == wanted.metadata.name)
    });
    let owned = [
        (Kind::Service, service(&observed.service)),
        (Kind::Service, service(&observed.peers)),
        (Kind::Service, service(&observed.database_service)),
        (Kind::ServiceAccount, observed.service_account.as_ref().map(|object| object.metadata.clone())),
        (Kind::Secret, secret(&observed.keys)),
        (Kind::Secret, secret(&observed.certificate).filter(|_| self_managed)),
        (Kind::Secret, secret(&observed.peer_certificate)),
        (Kind::Secret, secret(&observed.config)),
        (Kind::StatefulSet, observed.database.as_ref().map(|object| object.metadata.clone())),
        (Kind::Job, job.cloned()),
        (
            observed.front_end.as_ref().map_or(Kind::StatefulSet, Kind::of),
            observed.front_end.as_ref().map(|object| object.metadata().clone()),
        ),
        (Kind::PodDisruptionBudget, observed.disruption_budget.as_ref().map(|object| object.metadata.clone())),
        (Kind::CronJob, observed.replicator.as_ref().filter(|_| syncs).map(|object| object.metadata.clone())),
    ];
    let kept = [
        (Kind::Secret, secret(&observed.authority).filter(|_| self_managed || pool.is_enterprise())),
        (Kind::Secret, secret(&observed.credentials)),
        (Kind::PersistentVolumeClaim, observed.claim.as_ref().map(|object| object.metadata.clone())),
    ];
    let owned = owned.into_iter().filter_map(|(kind, metadata)| stranger(pool, kind, &metadata?, false));
    let kept = kept.into_iter().filter_map(|(kind, metadata)| stranger(pool, kind, &metadata?, true));
    owned.chain(kept).collect()
}

/// Whether an object is this pool's.
pub fn is_owned(pool: &ValidatedPool, metadata: &ObjectMeta) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == pool.uid)
}

fn stranger(pool: &ValidatedPool, kind: Kind, metadata: &ObjectMeta, kept: bool) -> Option<Blocker> {
    let (kind, name) = (kind.as_str(), metadata.name.as_deref().unwrap_or_default());
    let deleting =
        |why: &str| Some(Blocker::new(Reason::Deleting, format!("{kind} {name} {why} and is still being deleted")));
    let taken = |why: String| Some(Blocker::new(Reason::NameTaken, format!("{kind} {name} {why}")));
    if metadata.deletion_timestamp.is_some() {
        return deleting("was deleted");
    }
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let labels = metadata.labels.clone().unwrap_or_default();
    match owner {
        Some(owner) if owner.uid == pool.uid => None,
        Some(owner) if owner.kind == CommunicationsPool::kind(&()) && owner.name == pool.names.pool() => {
            deleting("belongs to an earlier pool of this name")
        }
        Some(owner) => {
            taken(format!("belongs to {} {}; delete it, or name the pool otherwise", owner.kind, owner.name))
        }
        None if kept && labels.get(KEPT_FOR).map(String::as_str) == Some(pool.names.pool()) => None,
        None if kept => taken(format!(
            "exists and was not kept for this pool; label it {KEPT_FOR}={} to give it to the pool, or delete it",
            pool.names.pool()
        )),
        None if pool_of(&labels) == Some(pool.names.pool()) => None,
        None => taken("exists and was not made by this operator; delete it, or name the pool otherwise".into()),
    }
}
