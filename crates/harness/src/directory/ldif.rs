//! Entries and changes of a directory as LDIF (RFC 2849), for the tools that read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An entry: its distinguished name and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    dn: String,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// An entry without attributes.
    #[must_use]
    pub fn new(dn: impl Into<String>) -> Self {
        Self { dn: dn.into(), attributes: Vec::new() }
    }

    /// Its distinguished name.
    #[must_use]
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// The same with one more value; an empty one is left out.
    #[must_use]
    pub fn with(mut self, attribute: &str, value: impl AsRef<[u8]>) -> Self {
        if !value.as_ref().is_empty() {
            self.attributes.push((attribute.to_owned(), value.as_ref().to_vec()));
        }
        self
    }
}

/// Changes in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ldif(String);

impl Ldif {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    #[must_use]
    pub fn insert(mut self, entry: &Entry) -> Self {
        self.begin(&entry.dn, "add");
        for (attribute, value) in &entry.attributes {
            self.line(attribute, value);
        }
        self.end()
    }

    /// Gives an attribute these values in place of all it has; without values it goes.
    #[must_use]
    pub fn replace<V: AsRef<[u8]>>(self, dn: &str, attribute: &str, values: &[V]) -> Self {
        self.modify(dn, "replace", attribute, values)
    }

    /// Gives an attribute one more value.
    #[must_use]
    pub fn put(self, dn: &str, attribute: &str, value: &str) -> Self {
        self.modify(dn, "add", attribute, &[value])
    }

    /// Takes a value away from an attribute.
    #[must_use]
    pub fn take(self, dn: &str, attribute: &str, value: &str) -> Self {
        self.modify(dn, "delete", attribute, &[value])
    }

    /// Gives an entry another name (`CN=new`) in the same place.
    #[must_use]
    pub fn rename(mut self, dn: &str, name: &str) -> Self {
        self.begin(dn, "modrdn");
        self.line("newrdn", name.as_bytes());
        self.line("deleteoldrdn", b"1");
        self.end()
    }

    /// Puts an entry below another one, under the same name.
    #[must_use]
    pub fn move_below(mut self, dn: &str, superior: &str) -> Self {
        let name = dn.split_once(',').map_or(dn, |(name, _)| name);
        self.begin(dn, "modrdn");
        self.line("newrdn", name.as_bytes());
        self.line("deleteoldrdn", b"1");
        self.line("newsuperior", superior.as_bytes());
        self.end()
    }

    /// Deletes an entry that has none below it.
    #[must_use]
    pub fn delete(mut self, dn: &str) -> Self {
        self.begin(dn, "delete");
        self.end()
    }

    /// As text with the kind of each change, for tools that change a directory.
    #[must_use]
    pub fn changes(&self) -> &str {
        &self.0
    }

    /// As text with entries only, for tools that load an empty directory.
    #[must_use]
    pub fn entries(&self) -> String {
        self.0.replace("\nchangetype: add\n", "\n")
    }

    fn modify<V: AsRef<[u8]>>(mut self, dn: &str, how: &str, attribute: &str, values: &[V]) -> Self {
        self.begin(dn, "modify");
        self.line(how, attribute.as_bytes());
        for value in values {
            self.line(attribute, value.as_ref());
        }
        self.0.push_str("-\n");
        self.end()
    }

    fn begin(&mut self, dn: &str, change: &str) {
        self.line("dn", dn.as_bytes());
        self.line("changetype", change.as_bytes());
    }

    fn end(mut self) -> Self {
        self.0.push('\n');
        self
    }

    /// One line; what is no plain text goes as base64.
    fn line(&mut self, name: &str, value: &[u8]) {
        let plain = value.iter().all(|octet| (0x21..0x7f).contains(octet) || *octet == b' ');
        let unsafe_start = value.first().is_some_and(|octet| b" :<".contains(octet));
        let text = match std::str::from_utf8(value) {
            Ok(text) if plain && !unsafe_start && !text.ends_with(' ') => format!("{name}: {text}\n"),
            _ => format!("{name}:: {}\n", STANDARD.encode(value)),
        };
        self.0.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_stay_and_others_are_encoded() {
        let entry = Entry::new("CN=Zoë,DC=x").with("cn", "Zo\u{eb}").with("mail", "z@x").with("title", "");
        let ldif = Ldif::new().insert(&entry);
        assert_eq!(ldif.changes(), "dn:: Q049Wm/DqyxEQz14\nchangetype: add\ncn:: Wm/Dqw==\nmail: z@x\n\n");
        assert_eq!(ldif.entries(), "dn:: Q049Wm/DqyxEQz14\ncn:: Wm/Dqw==\nmail: z@x\n\n");
        let odd = Ldif::new().insert(&Entry::new("CN=x").with("a", " x").with("b", "x ").with("c", [0, 255]));
        assert_eq!(odd.changes(), "dn: CN=x\nchangetype: add\na:: IHg=\nb:: eCA=\nc:: AP8=\n\n");
    }

    #[test]
    fn changes_follow_each_other() {
        let none: [&str; 0] = [];
        let ldif = Ldif::new().replace("CN=a", "mail", &none).move_below("CN=a,OU=b", "OU=c").delete("CN=d");
        let expected = "dn: CN=a\nchangetype: modify\nreplace: mail\n-\n\n\
                        dn: CN=a,OU=b\nchangetype: modrdn\nnewrdn: CN=a\ndeleteoldrdn: 1\nnewsuperior: OU=c\n\n\
                        dn: CN=d\nchangetype: delete\n\n";
        assert_eq!(ldif.changes(), expected);
    }
}
