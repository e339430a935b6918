//! Names and labels of every object, in one place.

use std::collections::BTreeMap;

/// Name of the product in `app.kubernetes.io/name`.
pub const PRODUCT: &str = "commpool";
/// The one field manager, and `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "commpool-operator";
/// Annotation of the pod template: hash of what a running server does not reload.
pub const CONFIG_HASH: &str = "commpool.dev/config-hash";
/// Annotation of the database's pod template: hash of the logins, which it takes up at its start.
pub const CREDENTIALS_HASH: &str = "commpool.dev/credentials-hash";
/// Label of objects that outlive their pool; its value is the pool's name.
pub const KEPT_FOR: &str = "commpool.dev/kept-for";
/// Label that brings a front end into the VIP.
pub const VIP: &str = "commpool.dev/vip";
/// Value of [`VIP`] for a front end in the VIP.
pub const VIP_IN: &str = "in";
/// Label of every object of a pool with the name of its part.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Selects every object the operator makes.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=commpool-operator";

/// Part of a pool, in `app.kubernetes.io/component`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The front ends and what they are given.
    FrontEnd,
    /// The pool's address.
    Vip,
    /// The pool's certificate authority and certificates.
    Certificates,
    /// The Back-End Database.
    Database,
    /// The migrations of its schema.
    Migration,
    /// The replicator of users from a directory.
    Replicator,
}

impl Component {
    /// Its name in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FrontEnd => "front-end",
            Self::Vip => "vip",
            Self::Certificates => "certificates",
            Self::Database => "database",
            Self::Migration => "migration",
            Self::Replicator => "replicator",
        }
    }
}

/// Names of a pool's objects. The rule on `metadata.name` (at most 40 characters) keeps all of them below 63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pool: String,
}

impl Names {
    /// Names for the pool `pool`.
    pub fn new(pool: impl Into<String>) -> Self {
        Self { pool: pool.into() }
    }

    /// The pool's own name.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The VIP Service.
    pub fn service(&self) -> String {
        self.pool.clone()
    }

    /// The front ends' workload, service account, disruption budget and pods.
    pub fn front_end(&self) -> String {
        self.with("front-end")
    }

    /// The Secret with the server's configuration.
    pub fn config(&self) -> String {
        self.with("config")
    }

    /// The Secret with the pool's key.
    pub fn keys(&self) -> String {
        self.with("keys")
    }

    /// The Secret with the pool's certificate authority.
    pub fn authority(&self) -> String {
        self.with("ca")
    }

    /// The Secret with the certificate towards clients.
    pub fn certificate(&self) -> String {
        self.with("tls")
    }

    /// The volume claim of Standard Edition.
    pub fn data(&self) -> String {
        self.with("data")
    }

    /// The headless Service of all front ends.
    pub fn peers(&self) -> String {
        self.with("peers")
    }

    /// The Secret with the certificate between front ends.
    pub fn peer_certificate(&self) -> String {
        self.with("peer-tls")
    }

    /// The database of the pool's own: its workload, Service and volume claim.
    pub fn database(&self) -> String {
        self.with("database")
    }

    /// The Secret with the logins of the pool's own database.
    pub fn credentials(&self) -> String {
        self.with("database-credentials")
    }

    /// The migration Job; `hash` tells those of different versions apart.
    pub fn migration(&self, hash: &str) -> String {
        self.with(&format!("migrate-{hash}"))
    }

    /// The CronJob that brings users from a directory.
    pub fn replicator(&self) -> String {
        self.with("replicator")
    }

    fn with(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.pool)
    }

    /// Labels that never change over an object's life and select a component's pods.
    pub fn selector(&self, component: Component) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", PRODUCT),
            ("app.kubernetes.io/instance", self.pool.as_str()),
            (COMPONENT, component.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Labels that select all pods of the pool.
    pub fn all_pods(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector(Component::FrontEnd);
        labels.remove(COMPONENT);
        labels
    }

    /// Labels of an object of `component`, made by this operator for `version`.
    pub fn labels(&self, component: Component, version: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
        labels.insert("app.kubernetes.io/version".into(), version.into());
        labels
    }
}

/// A label selector as text.
pub fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The pool that an object with these labels was made for.
pub fn pool_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    let ours = labels.get("app.kubernetes.io/managed-by").is_some_and(|manager| manager == MANAGER);
    labels.get("app.kubernetes.io/instance").filter(|_| ours).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_kubernetes_adds_to_them_fit() {
        let names = Names::new("a".repeat(40));
        for name in [
            names.service(),
            names.config(),
            names.keys(),
            names.authority(),
            names.certificate(),
            names.data(),
            names.peers(),
            names.peer_certificate(),
            names.credentials(),
            // a Job's pods carry its name in a label
            names.migration(&"0".repeat(10)),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
        // a CronJob's Jobs carry its name and eleven characters more
        assert!(names.replicator().len() <= 52);
        // a StatefulSet's pods carry its name, '-' and a hash of ten characters in a label
        assert!(names.front_end().len() + 11 <= 63 && names.database().len() + 11 <= 63);
    }

    #[test]
    fn only_our_objects_name_their_pool() {
        let labels = Names::new("demo").labels(Component::Vip, "1");
        assert_eq!(pool_of(&labels), Some("demo"));
        assert_eq!(pool_of(&Names::new("demo").selector(Component::Vip)), None);
    }
}
