//! The Back-End Database of the pool's own: one PostgreSQL on one volume, and how all of the pool reach theirs.
//!
//! The image keeps to the environment of the public `postgres` image, so that this one can stand in its place.

use std::net::IpAddr;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PodSpec, PodTemplateSpec, Service, ServicePort, ServiceSpec, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::FOLDER;
use super::pod::{self, Rhythm, from_secret, mount, port, runs, scratch};
use super::{credentials, metadata, tls};
use crate::crd::database::{EmbeddedSpec, ExternalTlsMode};
use crate::names::{CREDENTIALS_HASH, Component};
use crate::validate::{Database, ValidatedPool};

/// Name of the database's container.
pub const CONTAINER: &str = "postgres";
/// User and group of the database's image.
pub const USER: i64 = 5_432;
/// Name of the database in a PostgreSQL of the pool's own.
pub const NAME: &str = "commpool";
/// Port of a PostgreSQL of the pool's own.
pub const PORT: u16 = 5_432;
/// Where the volume is; the data are in a folder below, since the volume's own may hold what is not theirs.
const VOLUME: &str = "/var/lib/postgresql/data";
/// Seconds for the last checkpoint.
const GRACE_SECONDS: i64 = 120;
/// Twice 64 front ends while they are replaced, five connections each, and some for people and jobs.
const MAX_CONNECTIONS: u32 = 700;

/// Whose login files a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// The front ends'.
    Server,
    /// That of the migrations: the owner's, or in a database of the pool's own the superuser's.
    Migration,
    /// The replicator's.
    Replicator,
}

/// Name and password for the database as files, and the authority of its certificate if it shows one.
pub(super) fn login_files(pool: &ValidatedPool, login: Login) -> Vec<VolumeProjection> {
    let keys = |who: &str| [format!("{who}-username"), format!("{who}-password")];
    let files = |secret: &str, who: &str| {
        let [name, password] = keys(who);
        from_secret(secret.to_owned(), &[(&name, "database/username"), (&password, "database/password")])
    };
    match (&pool.database, login) {
        (None, _) => Vec::new(),
        (Some(Database::Embedded { .. }), Login::Server) => vec![files(&pool.names.credentials(), "server")],
        (Some(Database::Embedded { .. }), Login::Replicator) => vec![files(&pool.names.credentials(), "replicator")],
        (Some(Database::Embedded { .. }), Login::Migration) => {
            vec![files(&pool.names.credentials(), credentials::SUPERUSER)]
        }
        (Some(Database::External(external)), login) => {
            let who = match login {
                Login::Server => "server",
                Login::Migration => "owner",
                Login::Replicator => "replicator",
            };
            let mut sources = vec![files(&external.credentials_secret, who)];
            if let (ExternalTlsMode::VerifyFull, Some(secret)) = (external.tls.mode, &external.tls.ca_secret) {
                sources.push(from_secret(secret.clone(), &[(tls::TRUST, "database/ca.crt")]));
            }
            sources
        }
    }
}

/// Where the database is, for people: host and port.
pub fn place(pool: &ValidatedPool) -> String {
    match pool.external() {
        Some(external) if external.host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) => {
            format!("[{}]:{}", external.host, external.port)
        }
        Some(external) => format!("{}:{}", external.host, external.port),
        None => format!("{}:{PORT}", host(pool)),
    }
}

/// Name of a database of the pool's own inside the cluster.
pub fn host(pool: &ValidatedPool) -> String {
    format!("{}.{}.svc", pool.names.database(), pool.namespace)
}

/// The Service of a database of the pool's own.
pub fn service(pool: &ValidatedPool) -> Service {
    Service {
        metadata: metadata::owned(pool, pool.names.database(), Component::Database),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(pool.names.selector(Component::Database)),
            ports: Some(vec![ServicePort {
                name: Some("postgres".into()),
                port: PORT.into(),
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::String("postgres".into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The workload of a database of the pool's own. `credentials` is the hash of its logins: a new superuser's password
/// is taken up at the start.
pub fn stateful_set(pool: &ValidatedPool, image: &str, spec: &EmbeddedSpec, credentials: &str) -> StatefulSet {
    let labels = pool.names.labels(Component::Database, &pool.version);
    let annotations = [(CREDENTIALS_HASH.to_owned(), credentials.to_owned())];
    StatefulSet {
        metadata: metadata::owned(pool, pool.names.database(), Component::Database),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            pod_management_policy: Some("Parallel".into()),
            selector: LabelSelector {
                match_labels: Some(pool.names.selector(Component::Database)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations.into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(pool, image, spec)),
            },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn pod(pool: &ValidatedPool, image: &str, spec: &EmbeddedSpec) -> PodSpec {
    let password = from_secret(pool.names.credentials(), &[(credentials::SUPERUSER_PASSWORD, "superuser-password")]);
    PodSpec {
        containers: vec![container(pool, image, spec)],
        volumes: Some(vec![
            pod::files(vec![password]),
            pod::data(pool.names.database()),
            scratch("sockets"),
            scratch("temporary"),
        ]),
        ..pod::base(pool, USER, GRACE_SECONDS)
    }
}

/// No liveness probe: a database that recovers after a crash must not be killed for it, and one that ended is started
/// again without.
fn container(pool: &ValidatedPool, image: &str, spec: &EmbeddedSpec) -> Container {
    let variable =
        |name: &str, value: &str| EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() };
    // by address, so that neither initdb nor a repair is taken for the database
    let answers = ["pg_isready", "--quiet", "--host=127.0.0.1"];
    Container {
        name: CONTAINER.into(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(pool.spec.image.pull_policy.as_str().into()),
        args: Some(settings(spec)),
        env: Some(vec![
            variable("PGDATA", &format!("{VOLUME}/pgdata")),
            variable("POSTGRES_USER", credentials::SUPERUSER_NAME),
            variable("POSTGRES_PASSWORD_FILE", &format!("{FOLDER}/superuser-password")),
            variable("POSTGRES_DB", NAME),
            variable("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8 --data-checksums"),
        ]),
        ports: Some(vec![port("postgres", PORT, "TCP")]),
        volume_mounts: Some(vec![
            mount("files", FOLDER, Some(true)),
            mount("data", VOLUME, None),
            mount("sockets", "/var/run/postgresql", None),
            mount("temporary", "/tmp", None),
        ]),
        resources: Some(pod::resources(spec.resources.amounts())),
        security_context: Some(pod::confined()),
        startup_probe: Some(runs(&answers, Rhythm { period: 2, failures: 900, timeout: 2 })),
        readiness_probe: Some(runs(&answers, Rhythm { period: 5, failures: 3, timeout: 2 })),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

/// What the server is told beside its defaults. A quarter of the memory as cache is PostgreSQL's own advice.
fn settings(spec: &EmbeddedSpec) -> Vec<String> {
    const KIB_IN_NANOS: i128 = 1_024 * 1_000_000_000;
    let memory = spec.resources.limits.memory.nanos().unwrap_or_default();
    let cache = memory / 4 / KIB_IN_NANOS;
    let mut words = vec!["postgres".to_owned()];
    for setting in [
        "listen_addresses=*".to_owned(),
        format!("max_connections={MAX_CONNECTIONS}"),
        format!("shared_buffers={cache}kB"),
        "jit=off".to_owned(),
    ] {
        words.extend(["-c".to_owned(), setting]);
    }
    words
}
