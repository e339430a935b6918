//! The directory that users come from: where it is, how its entries map to users, what may be taken away.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Users from a directory: Active Directory or any other LDAP server. Reloaded while a Standard Edition server runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// When the server itself replicates: required in Standard Edition, not allowed in Enterprise Edition, whose
    /// replicator is started by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Where the directory is and which of its entries are users.
    pub ldap: Ldap,
    /// How an entry becomes a user.
    #[serde(default)]
    pub mapping: Mapping,
    /// What may be taken away.
    #[serde(default)]
    pub removal: Removal,
}

/// When to replicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Five fields as of crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly.
    pub cron: String,
    /// Time zone of the IANA database in which the fields are meant; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Whether nothing is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// The LDAP server and what is read from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ldap {
    /// Servers of one directory, 1–8, tried in order: `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]`, which is
    /// secured by StartTLS before anything else is said.
    pub urls: Vec<String>,
    /// Distinguished name below which users are looked for.
    #[serde(rename = "baseDN")]
    pub base_dn: String,
    /// Which entries are users (RFC 4515).
    #[serde(default = "Ldap::default_filter")]
    pub filter: String,
    /// File with the distinguished name (or, for Active Directory, user principal name) to bind as.
    #[serde(rename = "bindDNFile")]
    pub bind_dn_file: PathBuf,
    /// File with its password.
    pub password_file: PathBuf,
    /// PEM file of the CAs that sign the servers' certificates.
    pub ca_file: PathBuf,
    /// Entries asked for at once; 1–1000.
    #[serde(default = "Ldap::default_page_size")]
    pub page_size: u32,
    /// A server that does not answer for so long is given up, seconds; 1–300.
    #[serde(default = "Ldap::default_timeout")]
    pub timeout_seconds: u32,
}

/// Where an LDAP server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapServer {
    /// Name or address, the latter without brackets.
    pub host: String,
    /// Port; 636 or 389 where none is given.
    pub port: u16,
    /// Whether TLS begins by StartTLS (RFC 4511 §4.14) instead of at once.
    pub start_tls: bool,
}

impl LdapServer {
    /// From `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`, an empty path allowed. The host is not looked at.
    ///
    /// # Errors
    /// What is wrong with it, to be read behind the URL.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (rest, start_tls) = match (url.strip_prefix("ldaps://"), url.strip_prefix("ldap://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err("is no LDAP server"),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "has no usable port")?),
            _ => (authority, if start_tls { 389 } else { 636 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { host: bare.to_owned(), port, start_tls })
    }
}

impl Ldap {
    /// Accounts of people in Active Directory (MS-SAMR, ACCOUNT_TYPE values), people elsewhere. Nothing is negated: to a server that
    /// does not know an attribute or class, neither a test of it nor its negation is true (RFC 4511 §4.5.1.7).
    pub fn default_filter() -> String {
        "(|(sAMAccountType=805306368)(objectClass=inetOrgPerson))".to_owned()
    }

    /// What every server grants.
    pub const fn default_page_size() -> u32 {
        500
    }

    /// Longer than a busy server takes for a page.
    pub const fn default_timeout() -> u32 {
        30
    }
}

/// How an entry becomes a user. An empty attribute name maps nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Mapping {
    /// Attribute that names an entry for ever; empty: `objectGUID`, else `entryUUID`.
    pub key: String,
    /// Where the SIP address comes from, 1–8, the first that gives one: an attribute (of `proxyAddresses` the values
    /// with the scheme `sip:`), or a template with attributes in braces such as `{uid}@example.com`.
    pub sip_address: Vec<String>,
    /// Who may sign in.
    pub enabled: Enabled,
    /// Attributes with the name for people, 0–8, the first that is there.
    pub display_name: Vec<String>,
    /// Attribute with the telephone number.
    pub phone: String,
    /// Attribute with the title.
    pub title: String,
    /// Attribute with the company.
    pub company: String,
    /// Attribute with the office.
    pub office: String,
}

impl Default for Mapping {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            key: String::new(),
            sip_address: names(&["msRTCSIP-PrimaryUserAddress", "proxyAddresses", "mail"]),
            enabled: Enabled::default(),
            display_name: names(&["displayName", "cn"]),
            phone: "telephoneNumber".to_owned(),
            title: "title".to_owned(),
            company: "company".to_owned(),
            office: "physicalDeliveryOfficeName".to_owned(),
        }
    }
}

/// Who of the entries found may sign in: who passes every test that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Enabled {
    /// Boolean attribute that must be TRUE, such as `msRTCSIP-UserEnabled`; missing counts as FALSE. Empty: no test.
    pub attribute: String,
    /// Whether bit 2 of `userAccountControl` (account disabled) keeps a user out; in Active Directory a missing one does too.
    pub account_control: bool,
    /// Distinguished name of a group whose members may sign in. Empty: no test.
    pub group: String,
    /// Whether members of the group's groups count too; Active Directory only.
    pub nested: bool,
}

impl Default for Enabled {
    fn default() -> Self {
        Self { attribute: String::new(), account_control: true, group: String::new(), nested: false }
    }
}

/// What may be taken away, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Removal {
    /// Nothing is applied when more than this part of the users, and more than 5 of them, would lose the service without
    /// the directory saying so of each, or their passwords by another address; per cent, 0–100.
    pub max_percent: u32,
    /// The same for more than so many, whatever their part; 0–1000000.
    pub max_count: u32,
    /// A user no longer found is disabled at once and removed after so many days; 0–3650.
    pub grace_days: u32,
    /// Digest of a held plan that may be applied all the same, once; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub release_digest: String,
}

impl Default for Removal {
    fn default() -> Self {
        Self { max_percent: 5, max_count: 50, grace_days: 7, release_digest: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let server = |url: &str| LdapServer::parse(url).map(|server| (server.host, server.port, server.start_tls));
        assert_eq!(server("ldaps://dc1.example"), Ok(("dc1.example".to_owned(), 636, false)));
        assert_eq!(server("ldap://dc1.example"), Ok(("dc1.example".to_owned(), 389, true)));
        assert_eq!(server("ldap://dc1.example:1389/"), Ok(("dc1.example".to_owned(), 1389, true)));
        assert_eq!(server("ldaps://[::1]"), Ok(("::1".to_owned(), 636, false)));
        assert_eq!(server("ldaps://[::1]:7"), Ok(("::1".to_owned(), 7, false)));
        assert_eq!(server("http://x"), Err("is no LDAP server"));
        assert_eq!(server("ldaps://x:y"), Err("has no usable port"));
    }
}
