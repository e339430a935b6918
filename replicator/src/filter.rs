//! Search filters: from their text (RFC 4515) to what is sent (RFC 4511 §4.5.1).

use thiserror::Error;

use crate::ber::{self, BOOLEAN, OCTETS};

/// How deep filters may nest.
const MAX_DEPTH: usize = 32;

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem} at octet {at} of the filter")]
pub struct FilterError {
    problem: &'static str,
    at: usize,
}

/// A filter as it is sent.
///
/// # Errors
/// The text is no filter.
pub fn compile(text: &str) -> Result<Vec<u8>, FilterError> {
    let mut parser = Parser { text: text.as_bytes(), at: 0 };
    let mut out = Vec::new();
    parser.filter(&mut out, MAX_DEPTH)?;
    if parser.at == parser.text.len() { Ok(out) } else { parser.refuse("something stands behind the last parenthesis") }
}

/// A text as a value inside a filter: what has a meaning there is escaped.
pub fn escape(value: &str) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut escaped, c| {
        match c {
            '\\' | '*' | '(' | ')' | '\0' => escaped.push_str(&format!("\\{:02x}", u32::from(c))),
            _ => escaped.push(c),
        }
        escaped
    })
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn refuse<T>(&self, problem: &'static str) -> Result<T, FilterError> {
        Err(FilterError { problem, at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, octet: u8) -> bool {
        let there = self.peek() == Some(octet);
        self.at += usize::from(there);
        there
    }

    fn filter(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), FilterError> {
        let Some(depth) = depth.checked_sub(1) else { return self.refuse("too many parentheses inside each other") };
        if !self.take(b'(') {
            return self.refuse("a ( is missing");
        }
        match self.peek() {
            Some(b'&') => self.set(out, 0xa0, depth)?,
            Some(b'|') => self.set(out, 0xa1, depth)?,
            Some(b'!') => {
                self.at += 1;
                let mut inner = Vec::new();
                self.filter(&mut inner, depth)?;
                ber::put(out, 0xa2, &inner);
            }
            _ => self.item(out)?,
        }
        if self.take(b')') { Ok(()) } else { self.refuse("a ) is missing") }
    }

    fn set(&mut self, out: &mut Vec<u8>, tag: u8, depth: usize) -> Result<(), FilterError> {
        self.at += 1;
        let mut inner = Vec::new();
        while self.peek() == Some(b'(') {
            self.filter(&mut inner, depth)?;
        }
        ber::put(out, tag, &inner);
        Ok(())
    }

    fn item(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let attribute = self.name();
        let tag = match self.peek() {
            Some(b'=') => 0xa3,
            Some(b'>') => 0xa5,
            Some(b'<') => 0xa6,
            Some(b'~') => 0xa8,
            Some(b':') => return self.extensible(out, &attribute),
            _ => return self.refuse("a comparison such as = is missing"),
        };
        self.at += usize::from(tag != 0xa3);
        if attribute.is_empty() {
            return self.refuse("the name of an attribute is missing");
        }
        if !self.take(b'=') {
            return self.refuse("a = is missing");
        }
        if tag == 0xa3 {
            return self.equality(out, &attribute);
        }
        let value = self.value()?;
        assertion(out, tag, &attribute, &value);
        Ok(())
    }

    /// Equality, presence or substrings: all are written with =.
    fn equality(&mut self, out: &mut Vec<u8>, attribute: &[u8]) -> Result<(), FilterError> {
        let mut parts = vec![self.value()?];
        while self.take(b'*') {
            parts.push(self.value()?);
        }
        let last = parts.len() - 1;
        if last == 0 {
            assertion(out, 0xa3, attribute, parts.first().map_or(&[], Vec::as_slice));
            return Ok(());
        }
        if last == 1 && parts.iter().all(Vec::is_empty) {
            ber::put(out, 0x87, attribute);
            return Ok(());
        }
        if parts.get(1..last).unwrap_or_default().iter().any(Vec::is_empty) {
            return self.refuse("two * stand side by side");
        }
        ber::wrap(out, 0xa4, |out| {
            ber::put(out, OCTETS, attribute);
            ber::wrap(out, ber::SEQUENCE, |out| {
                for (n, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
                    ber::put(
                        out,
                        if n == 0 {
                            0x80
                        } else if n == last {
                            0x82
                        } else {
                            0x81
                        },
                        part,
                    );
                }
            });
        });
        Ok(())
    }

    /// `attribute:dn:rule:=value`, where attribute, `:dn` and rule may be absent.
    fn extensible(&mut self, out: &mut Vec<u8>, attribute: &[u8]) -> Result<(), FilterError> {
        let (mut dn, mut rule) = (false, Vec::new());
        while self.take(b':') && self.peek() != Some(b'=') {
            let word = self.name();
            match (word.eq_ignore_ascii_case(b"dn") && !dn && rule.is_empty(), word.is_empty() || !rule.is_empty()) {
                (true, _) => dn = true,
                (false, false) => rule = word,
                (false, true) => return self.refuse("a matching rule is missing or stands twice"),
            }
        }
        if !self.take(b'=') {
            return self.refuse("a := is missing");
        }
        if attribute.is_empty() && rule.is_empty() {
            return self.refuse("neither attribute nor matching rule is given");
        }
        let value = self.value()?;
        ber::wrap(out, 0xa9, |out| {
            for (tag, part) in [(0x81, rule.as_slice()), (0x82, attribute)] {
                if !part.is_empty() {
                    ber::put(out, tag, part);
                }
            }
            ber::put(out, 0x83, &value);
            if dn {
                ber::put(out, 0x80 | BOOLEAN << 2, &[0xff]);
            }
        });
        Ok(())
    }

    fn name(&mut self) -> Vec<u8> {
        let allowed = |octet: &u8| octet.is_ascii_alphanumeric() || b"-.;_".contains(octet);
        let name: Vec<u8> = self.text.iter().skip(self.at).copied().take_while(allowed).collect();
        self.at += name.len();
        name
    }

    fn value(&mut self) -> Result<Vec<u8>, FilterError> {
        let mut value = Vec::new();
        loop {
            match self.peek() {
                Some(b'\\') => {
                    let digit = |octet: Option<&u8>| char::from(*octet?).to_digit(16);
                    let digits = digit(self.text.get(self.at + 1)).zip(digit(self.text.get(self.at + 2)));
                    let Some((high, low)) = digits else {
                        return self.refuse("a \\ without two hexadecimal digits");
                    };
                    value.push(u8::try_from(high << 4 | low).unwrap_or_default());
                    self.at += 3;
                }
                Some(b'(' | 0) => return self.refuse("a ( or NUL inside a value: write \\28 or \\00"),
                Some(b'*' | b')') | None => return Ok(value),
                Some(octet) => {
                    value.push(octet);
                    self.at += 1;
                }
            }
        }
    }
}

fn assertion(out: &mut Vec<u8>, tag: u8, attribute: &[u8], value: &[u8]) {
    ber::wrap(out, tag, |out| {
        ber::put(out, OCTETS, attribute);
        ber::put(out, OCTETS, value);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> String {
        compile(text).unwrap().iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn every_kind() {
        assert_eq!(hex("(a=b)"), "a306040161040162");
        assert_eq!(hex("(a=)"), "a3050401610400");
        assert_eq!(hex("(a=*)"), "870161");
        assert_eq!(hex("(a>=1)"), "a506040161040131");
        assert_eq!(hex("(a<=1)"), "a606040161040131");
        assert_eq!(hex("(a~=1)"), "a806040161040131");
        assert_eq!(hex("(a=b*)"), "a4080401613003800162");
        assert_eq!(hex("(a=*b*c*d)"), "a40e0401613009810162810163820164");
        assert_eq!(hex("(!(a=*))"), "a203870161");
        assert_eq!(hex("(&)"), "a000");
        assert_eq!(hex("(|(a=*)(b=*))"), "a106870161870162");
        assert_eq!(hex("(a=\\2a\\C3\\a4ä)"), "a30a040161040".to_owned() + "52ac3a4c3a4");
        assert_eq!(hex("(a:1.2:=b)"), "a90b8103312e32820161830162");
        assert_eq!(hex("(:dn:1.2:=b)"), "a90b8103312e328301628401ff");
        assert_eq!(hex("(a:dn:=b)"), "a9098201618301628401ff");
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        let deep = format!("{}(a=*){}", "(!".repeat(40), ")".repeat(40));
        for bad in [
            "",
            "a=b",
            "(a=b",
            "(a=b))",
            "(=b)",
            "(a)",
            "(a>b)",
            "(a=b\\)",
            "(a=\\4)",
            "(a=(b)",
            "(a=b**c)",
            "(!)",
            "(a:=",
            "(:=b)",
            "(a:1.2:1.3:=b)",
            "(&(a=b)c)",
            &deep,
        ] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        assert_eq!(compile("(a=b").unwrap_err().to_string(), "a ) is missing at octet 4 of the filter");
    }

    proptest! {
        #[test]
        fn any_value_can_be_escaped(value in "\\PC{0,40}|[\\\\*()\0a]{0,10}") {
            let mut wanted = Vec::new();
            assertion(&mut wanted, 0xa3, b"cn", value.as_bytes());
            prop_assert_eq!(compile(&format!("(cn={})", escape(&value))), Ok(wanted));
        }

        #[test]
        fn strange_text_does_no_harm(text in "[()&|!=*:a\\\\1.<>~]{0,60}") {
            let _ = compile(&text);
        }
    }
}
