//! Rules of the directory's part of the configuration.

use super::{host_and_port, value, within};
use crate::config::{ConfigError, Directory, Edition, Enabled, Ldap, LdapServer, Mapping, Removal, Schedule};
use crate::schedule::Timetable;

const MAX_URLS: usize = 8;
const MAX_SOURCES: usize = 8;
/// Longest distinguished name, octets.
const MAX_NAME: usize = 1024;
/// Longest filter, octets.
const MAX_FILTER: usize = 4096;
/// Longest name of an attribute or template, octets.
const MAX_ATTRIBUTE: usize = 256;

type Checked = Result<(), ConfigError>;

impl Directory {
    /// Checks every rule of the section in a configuration of this edition. Paths of fields begin with `directory`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, edition: Edition) -> Result<(), ConfigError> {
        schedule(edition, self.schedule.as_ref())?;
        ldap(&self.ldap)?;
        mapping(&self.mapping)?;
        removal(&self.removal)
    }
}

fn schedule(edition: Edition, schedule: Option<&Schedule>) -> Checked {
    let field = "directory.schedule";
    match (edition, schedule) {
        (Edition::Standard, None) => Err(value(field, "is missing", "say when to look, such as cron: '*/30 * * * *'")),
        (Edition::Enterprise, Some(_)) => {
            Err(value(field, "belongs to Standard Edition", "remove it: the replicator is started from outside"))
        }
        (Edition::Enterprise, None) => Ok(()),
        (Edition::Standard, Some(schedule)) => match Timetable::new(&schedule.cron, schedule.time_zone.as_deref()) {
            Ok(_) => Ok(()),
            Err(error) => Err(value(format!("{field}.{}", error.field()), error.to_string(), error.mend())),
        },
    }
}

fn ldap(ldap: &Ldap) -> Checked {
    if !(1..=MAX_URLS).contains(&ldap.urls.len()) {
        let problem = format!("has {} entries", ldap.urls.len());
        return Err(value("directory.ldap.urls", problem, "list 1–8 servers of one directory, the preferred first"));
    }
    ldap.urls.iter().enumerate().try_for_each(|(n, url)| server(&format!("directory.ldap.urls[{n}]"), url))?;
    one_line("directory.ldap.baseDN", &ldap.base_dn, 0, MAX_NAME)?;
    one_line("directory.ldap.filter", &ldap.filter, 1, MAX_FILTER)?;
    if !(ldap.filter.starts_with('(') && ldap.filter.ends_with(')')) {
        let problem = format!("`{}` is no filter", ldap.filter);
        return Err(value("directory.ldap.filter", problem, "write it in parentheses, such as (objectClass=user)"));
    }
    let files = [("bindDNFile", &ldap.bind_dn_file), ("passwordFile", &ldap.password_file), ("caFile", &ldap.ca_file)];
    for (name, path) in files {
        if path.as_os_str().is_empty() {
            return Err(value(format!("directory.ldap.{name}"), "is empty", "give a path"));
        }
    }
    within("directory.ldap.pageSize", ldap.page_size, 1, 1000)?;
    within("directory.ldap.timeoutSeconds", ldap.timeout_seconds, 1, 300)
}

/// `ldap://HOST[:PORT]` or `ldaps://HOST[:PORT]`, nothing behind.
fn server(field: &str, url: &str) -> Checked {
    let refused = |problem: &str| {
        Err(value(field, format!("`{url}` {problem}"), "use ldaps://HOST[:PORT], or ldap://HOST[:PORT] for StartTLS"))
    };
    match LdapServer::parse(url) {
        Ok(server) => {
            host_and_port(field, &server.host, server.port).or_else(|_| refused("has no usable host or port"))
        }
        Err(problem) => refused(problem),
    }
}

fn mapping(mapping: &Mapping) -> Checked {
    let optional = [
        ("key", &mapping.key),
        ("phone", &mapping.phone),
        ("title", &mapping.title),
        ("company", &mapping.company),
        ("office", &mapping.office),
        ("enabled.attribute", &mapping.enabled.attribute),
    ];
    for (name, attribute) in optional.into_iter().filter(|(_, attribute)| !attribute.is_empty()) {
        attribute_name(&format!("directory.mapping.{name}"), attribute)?;
    }
    if !(1..=MAX_SOURCES).contains(&mapping.sip_address.len()) {
        let mend = "list 1–8 attributes or templates, the preferred first";
        return Err(value("directory.mapping.sipAddress", "has none or too many entries", mend));
    }
    for (n, source) in mapping.sip_address.iter().enumerate() {
        let field = format!("directory.mapping.sipAddress[{n}]");
        if source.contains(['{', '}']) { template(&field, source)? } else { attribute_name(&field, source)? }
    }
    if mapping.display_name.len() > MAX_SOURCES {
        return Err(value("directory.mapping.displayName", "has too many entries", "list at most 8 attributes"));
    }
    for (n, attribute) in mapping.display_name.iter().enumerate() {
        attribute_name(&format!("directory.mapping.displayName[{n}]"), attribute)?;
    }
    enabled(&mapping.enabled)
}

fn enabled(enabled: &Enabled) -> Checked {
    one_line("directory.mapping.enabled.group", &enabled.group, 0, MAX_NAME)?;
    if enabled.nested && enabled.group.is_empty() {
        return Err(value("directory.mapping.enabled.nested", "has no use", "remove it or name a group"));
    }
    Ok(())
}

fn attribute_name(field: &str, name: &str) -> Checked {
    // RFC 4512 §1.4: a keyword or an OID; options such as `;binary` are not for people's names.
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'.';
    if (1..=MAX_ATTRIBUTE).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(value(field, format!("`{name}` is no attribute"), "use a name of letters, digits and -"))
}

fn template(field: &str, template: &str) -> Checked {
    one_line(field, template, 1, MAX_ATTRIBUTE)?;
    let refused = || {
        let mend = "write attributes in braces and one @, such as {uid}@example.com";
        Err(value(field, format!("`{template}` is no template"), mend))
    };
    let mut rest = template;
    let mut attributes = 0_usize;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { return refused() };
        if before.contains('}') {
            return refused();
        }
        attribute_name(field, name)?;
        attributes += 1;
        rest = after;
    }
    if attributes == 0 || rest.contains('}') || !template.contains('@') { refused() } else { Ok(()) }
}

fn removal(removal: &Removal) -> Checked {
    within("directory.removal.maxPercent", removal.max_percent, 0, 100)?;
    within("directory.removal.maxCount", removal.max_count, 0, 1_000_000)?;
    within("directory.removal.graceDays", removal.grace_days, 0, 3650)?;
    let digest = &removal.release_digest;
    if digest.len() > 64 || !digest.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        let mend = "give the digest that the held run named, or nothing";
        return Err(value("directory.removal.releaseDigest", format!("`{digest}` is no digest"), mend));
    }
    Ok(())
}

fn one_line(field: &str, text: &str, least: usize, most: usize) -> Checked {
    if text.len() < least {
        return Err(value(field, "is empty", "give it"));
    }
    if text.len() > most || text.contains(char::is_control) {
        return Err(value(field, "is too long or has control characters", format!("use one line of at most {most}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Directory {
        Directory {
            schedule: Some(Schedule { cron: "*/30 * * * *".to_owned(), time_zone: None, suspend: false }),
            ldap: Ldap {
                urls: vec!["ldaps://dc1.example.com".to_owned()],
                base_dn: "DC=example,DC=com".to_owned(),
                filter: Ldap::default_filter(),
                bind_dn_file: "/ldap/bindDN".into(),
                password_file: "/ldap/password".into(),
                ca_file: "/ldap/ca.crt".into(),
                page_size: Ldap::default_page_size(),
                timeout_seconds: Ldap::default_timeout(),
            },
            mapping: Mapping::default(),
            removal: Removal::default(),
        }
    }

    /// The field that is refused after a change.
    fn field(change: impl FnOnce(&mut Directory)) -> Option<String> {
        let mut directory = good();
        change(&mut directory);
        directory.check(Edition::Standard).err().map(|error| match error {
            ConfigError::Value { field, mend, .. } if !mend.is_empty() => field,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn every_rule_names_its_field() {
        let refused = |expected: &str, change: fn(&mut Directory)| {
            assert_eq!(field(change), Some(format!("directory.{expected}")));
        };
        assert_eq!(field(|_| ()), None);
        refused("schedule", |d| d.schedule = None);
        refused("schedule.cron", |d| d.schedule.as_mut().unwrap().cron = "often".to_owned());
        refused("schedule.timeZone", |d| d.schedule.as_mut().unwrap().time_zone = Some("Mars/Base".to_owned()));
        refused("ldap.urls", |d| d.ldap.urls.clear());
        refused("ldap.urls[0]", |d| d.ldap.urls = vec!["https://dc1".to_owned()]);
        refused("ldap.urls[0]", |d| d.ldap.urls = vec!["ldaps://dc1:0".to_owned()]);
        refused("ldap.urls[0]", |d| d.ldap.urls = vec!["ldaps://dc1/dc=x".to_owned()]);
        refused("ldap.filter", |d| d.ldap.filter = "uid=*".to_owned());
        refused("ldap.baseDN", |d| d.ldap.base_dn = "a\nb".to_owned());
        refused("ldap.caFile", |d| d.ldap.ca_file = "".into());
        refused("ldap.pageSize", |d| d.ldap.page_size = 1001);
        refused("ldap.timeoutSeconds", |d| d.ldap.timeout_seconds = 0);
        refused("mapping.sipAddress", |d| d.mapping.sip_address.clear());
        refused("mapping.sipAddress[0]", |d| d.mapping.sip_address = vec!["{uid}".to_owned()]);
        refused("mapping.sipAddress[0]", |d| d.mapping.sip_address = vec!["{uid@example.com".to_owned()]);
        refused("mapping.sipAddress[0]", |d| d.mapping.sip_address = vec!["a b".to_owned()]);
        refused("mapping.phone", |d| d.mapping.phone = "tele phone".to_owned());
        refused("mapping.displayName[0]", |d| d.mapping.display_name = vec![String::new()]);
        refused("mapping.enabled.nested", |d| d.mapping.enabled.nested = true);
        refused("removal.maxPercent", |d| d.removal.max_percent = 101);
        refused("removal.releaseDigest", |d| d.removal.release_digest = "yes".to_owned());
    }

    #[test]
    fn every_form_of_a_server_is_taken() {
        for url in ["ldap://dc1:3268", "ldaps://[::1]:636", "ldaps://[2001:db8::1]", "ldap://127.0.0.1/"] {
            assert_eq!(field(|d| d.ldap.urls = vec![url.to_owned()]), None, "{url}");
        }
        assert_eq!(field(|d| d.mapping.sip_address = vec!["{givenName}.{sn}@example.com".to_owned()]), None);
        assert_eq!(field(|d| d.mapping.phone = String::new()), None);
    }

    #[test]
    fn in_enterprise_edition_somebody_else_starts_it() {
        assert!(good().check(Edition::Enterprise).is_err());
        assert!(Directory { schedule: None, ..good() }.check(Edition::Enterprise).is_ok());
    }
}
