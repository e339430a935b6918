//! The volume claim of Standard Edition: made once, grown on demand, kept when the pool goes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Blocker, metadata};
use crate::crd::Reason;
use crate::crd::quantity::nanos;
use crate::names::Component;
use crate::observed::ClassFacts;
use crate::validate::ValidatedPool;

/// Whether a decision about the claim hangs on its storage class: at its making, and when it is to grow.
pub fn needs_class(pool: &ValidatedPool, live: Option<&PersistentVolumeClaim>) -> bool {
    live.is_none_or(|claim| wants_growth(pool, claim))
}

/// The claim as it must be, and why it is smaller than declared if it is.
pub fn claim(
    pool: &ValidatedPool,
    live: Option<&PersistentVolumeClaim>,
    class: Option<&ClassFacts>,
) -> (PersistentVolumeClaim, Option<Blocker>) {
    let storage = &pool.spec.front_end.storage;
    let (size, refusal) = match live {
        None => (storage.size.as_str().to_owned(), None),
        Some(live) => size(pool, live, class),
    };
    let mode = match live {
        Some(live) => live.spec.as_ref().and_then(|spec| spec.access_modes.clone()),
        None => Some(vec![access_mode(class).to_owned()]),
    };
    let claim = PersistentVolumeClaim {
        metadata: metadata::kept(pool, pool.names.data(), Component::FrontEnd),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: mode,
            storage_class_name: match live {
                Some(live) => class_name(live).map(str::to_owned),
                None => storage.storage_class_name.clone(),
            },
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    };
    (claim, refusal)
}

/// One pod where the driver can see to that, else one node; the store's own lock keeps a second pod out there.
fn access_mode(class: Option<&ClassFacts>) -> &'static str {
    if class.is_some_and(|class| class.single_pod) { "ReadWriteOncePod" } else { "ReadWriteOnce" }
}

fn size(pool: &ValidatedPool, live: &PersistentVolumeClaim, class: Option<&ClassFacts>) -> (String, Option<Blocker>) {
    let wanted = &pool.spec.front_end.storage.size;
    let present = requested(live).unwrap_or_default().to_owned();
    if !wants_growth(pool, live) || !is_bound(live) {
        return (present, None);
    }
    match class {
        Some(class) if class.expandable => (wanted.as_str().to_owned(), None),
        Some(class) => {
            let name = &class.name;
            (
                present,
                Some(cannot_grow(
                    pool,
                    live,
                    &format!("storage class {name} does not allow it (allowVolumeExpansion)"),
                )),
            )
        }
        None => (present, Some(cannot_grow(pool, live, "its storage class does not exist"))),
    }
}

fn cannot_grow(pool: &ValidatedPool, live: &PersistentVolumeClaim, why: &str) -> Blocker {
    let (claim, wanted) = (pool.names.data(), &pool.spec.front_end.storage.size);
    let present = requested(live).unwrap_or_default();
    Blocker::new(
        Reason::CannotGrow,
        format!(
            "spec.frontEnd.storage.size: claim {claim} cannot grow from {present} to {wanted}: {why}; change the class or set the size back to {present}"
        ),
    )
}

fn wants_growth(pool: &ValidatedPool, live: &PersistentVolumeClaim) -> bool {
    pool.spec.front_end.storage.size.nanos() > requested(live).and_then(nanos)
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|quantity| quantity.0.as_str())
}

fn class_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.storage_class_name.as_deref()
}

/// Whether the claim has its volume; the API server lets no other claim grow.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}
