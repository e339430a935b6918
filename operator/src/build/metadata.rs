//! Names, labels and owners of a pool's objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names::{Component, KEPT_FOR};
use crate::validate::ValidatedPool;

/// Metadata of an object that goes when the pool goes.
pub fn owned(pool: &ValidatedPool, name: String, component: Component) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![pool.owner()]), ..plain(pool, name, component) }
}

/// Metadata of an object that outlives the pool, and is taken up again by one of the same name.
pub fn kept(pool: &ValidatedPool, name: String, component: Component) -> ObjectMeta {
    let mut metadata = plain(pool, name, component);
    metadata.labels.get_or_insert_default().insert(KEPT_FOR.into(), pool.names.pool().into());
    metadata
}

fn plain(pool: &ValidatedPool, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(pool.namespace.clone()),
        labels: Some(pool.names.labels(component, &pool.version)),
        ..ObjectMeta::default()
    }
}
