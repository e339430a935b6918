//! What server and replicator are told of the directory: a section of their configuration, and files from Secrets that
//! somebody else keeps.

use std::path::PathBuf;

use commpool_model::config::{Directory, Ldap, Schedule};
use k8s_openapi::api::core::v1::{Container, EnvVar, Volume, VolumeProjection};

use super::config::FOLDER;
use super::given::Given;
use super::pod::{bounded, from_secret, mount, perhaps};
use crate::crd::directory::{DirectorySyncSpec, LdapSpec};
use crate::observed::Observed;
use crate::validate::ValidatedPool;

/// Folder of the files, below [`FOLDER`].
const PLACE: &str = "directory";
const BIND_DN: &str = "bindDN";
const PASSWORD: &str = "password";
const AUTHORITIES: &str = "ca.crt";
/// Name of the volume where a run keeps what it read of the directory.
const SCRATCH: &str = "scratch";
/// Where that volume is.
const SCRATCH_FOLDER: &str = "/tmp";
/// Most octets there: some two million users.
const SCRATCH_SIZE: &str = "1Gi";

/// The section. `scheduled`: whether its reader starts runs by itself.
pub fn section(spec: &DirectorySyncSpec, scheduled: bool) -> Directory {
    let schedule =
        || Schedule { cron: spec.schedule.clone(), time_zone: spec.time_zone.clone(), suspend: spec.suspend };
    let file = |name: &str| PathBuf::from(FOLDER).join(PLACE).join(name);
    let ldap = &spec.ldap;
    Directory {
        schedule: scheduled.then(schedule),
        ldap: Ldap {
            urls: ldap.urls.clone(),
            base_dn: ldap.base_dn.clone(),
            filter: ldap.filter.clone(),
            bind_dn_file: file(BIND_DN),
            password_file: file(PASSWORD),
            ca_file: file(AUTHORITIES),
            page_size: ldap.page_size,
            timeout_seconds: ldap.timeout_seconds,
        },
        mapping: spec.mapping.to_config(),
        removal: spec.removal.to_config(),
    }
}

/// The files. A pod starts without those that are not there: a directory out of reach keeps nobody from being served.
pub(super) fn files(ldap: &LdapSpec) -> Vec<VolumeProjection> {
    let path = |name: &str| format!("{PLACE}/{name}");
    let (bind_dn, password, authorities) = (path(BIND_DN), path(PASSWORD), path(AUTHORITIES));
    let account = [(ldap.bind_dn_key.as_str(), bind_dn.as_str()), (&ldap.password_key, &password)];
    vec![
        perhaps(from_secret(ldap.bind_secret.clone(), &account)),
        perhaps(from_secret(ldap.ca_secret.clone(), &[(&ldap.ca_key, &authorities)])),
    ]
}

/// Gives a container, and its pod, room for what a run reads of the directory: their root cannot be written to.
pub(super) fn give_room(container: &mut Container, volumes: &mut Vec<Volume>) {
    let folder = EnvVar { name: "TMPDIR".into(), value: Some(SCRATCH_FOLDER.into()), ..EnvVar::default() };
    container.env.get_or_insert_default().push(folder);
    container.volume_mounts.get_or_insert_default().push(mount(SCRATCH, SCRATCH_FOLDER, None));
    volumes.push(bounded(SCRATCH, SCRATCH_SIZE));
}

/// What a run needs of that which somebody else keeps, and is not there: the field, and what mends it.
pub fn missing(pool: &ValidatedPool, observed: &Observed) -> Option<String> {
    let ldap = &pool.spec.directory_sync.as_ref()?.ldap;
    let account = Given {
        field: "spec.directorySync.ldap.bindSecret",
        name: &ldap.bind_secret,
        secret: observed.bind.as_ref(),
        keys: &[&ldap.bind_dn_key, &ldap.password_key],
    };
    let authorities = Given {
        field: "spec.directorySync.ldap.caSecret",
        name: &ldap.ca_secret,
        secret: observed.directory_authority.as_ref(),
        keys: &[&ldap.ca_key],
    };
    let login = pool.external().map(|external| Given {
        field: "spec.database.external.credentialsSecret",
        name: &external.credentials_secret,
        secret: observed.logins.as_ref(),
        keys: &["replicator-username", "replicator-password"],
    });
    [Some(account), Some(authorities), login].into_iter().flatten().find_map(|given| given.lack())
}
