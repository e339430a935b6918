//! People for a directory: a few with names of the world for looking at, and as many as wanted for measuring.

use super::Kind;
use super::ldif::Entry;

/// Somebody whom a directory knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Name to sign in by, and of the entry.
    pub login: String,
    /// Name for people.
    pub name: String,
    /// SIP address without its scheme; empty: none.
    pub address: String,
    /// Mail address; empty: none.
    pub mail: String,
    /// Telephone number.
    pub phone: String,
    /// Title.
    pub title: String,
    /// Company.
    pub company: String,
    /// Office.
    pub office: String,
    /// Picture.
    pub photo: Vec<u8>,
    /// Whether the directory says that he may not sign in.
    pub disabled: bool,
}

impl Person {
    /// Somebody with an address in a SIP domain, and the same as mail address.
    #[must_use]
    pub fn new(login: &str, name: &str, domain: &str) -> Self {
        let address = format!("{login}@{domain}");
        Self {
            login: login.to_owned(),
            name: name.to_owned(),
            mail: address.clone(),
            address,
            company: "Example".to_owned(),
            ..Self::default()
        }
    }

    /// Number `number` of a crowd: `user00042`.
    #[must_use]
    pub fn numbered(number: u32, domain: &str) -> Self {
        Self {
            phone: format!("+49 30 {number:05}"),
            title: "Clerk".to_owned(),
            office: format!("B{}", number % 40),
            ..Self::new(&format!("user{number:05}"), &format!("User {number:05}"), domain)
        }
    }

    /// His entry in a directory of a kind.
    #[must_use]
    pub fn entry(&self, kind: Kind) -> Entry {
        let entry = Entry::new(kind.dn(&self.login));
        let entry = match kind {
            Kind::Samba => {
                // Normal account (0x200) that needs no password (0x20).
                let control = 0x220 + if self.disabled { 2 } else { 0 };
                let sip = if self.address.is_empty() { String::new() } else { format!("sip:{}", self.address) };
                entry
                    .with("objectClass", "user")
                    .with("sAMAccountName", &self.login)
                    .with("userAccountControl", control.to_string())
                    .with("msRTCSIP-PrimaryUserAddress", sip)
                    .with("msRTCSIP-UserEnabled", "TRUE")
                    .with("company", &self.company)
                    .with("thumbnailPhoto", &self.photo)
            }
            Kind::OpenLdap => entry
                .with("objectClass", "inetOrgPerson")
                .with("objectClass", "commpoolLabUser")
                .with("uid", &self.login)
                .with("cn", &self.name)
                .with("sn", self.name.split(' ').next_back().unwrap_or(&self.name))
                .with("labSipAddress", &self.address)
                .with("labSipEnabled", if self.disabled { "FALSE" } else { "TRUE" })
                .with("o", &self.company)
                .with("jpegPhoto", &self.photo),
        };
        entry
            .with("displayName", &self.name)
            .with("mail", &self.mail)
            .with("telephoneNumber", &self.phone)
            .with("title", &self.title)
            .with("physicalDeliveryOfficeName", &self.office)
    }
}

/// A crowd: numbers 0 up to `size`.
#[must_use]
pub fn crowd(size: u32, domain: &str) -> Vec<Person> {
    (0..size).map(|number| Person::numbered(number, domain)).collect()
}

/// Login, name and title of those whom one can look at: six scripts, and one who is disabled.
const DEMO: &[(&str, &str, &str)] = &[
    ("alice", "Alice Archer", "Director"),
    ("bob", "Bob Brown", "Engineer"),
    ("carol", "Carol Clarke", "Engineer"),
    ("dave", "Dave Dubois", "Porter"),
    ("joerg", "J\u{f6}rg Stra\u{df}er", "Baker"),
    ("dmitri", "\u{414}\u{43c}\u{438}\u{442}\u{440}\u{438}\u{439} \u{418}\u{432}\u{430}\u{43d}\u{43e}\u{432}", "Pilot"),
    ("eleni", "\u{395}\u{3bb}\u{3ad}\u{3bd}\u{3b7} \u{3a0}\u{3b1}\u{3c0}\u{3c0}\u{3ac}", "Physician"),
    ("yuki", "\u{7530}\u{4e2d}\u{96ea}", "Architect"),
    ("omar", "\u{639}\u{645}\u{631} \u{62d}\u{633}\u{646}", "Editor"),
    ("noa", "\u{5e0}\u{5d5}\u{5e2}\u{5d4} \u{5db}\u{5d4}\u{5df}", "Cellist"),
    ("erin", "Erin Evans", "Auditor"),
];

/// The one of them whom the directory has disabled.
const DISABLED: &str = "erin";

/// A few people with addresses in a SIP domain: names of six scripts, pictures, one disabled.
#[must_use]
pub fn demo(domain: &str) -> Vec<Person> {
    let person = |((login, name, title), number): (&(&str, &str, &str), u32)| Person {
        title: (*title).to_owned(),
        phone: format!("+44 20 7946 0{number}"),
        office: "Main building".to_owned(),
        photo: vec![0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, b'J', b'F', b'I', b'F', 0x00, 0xff, 0xd9],
        disabled: *login == DISABLED,
        ..Person::new(login, name, domain)
    };
    DEMO.iter().zip(100..).map(person).collect()
}
