//! An entry of a directory as it came: names of attributes without regard to case, values as octets.

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Distinguished name; octets that are no UTF-8 are replaced.
    pub dn: String,
    /// Attributes: names in lower case without options (`;range=…`), values in no order.
    pub attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// An entry with text values, as tests and other sources than LDAP write it.
    pub fn new(dn: &str, attributes: &[(&str, &[&str])]) -> Self {
        let octets = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let attributes = attributes.iter().map(|(name, values)| (name.to_ascii_lowercase(), octets(values))).collect();
        Self { dn: dn.to_owned(), attributes }
    }

    /// Adds values to an attribute.
    pub fn add(&mut self, description: &str, values: Vec<Vec<u8>>) {
        // RFC 4512 §2.5: what follows a semicolon are options, not the type.
        let name = description.split(';').next().unwrap_or_default().to_ascii_lowercase();
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, there)) => there.extend(values),
            None => self.attributes.push((name, values)),
        }
    }

    /// Values of an attribute that are not empty, lowest first, so that the order in which a server tells them has no
    /// effect. `name`: in any case.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let mut values: Vec<&[u8]> = self
            .attributes
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .flat_map(|(_, values)| values.iter().map(Vec::as_slice))
            .filter(|value| !value.is_empty())
            .collect();
        values.sort_unstable();
        values
    }

    /// Whether an attribute has a value.
    pub fn has(&self, name: &str) -> bool {
        self.attributes
            .iter()
            .any(|(known, values)| known.eq_ignore_ascii_case(name) && values.iter().any(|value| !value.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_order_options_and_empty_values_do_not_matter() {
        let mut entry = Entry::new("cn=x", &[("Mail", &["b", "", "a"])]);
        entry.add("MAIL;lang-de", vec![b"c".to_vec()]);
        entry.add("proxyAddresses;range=0-1", vec![]);
        assert_eq!(entry.values("mAIL"), [b"a", b"b", b"c"]);
        assert!(entry.has("mail") && !entry.has("proxyaddresses") && !entry.has("cn"));
    }
}
