//! Rules over fields (CEL), list types and columns, in tables: the definition, its documentation and its tests read them.

use kube::core::{Reason, Rule};

/// A rule that the API server checks, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct SchemaRule {
    /// Path of the checked value: property names joined by dots, `[]` for the items of a list; empty for the whole.
    pub path: &'static str,
    /// The rule in CEL; a rule that names `oldSelf` is checked at changes only.
    pub rule: &'static str,
    /// What the user is told when it does not hold.
    pub message: &'static str,
    /// The field to blame, relative to the checked value; empty for the value itself.
    pub field: &'static str,
}

impl SchemaRule {
    /// Whether the rule compares with the former value.
    pub fn is_transition(&self) -> bool {
        self.rule.contains("oldSelf")
    }

    /// The rule as the schema carries it.
    pub fn to_kube(self) -> Rule {
        let rule = Rule::new(self.rule).message(self.message).reason(Reason::FieldValueInvalid);
        if self.field.is_empty() { rule } else { rule.field_path(self.field) }
    }
}

const fn rule(path: &'static str, rule: &'static str, message: &'static str) -> SchemaRule {
    SchemaRule { path, rule, message, field: "" }
}

const fn blaming(field: &'static str, of: SchemaRule) -> SchemaRule {
    SchemaRule { field, ..of }
}

/// All rules, in the order of the fields.
pub const RULES: &[SchemaRule] = &[
    rule(
        "",
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "metadata.name must have 1-40 characters of a-z, 0-9 and '-', begin with a letter and not end with '-': the names of all objects derive from it",
    ),
    // at the root for a way back from a size that the storage class refused
    blaming(
        ".spec.frontEnd.storage.size",
        rule(
            "",
            "quantity(string(self.spec.frontEnd.storage.size)).compareTo(quantity(string(oldSelf.spec.frontEnd.storage.size))) >= 0 || (has(self.status) && has(self.status.conditions) && self.status.conditions.exists(c, c.type == 'Stalled' && c.reason == 'CannotGrow'))",
            "can only grow: a volume cannot be made smaller",
        ),
    ),
    blaming(
        ".spec.database.embedded.storage.size",
        rule(
            "",
            "(has(self.spec.database) && has(self.spec.database.embedded) ? quantity(string(self.spec.database.embedded.storage.size)) : quantity('20Gi')).compareTo(has(oldSelf.spec.database) && has(oldSelf.spec.database.embedded) ? quantity(string(oldSelf.spec.database.embedded.storage.size)) : quantity('20Gi')) >= 0 || (has(self.status) && has(self.status.conditions) && self.status.conditions.exists(c, c.type == 'Stalled' && c.reason == 'CannotGrow'))",
            "can only grow: the database's volume cannot be made smaller",
        ),
    ),
    rule(
        "spec.edition",
        "self == oldSelf",
        "the edition cannot change: the data of one is not that of the other; make a pool of another name and move the users",
    ),
    blaming(
        ".frontEnd.replicas",
        rule(
            "spec",
            "self.edition == 'Enterprise' || !has(self.frontEnd.replicas) || self.frontEnd.replicas == 1",
            "Standard Edition has one front end: more need edition Enterprise",
        ),
    ),
    blaming(
        ".frontEnd.drain",
        rule(
            "spec",
            "self.edition == 'Enterprise' || (!has(self.frontEnd.drain) && !has(self.frontEnd.maxSurge))",
            "drain and maxSurge go with edition Enterprise only: a single front end has nobody to hand over to",
        ),
    ),
    blaming(
        ".database",
        rule(
            "spec",
            "self.edition == 'Enterprise' || !has(self.database)",
            "goes with edition Enterprise only: Standard Edition has its store on spec.frontEnd.storage",
        ),
    ),
    blaming(
        ".frontEnd.storage",
        rule(
            "spec",
            "self.edition == 'Standard' || (quantity(string(self.frontEnd.storage.size)).compareTo(quantity('5Gi')) == 0 && (!has(self.frontEnd.storage.storageClassName) || self.frontEnd.storage.storageClassName == ''))",
            "goes with edition Standard only: in Enterprise Edition the volume is the database's, spec.database.embedded.storage",
        ),
    ),
    blaming(
        ".database",
        rule(
            "spec",
            "(has(self.database) && has(self.database.external)) == (has(oldSelf.database) && has(oldSelf.database.external))",
            "cannot change between embedded and external: the data would stay behind; make a pool of another name and move it",
        ),
    ),
    blaming(
        ".database.embedded.storage.storageClassName",
        rule(
            "spec",
            "(has(self.database) && has(self.database.embedded) && has(self.database.embedded.storage.storageClassName) ? self.database.embedded.storage.storageClassName : '') == (has(oldSelf.database) && has(oldSelf.database.embedded) && has(oldSelf.database.embedded.storage.storageClassName) ? oldSelf.database.embedded.storage.storageClassName : '')",
            "cannot change: the database's volume is there already",
        ),
    ),
    blaming(
        ".directorySync",
        rule(
            "spec",
            "self.edition == 'Enterprise' || !has(self.directorySync) || !(has(self.directorySync.startingDeadlineSeconds) || has(self.directorySync.successfulJobsHistoryLimit) || has(self.directorySync.failedJobsHistoryLimit))",
            "startingDeadlineSeconds, successfulJobsHistoryLimit and failedJobsHistoryLimit go with edition Enterprise only: in Standard Edition the server itself reads the directory",
        ),
    ),
    rule(
        "spec.version",
        "self.matches('^[0-9A-Za-z]([-._0-9A-Za-z]{0,61}[0-9A-Za-z])?$')",
        "must be a tag of the server's image, such as 0.1.0",
    ),
    rule(
        "spec.sipDomains[]",
        "self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "must be a domain in lower case, such as example.com",
    ),
    rule(
        "spec.sipDomains",
        "self[0] == oldSelf[0]",
        "the first domain is the primary one and cannot change: passwords and addresses of users hang on it; add others behind it",
    ),
    rule(
        "spec.image.registry",
        "self == '' || self.matches('^[a-z0-9]([-._:/a-z0-9]*[a-z0-9])?$')",
        "must be HOST[:PORT][/PATH] in lower case, without scheme and without '/' at the end",
    ),
    rule(
        "spec.image.pullSecrets[]",
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "must be the name of a Secret",
    ),
    blaming(
        ".size",
        rule(
            "spec.frontEnd.storage",
            "quantity(string(self.size)).compareTo(quantity('64Mi')) >= 0",
            "must be at least 64Mi",
        ),
    ),
    blaming(
        ".storageClassName",
        rule(
            "spec.frontEnd.storage",
            "(has(self.storageClassName) ? self.storageClassName : '') == (has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')",
            "cannot change: the volume is there already",
        ),
    ),
    rule(
        "spec.frontEnd.podAnnotations",
        "self.all(key, size(key) <= 316 && !key.startsWith('commpool.dev/'))",
        "keys have at most 316 characters and do not begin with commpool.dev/, which is the operator's own",
    ),
    blaming(
        ".hostname",
        rule(
            "spec.service",
            "self.type != 'NodePort' || (has(self.hostname) && self.hostname != '')",
            "type NodePort needs hostname: the name or address of the nodes that clients are told to use",
        ),
    ),
    blaming(
        ".listeners",
        rule(
            "spec.service",
            "!has(self.listeners.udp) || (self.type != 'ClusterIP' && self.externalTrafficPolicy == 'Local')",
            "udp needs type LoadBalancer or NodePort and externalTrafficPolicy Local: otherwise no answer outside a fresh request finds back to the client",
        ),
    ),
    rule(
        "spec.service",
        "self.type == 'LoadBalancer' || ((!has(self.loadBalancerClass) || self.loadBalancerClass == '') && (!has(self.loadBalancerSourceRanges) || size(self.loadBalancerSourceRanges) == 0))",
        "loadBalancerClass and loadBalancerSourceRanges go with type LoadBalancer only: leave them out or set the type",
    ),
    blaming(
        ".loadBalancerClass",
        rule(
            "spec.service",
            "self.type != 'LoadBalancer' || oldSelf.type != 'LoadBalancer' || (has(self.loadBalancerClass) ? self.loadBalancerClass : '') == (has(oldSelf.loadBalancerClass) ? oldSelf.loadBalancerClass : '')",
            "cannot change while the type is LoadBalancer: set another type first",
        ),
    ),
    rule(
        "spec.service.listeners",
        "has(self.tls) || has(self.tcp) || has(self.udp)",
        "at least one of tls, tcp and udp needs a port",
    ),
    rule(
        "spec.service.listeners",
        "!has(self.tls) || !has(self.tcp) || self.tls != self.tcp",
        "tls and tcp need different ports",
    ),
    rule(
        "spec.service.loadBalancerSourceRanges[]",
        "isCIDR(self)",
        "must be a network such as 192.0.2.0/24 or 2001:db8::/32",
    ),
    rule(
        "spec.service.annotations",
        "self.all(key, size(key) <= 316 && !key.startsWith('commpool.dev/'))",
        "keys have at most 316 characters and do not begin with commpool.dev/, which is the operator's own",
    ),
    rule(
        "spec.service.hostname",
        "self == '' || self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "must be a host name in lower case, or an IPv4 address",
    ),
    rule(
        "spec.tls",
        "has(self.selfManaged) != has(self.secretName)",
        "needs exactly one of selfManaged and secretName",
    ),
    rule("spec.tls.secretName", "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')", "must be the name of a Secret"),
    rule("spec.database", "has(self.embedded) != has(self.external)", "needs exactly one of embedded and external"),
    blaming(
        ".size",
        rule(
            "spec.database.embedded.storage",
            "quantity(string(self.size)).compareTo(quantity('2Gi')) >= 0",
            "must be at least 2Gi: the database's log alone grows to 1Gi",
        ),
    ),
    blaming(
        ".memory",
        rule(
            "spec.database.embedded.resources.limits",
            "quantity(string(self.memory)).compareTo(quantity('256Mi')) >= 0",
            "must be at least 256Mi",
        ),
    ),
    rule(
        "spec.database.external.host",
        "isIP(self) || self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "must be a host name in lower case, or an IP address",
    ),
    rule(
        "spec.database.external.credentialsSecret",
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "must be the name of a Secret with the database's logins",
    ),
    blaming(
        ".caSecret",
        rule(
            "spec.database.external.tls",
            "(self.mode == 'verify-full') == (has(self.caSecret) && self.caSecret != '')",
            "caSecret goes with mode verify-full: name the Secret with the CA of the database's certificate, or set mode disable",
        ),
    ),
    rule(
        "spec.database.external.tls.caSecret",
        "self == '' || self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "must be the name of a Secret with key ca.crt",
    ),
    rule(
        "spec.directorySync.schedule",
        r"self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[*/,0-9A-Za-z-]+( [*/,0-9A-Za-z-]+){4})$')",
        "must be five fields such as */30 * * * *, or @hourly, @daily, @weekly, @monthly, @yearly",
    ),
    rule(
        "spec.directorySync.timeZone",
        "self == '' || (self != 'Local' && self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$'))",
        "must be a name of the IANA database such as Europe/Berlin",
    ),
    rule(
        "spec.directorySync.ldap.urls[]",
        r"self.matches('^ldaps?://([-.0-9A-Za-z]+|\\x5b[0-9A-Fa-f:.]+\\x5d)(:[0-9]{1,5})?/?$')",
        "must be ldaps://HOST[:PORT], or ldap://HOST[:PORT] for StartTLS",
    ),
    rule(
        "spec.directorySync.ldap.filter",
        "self.startsWith('(') && self.endsWith(')')",
        "must stand in parentheses, such as (objectClass=user)",
    ),
    rule(
        "spec.directorySync.ldap.bindSecret",
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "must be the name of a Secret with the account to read the directory by",
    ),
    rule(
        "spec.directorySync.ldap.caSecret",
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "must be the name of a Secret with the CAs of the directory's certificates",
    ),
    rule(
        "spec.directorySync.ldap",
        "[self.bindDNKey, self.passwordKey, self.caKey].all(key, key.matches('^[-._a-zA-Z0-9]+$'))",
        "bindDNKey, passwordKey and caKey must be keys of Secrets: letters, digits, '-', '_' and '.'",
    ),
    blaming(
        ".nested",
        rule(
            "spec.directorySync.mapping.enabled",
            "!self.nested || self.group != ''",
            "needs group: members of which group's groups are meant?",
        ),
    ),
    rule(
        "spec.directorySync.removal.releaseDigest",
        "self.matches('^[0-9a-fA-F]*$')",
        "must be the digest that status.directorySync.planDigest shows, or empty",
    ),
    rule(
        "spec.authentication.digest",
        "size(self) == 1 || self[0] == 'SHA-256'",
        "the strongest comes first: [SHA-256, MD5]",
    ),
];

/// How a list is merged by server-side apply, and what makes its items unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Items are scalars and unique.
    Set,
    /// Items are objects, unique by these keys.
    Map(&'static [&'static str]),
    /// The list is one value.
    Atomic,
}

/// All lists of the schema by path.
pub const LISTS: &[(&str, ListKind)] = &[
    ("spec.sipDomains", ListKind::Set),
    ("spec.image.pullSecrets", ListKind::Set),
    ("spec.frontEnd.placement.tolerations", ListKind::Atomic),
    ("spec.service.loadBalancerSourceRanges", ListKind::Set),
    ("spec.authentication.digest", ListKind::Set),
    ("spec.directorySync.ldap.urls", ListKind::Atomic),
    ("spec.directorySync.mapping.sipAddress", ListKind::Atomic),
    ("spec.directorySync.mapping.displayName", ListKind::Atomic),
    ("status.conditions", ListKind::Map(&["type"])),
    ("status.addresses", ListKind::Map(&["transport"])),
    ("status.directorySync.namedConflicts", ListKind::Atomic),
];

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// Type of the value.
    pub type_: &'static str,
    /// Where the value is.
    pub path: &'static str,
    /// Whether it is shown with `-o wide` only.
    pub wide: bool,
}

const fn column(name: &'static str, type_: &'static str, path: &'static str) -> Column {
    Column { name, type_, path, wide: false }
}

/// All columns, in order.
pub const COLUMNS: &[Column] = &[
    column("Edition", "string", ".spec.edition"),
    column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
    column("Reason", "string", r#".status.conditions[?(@.type=="Ready")].reason"#),
    column("Front-Ends", "integer", ".status.frontEnd.readyReplicas"),
    column("Address", "string", ".status.addresses[0].host"),
    column("Version", "string", ".status.version"),
    column("Age", "date", ".metadata.creationTimestamp"),
    Column { wide: true, ..column("Desired", "integer", ".spec.frontEnd.replicas") },
    Column {
        wide: true,
        ..column("Database", "string", r#".status.conditions[?(@.type=="DatabaseAvailable")].status"#)
    },
    Column { wide: true, ..column("Schema", "string", r#".status.conditions[?(@.type=="SchemaCurrent")].reason"#) },
    Column {
        wide: true,
        ..column("Directory", "string", r#".status.conditions[?(@.type=="DirectorySynced")].reason"#)
    },
    Column { wide: true, ..column("Domain", "string", ".spec.sipDomains[0]") },
    Column { wide: true, ..column("Message", "string", r#".status.conditions[?(@.type=="Ready")].message"#) },
];
