//! The directory that the users of a `CommunicationsPool` come from, in the words of the server's configuration.

use commpool_model::config::{Enabled, Ldap, Mapping, Removal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Users from a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorySyncSpec {
    /// When to look, five fields as of crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly. Default: */30 * * * *.
    #[serde(default = "DirectorySyncSpec::default_schedule")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// Time zone of the schedule, a name of the IANA database such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// While true nothing is started by the schedule. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Seconds that a start may come late, 10–86400; one that would come later is left out. Enterprise Edition only.
    /// Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub starting_deadline_seconds: Option<i64>,
    /// Jobs of successful runs that are kept, 1–20. Enterprise Edition only. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub successful_jobs_history_limit: Option<i32>,
    /// Jobs of other runs that are kept, 1–20. Enterprise Edition only. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub failed_jobs_history_limit: Option<i32>,
    /// Where the directory is and which of its entries are users.
    pub ldap: LdapSpec,
    /// How an entry becomes a user.
    #[serde(default)]
    pub mapping: MappingSpec,
    /// What may be taken away, and when.
    #[serde(default)]
    pub removal: RemovalSpec,
}

impl DirectorySyncSpec {
    fn default_schedule() -> String {
        "*/30 * * * *".into()
    }
}

/// The LDAP server and what is read from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LdapSpec {
    /// Servers of one directory, 1–8, tried in order: ldaps://HOST:PORT (without a port 636), or ldap://HOST:PORT (389),
    /// which is secured by StartTLS before anything else is said.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 512)))]
    pub urls: Vec<String>,
    /// Distinguished name below which users are looked for.
    #[serde(rename = "baseDN")]
    #[schemars(length(max = 1024))]
    pub base_dn: String,
    /// Which entries are users (RFC 4515). Default: accounts of people in Active Directory, and inetOrgPerson.
    #[serde(default = "Ldap::default_filter")]
    #[schemars(length(min = 3, max = 4096))]
    pub filter: String,
    /// Secret of the namespace with the account to read the directory by.
    #[schemars(length(min = 1, max = 253))]
    pub bind_secret: String,
    /// Key of bindSecret with the distinguished name (or, for Active Directory, user principal name) to bind as.
    /// Default: bindDN.
    #[serde(default = "LdapSpec::default_bind_dn_key", rename = "bindDNKey")]
    #[schemars(length(min = 1, max = 253))]
    pub bind_dn_key: String,
    /// Key of bindSecret with the password. Default: password.
    #[serde(default = "LdapSpec::default_password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
    /// Secret of the namespace with the CAs that sign the servers' certificates.
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret: String,
    /// Key of caSecret with the CAs, PEM. Default: ca.crt.
    #[serde(default = "LdapSpec::default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_key: String,
    /// Entries asked for at once, 1–1000. Default: 500.
    #[serde(default = "Ldap::default_page_size")]
    #[schemars(range(min = 1, max = 1_000))]
    pub page_size: u32,
    /// Seconds after which a server that does not answer is given up, 1–300. Default: 30.
    #[serde(default = "Ldap::default_timeout")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u32,
}

impl LdapSpec {
    fn default_bind_dn_key() -> String {
        "bindDN".into()
    }

    fn default_password_key() -> String {
        "password".into()
    }

    fn default_ca_key() -> String {
        "ca.crt".into()
    }
}

/// How an entry becomes a user. An empty attribute name maps nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingSpec {
    /// Attribute that names an entry for ever. Default: objectGUID, else entryUUID.
    #[schemars(length(max = 256))]
    pub key: String,
    /// Where the SIP address comes from, 1–8, the first that gives one: an attribute (of proxyAddresses the values with
    /// the scheme sip:), or a template such as {uid}@example.com. Default: msRTCSIP-PrimaryUserAddress, proxyAddresses,
    /// mail.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)))]
    pub sip_address: Vec<String>,
    /// Who may sign in: who passes every test that is set.
    pub enabled: EnabledSpec,
    /// Attributes with the name for people, at most 8, the first that is there. Default: displayName, cn.
    #[schemars(length(max = 8), inner(length(min = 1, max = 256)))]
    pub display_name: Vec<String>,
    /// Attribute with the telephone number. Default: telephoneNumber.
    #[schemars(length(max = 256))]
    pub phone: String,
    /// Attribute with the title. Default: title.
    #[schemars(length(max = 256))]
    pub title: String,
    /// Attribute with the company. Default: company.
    #[schemars(length(max = 256))]
    pub company: String,
    /// Attribute with the office. Default: physicalDeliveryOfficeName.
    #[schemars(length(max = 256))]
    pub office: String,
}

impl Default for MappingSpec {
    fn default() -> Self {
        let Mapping { key, sip_address, enabled, display_name, phone, title, company, office } = Mapping::default();
        let Enabled { attribute, account_control, group, nested } = enabled;
        let enabled = EnabledSpec { attribute, account_control, group, nested };
        Self { key, sip_address, enabled, display_name, phone, title, company, office }
    }
}

impl MappingSpec {
    /// The same in the server's configuration.
    pub fn to_config(&self) -> Mapping {
        let Self { key, sip_address, enabled, display_name, phone, title, company, office } = self.clone();
        let EnabledSpec { attribute, account_control, group, nested } = enabled;
        let enabled = Enabled { attribute, account_control, group, nested };
        Mapping { key, sip_address, enabled, display_name, phone, title, company, office }
    }
}

/// Who of the entries found may sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnabledSpec {
    /// Boolean attribute that must be TRUE, such as msRTCSIP-UserEnabled; missing counts as FALSE. Default: no test.
    #[schemars(length(max = 256))]
    pub attribute: String,
    /// Whether bit 2 of userAccountControl (account disabled) keeps a user out; in Active Directory a missing one does too. Default: true.
    pub account_control: bool,
    /// Distinguished name of a group whose members may sign in. Default: no test.
    #[schemars(length(max = 1024))]
    pub group: String,
    /// Whether members of the group's groups count too; Active Directory only. Default: false.
    pub nested: bool,
}

impl Default for EnabledSpec {
    fn default() -> Self {
        MappingSpec::default().enabled
    }
}

/// What may be taken away, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RemovalSpec {
    /// Per cent of the users, 0–100. Nothing at all is changed when more than that, and more than 5 users, would lose
    /// the service without the directory saying so of each, or their passwords by another address. Default: 5.
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: u32,
    /// Users, 0–1000000: the same when more than so many would, whatever their part. Default: 50.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_count: u32,
    /// Days after which a user who is no longer found, and is disabled at once, is removed; 0–3650. Default: 7.
    #[schemars(range(min = 0, max = 3_650))]
    pub grace_days: u32,
    /// What status.directorySync.planDigest shows when changes are held: those and no others are let through. Default:
    /// none.
    #[schemars(length(max = 64))]
    pub release_digest: String,
}

impl Default for RemovalSpec {
    fn default() -> Self {
        let Removal { max_percent, max_count, grace_days, release_digest } = Removal::default();
        Self { max_percent, max_count, grace_days, release_digest }
    }
}

impl RemovalSpec {
    /// The same in the server's configuration.
    pub fn to_config(&self) -> Removal {
        let Self { max_percent, max_count, grace_days, release_digest } = self.clone();
        Removal { max_percent, max_count, grace_days, release_digest }
    }
}
