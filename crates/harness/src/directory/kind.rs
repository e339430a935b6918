//! The two directories, and what differs between them as their users see it.

use super::{Entry, Ldif, openldap, samba};

/// Which directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Samba as a domain controller of an Active Directory, with the attributes of Live Communications Server.
    Samba,
    /// OpenLDAP with people of the class `inetOrgPerson`; `labSipAddress` and `labSipEnabled` are attributes of its own.
    OpenLdap,
}

impl Kind {
    /// Its name as one writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Samba => "samba",
            Self::OpenLdap => "openldap",
        }
    }

    /// The Debian package of its server.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Samba => "samba-ad-dc",
            Self::OpenLdap => "slapd",
        }
    }

    /// Ports of LDAP (which turns to TLS by StartTLS) and of LDAP over TLS. Samba's cannot be chosen.
    #[must_use]
    pub const fn ports(self) -> (u16, u16) {
        match self {
            Self::Samba => (389, 636),
            Self::OpenLdap => (1389, 1636),
        }
    }

    /// Distinguished name of the whole directory.
    #[must_use]
    pub const fn base(self) -> &'static str {
        match self {
            Self::Samba => samba::BASE,
            Self::OpenLdap => openldap::BASE,
        }
    }

    /// Distinguished name of a folder of the directory: `People`, `Elsewhere`, `Groups`.
    #[must_use]
    pub fn unit(self, name: &str) -> String {
        format!("OU={name},{}", self.base())
    }

    /// Distinguished name of a person in `People`.
    #[must_use]
    pub fn dn(self, login: &str) -> String {
        match self {
            Self::Samba => format!("CN={login},{}", self.unit("People")),
            Self::OpenLdap => format!("uid={login},{}", self.unit("People")),
        }
    }

    /// A group in `Groups` with these members, at least one.
    #[must_use]
    pub fn group(self, name: &str, members: &[String]) -> Entry {
        let entry = Entry::new(format!("CN={name},{}", self.unit("Groups")));
        let entry = match self {
            Self::Samba => entry.with("objectClass", "group").with("sAMAccountName", name),
            Self::OpenLdap => entry.with("objectClass", "groupOfNames").with("cn", name),
        };
        members.iter().fold(entry, |entry, member| entry.with("member", member))
    }

    /// What disables or enables a person in the directory's own words.
    #[must_use]
    pub fn enable(self, login: &str, enabled: bool) -> Ldif {
        let ldif = Ldif::new();
        match self {
            Self::Samba => ldif.replace(&self.dn(login), "userAccountControl", &[if enabled { "544" } else { "546" }]),
            Self::OpenLdap => ldif.replace(&self.dn(login), "labSipEnabled", &[if enabled { "TRUE" } else { "FALSE" }]),
        }
    }

    /// The attribute with a person's SIP address, and what stands before the address there.
    #[must_use]
    pub const fn sip_attribute(self) -> (&'static str, &'static str) {
        match self {
            Self::Samba => ("msRTCSIP-PrimaryUserAddress", "sip:"),
            Self::OpenLdap => ("labSipAddress", ""),
        }
    }

    /// The mapping of a pool's configuration that fits, as YAML indented by two.
    pub(super) const fn mapping(self) -> &'static str {
        match self {
            Self::Samba => "",
            Self::OpenLdap => {
                "  mapping:\n    sipAddress: [labSipAddress, mail]\n    enabled: {attribute: labSipEnabled}\n    company: o\n"
            }
        }
    }
}
