//! The volume claim of the pool's data: made once, grown on demand, kept when the pool goes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Blocker, metadata};
use crate::crd::Reason;
use crate::crd::quantity::{self, nanos};
use crate::names::Component;
use crate::observed::ClassFacts;
use crate::validate::{Database, ValidatedPool};

/// The volume that a pool asks for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Name of its claim.
    pub name: String,
    /// Its storage class; none: the cluster's default.
    pub class: Option<&'a str>,
    size: &'a quantity::Quantity,
    component: Component,
    field: &'static str,
}

impl<'a> Wanted<'a> {
    /// The volume of the pool's only front end, or of its own database; none where somebody else keeps the data.
    pub fn by(pool: &'a ValidatedPool) -> Option<Self> {
        match &pool.database {
            None => {
                let storage = &pool.spec.front_end.storage;
                Some(Self {
                    name: pool.names.data(),
                    class: storage.storage_class_name.as_deref(),
                    size: &storage.size,
                    component: Component::FrontEnd,
                    field: "spec.frontEnd.storage.size",
                })
            }
            Some(Database::Embedded { spec, .. }) => Some(Self {
                name: pool.names.database(),
                class: spec.storage.storage_class_name.as_deref(),
                size: &spec.storage.size,
                component: Component::Database,
                field: "spec.database.embedded.storage.size",
            }),
            Some(Database::External(_)) => None,
        }
    }

    /// Whether a decision about the claim hangs on its storage class: at its making, and when it is to grow.
    pub fn needs_class(&self, live: Option<&PersistentVolumeClaim>) -> bool {
        live.is_none_or(|claim| self.wants_growth(claim))
    }

    fn wants_growth(&self, live: &PersistentVolumeClaim) -> bool {
        self.size.nanos() > requested(live).and_then(nanos)
    }
}

/// The claim as it must be, and why it is smaller than declared if it is.
pub fn claim(
    pool: &ValidatedPool,
    wanted: &Wanted<'_>,
    live: Option<&PersistentVolumeClaim>,
    class: Option<&ClassFacts>,
) -> (PersistentVolumeClaim, Option<Blocker>) {
    let (size, refusal) = match live {
        None => (wanted.size.as_str().to_owned(), None),
        Some(live) => size(wanted, live, class),
    };
    let mode = match live {
        Some(live) => live.spec.as_ref().and_then(|spec| spec.access_modes.clone()),
        None => Some(vec![access_mode(class).to_owned()]),
    };
    let claim = PersistentVolumeClaim {
        metadata: metadata::kept(pool, wanted.name.clone(), wanted.component),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: mode,
            storage_class_name: match live {
                Some(live) => class_name(live).map(str::to_owned),
                None => wanted.class.map(str::to_owned),
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

fn size(wanted: &Wanted<'_>, live: &PersistentVolumeClaim, class: Option<&ClassFacts>) -> (String, Option<Blocker>) {
    let present = requested(live).unwrap_or_default().to_owned();
    if !wanted.wants_growth(live) || !is_bound(live) {
        return (present, None);
    }
    let why = match class {
        Some(class) if class.expandable => return (wanted.size.as_str().to_owned(), None),
        Some(class) => format!("storage class {} does not allow it (allowVolumeExpansion)", class.name),
        None => "its storage class does not exist".to_owned(),
    };
    let Wanted { field, name, size, .. } = wanted;
    let refusal = format!(
        "{field}: claim {name} cannot grow from {present} to {size}: {why}; change the class or set the size back to {present}"
    );
    (present, Some(Blocker::new(Reason::CannotGrow, refusal)))
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
