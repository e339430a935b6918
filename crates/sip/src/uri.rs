//! URIs as SIP uses them (RFC 3261 §19.1), borrowed from the message.

use std::borrow::Cow;

use crate::chars::{is_lenient_user_char, is_parameter_char, is_user_char};
use crate::host::{host_and_port, push_canonical_host};
use crate::params::Params;

/// A URI breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed URI: {0}")]
pub struct UriError(pub &'static str);

/// A URI taken apart.
///
/// `sip`, `sips`, `pres` and `im` URIs have a host and the parts around it. Of all others only the scheme and the opaque rest are known:
/// their `host` is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The whole URI as written.
    pub text: &'a str,
    /// The scheme as written, without its colon.
    pub scheme: &'a str,
    /// The user part as written, escapes kept.
    pub user: Option<&'a str>,
    /// What follows the first colon of the user information.
    pub password: Option<&'a str>,
    /// Host name or address; an IPv6 address keeps its brackets.
    pub host: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// The URI parameters.
    pub params: Params<'a>,
    /// What follows the `?`.
    pub headers: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart; the text must be the URI alone, without brackets and white space.
    ///
    /// # Errors
    /// The text is no URI, or breaks the grammar of its scheme, or its user part does not decode to UTF-8.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError("no scheme"))?;
        if !is_scheme(scheme) {
            return Err(UriError("the scheme must begin with a letter and be made of letters, digits, + - ."));
        }
        if rest.is_empty() || !rest.bytes().all(is_uri_char) {
            return Err(UriError("empty, or with white space, quotes, brackets or octets beyond ASCII"));
        }
        let opaque = Self {
            text,
            scheme,
            user: None,
            password: None,
            host: "",
            port: None,
            params: Params::default(),
            headers: None,
        };
        if SIP_LIKE.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            opaque.with_parts(rest)
        } else {
            Ok(opaque)
        }
    }

    fn with_parts(self, rest: &'a str) -> Result<Self, UriError> {
        // A user part may hold `;` and `?` but no `@`, so the first `@` ends it wherever those stand.
        let (user_info, rest) = match rest.split_once('@') {
            Some((user_info, rest)) => (Some(user_info), rest),
            None => (None, rest),
        };
        let (user, password) = match user_info {
            Some(user_info) => user_and_password(user_info)?,
            None => (None, None),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let (host, params) = rest.split_at_checked(rest.find(';').unwrap_or(rest.len())).unwrap_or((rest, ""));
        let (host, port) = host_and_port(host).map_err(UriError)?;
        check_params(params)?;
        Ok(Self { user, password, host, port, params: Params::unchecked(params), headers, ..self })
    }

    /// Whether the scheme is `sip`.
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip")
    }

    /// Whether the scheme is `sips`.
    pub fn is_sips(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sips")
    }

    /// The user part with its escapes resolved; empty if there is none.
    pub fn user_decoded(&self) -> Cow<'a, str> {
        let user = self.user.unwrap_or_default();
        if !user.contains('%') {
            return Cow::Borrowed(user);
        }
        // `parse` has seen that this is UTF-8.
        String::from_utf8(unescaped(user).collect()).map_or(Cow::Borrowed(user), Cow::Owned)
    }

    /// The URI parameter of that name: absent, without a value, or with its value as written.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params.get(name)
    }

    /// The text whose equality decides whether two Contacts are one binding.
    ///
    /// RFC 3261 §19.1.4 compares pairs and is not transitive, so it cannot be a key. This is its part that can: scheme, unescaped user
    /// information, host without case, explicit port, and the parameters `transport`, `user`, `method`, `ttl`, `maddr`.
    pub fn canonical_binding(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 8);
        push_lower(&mut out, self.scheme);
        out.push(':');
        if self.host.is_empty() {
            out.push_str(self.text.get(self.scheme.len() + 1..).unwrap_or_default());
            return out;
        }
        if let Some(user) = self.user {
            push_canonical(&mut out, user);
            if let Some(password) = self.password {
                out.push(':');
                push_canonical(&mut out, password);
            }
            out.push('@');
        }
        push_canonical_host(&mut out, self.host);
        if let Some(port) = self.port {
            out.push(':');
            out.push_str(&port.to_string());
        }
        for name in ["transport", "user", "method", "ttl", "maddr"] {
            if let Some(value) = self.param(name) {
                out.push(';');
                out.push_str(name);
                out.push('=');
                push_lower(&mut out, value.unwrap_or_default());
            }
        }
        out
    }

    /// The address of record `user@host`, equal for all URIs that mean one user; `None` without a user or for an opaque URI.
    ///
    /// Escapes stand only where the character cannot stand for itself, the host is in lower case without a final dot, and scheme, port,
    /// password and parameters are left out.
    pub fn aor(&self) -> Option<String> {
        let user = self.user?;
        let mut out = String::with_capacity(user.len() + 1 + self.host.len());
        push_canonical(&mut out, user);
        out.push('@');
        push_canonical_host(&mut out, self.host.strip_suffix('.').unwrap_or(self.host));
        Some(out)
    }
}

/// Schemes with the structure `user@host`: RFC 3261, 3859, 3860.
const SIP_LIKE: [&str; 4] = ["sip", "sips", "pres", "im"];

fn is_scheme(scheme: &str) -> bool {
    scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'-' | b'.'))
}

fn is_uri_char(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>' | b'"' | b'\\')
}

fn user_and_password(user_info: &str) -> Result<(Option<&str>, Option<&str>), UriError> {
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    if user.is_empty() {
        return Err(UriError("an empty user part"));
    }
    for part in [Some(user), password].into_iter().flatten() {
        if !are_chars(part, is_lenient_user_char) {
            return Err(UriError("a character in the user part must be escaped"));
        }
    }
    if user.contains('%') && std::str::from_utf8(&unescaped(user).collect::<Vec<u8>>()).is_err() {
        return Err(UriError("the user part must decode to UTF-8"));
    }
    Ok((Some(user), password))
}

fn check_params(params: &str) -> Result<(), UriError> {
    for param in params.split(';').skip(1) {
        let name = param.split_once('=').map_or(param, |(name, _)| name);
        if name.is_empty() || !are_chars(param, is_parameter_char) {
            return Err(UriError("a malformed parameter"));
        }
    }
    Ok(())
}

/// Whether all characters are of the class or escapes of two hexadecimal digits.
fn are_chars(text: &str, class: fn(u8) -> bool) -> bool {
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [octet, rest @ ..] if class(*octet) => rest,
            _ => return false,
        };
    }
}

/// The octets of `text` with its escapes resolved; a `%` without two hexadecimal digits stands for itself.
fn unescaped(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || match rest {
        [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            rest = after;
            Some(hex_value(*high) << 4 | hex_value(*low))
        }
        [octet, after @ ..] => {
            rest = after;
            Some(*octet)
        }
        [] => None,
    })
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0x0f,
    }
}

fn push_canonical(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for octet in unescaped(text) {
        if is_user_char(octet) {
            out.push(char::from(octet));
        } else {
            out.push('%');
            out.extend([octet >> 4, octet & 15].iter().filter_map(|nibble| HEX.get(usize::from(*nibble))));
        }
    }
}

fn push_lower(out: &mut String, text: &str) {
    out.extend(text.chars().map(|character| character.to_ascii_lowercase()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn takes_all_parts_apart() {
        let uri = uri("SIP:alice:s%3Acret@[2001:DB8::1]:5070;transport=TCP;lr;gr=urn:uuid:f81d?Subject=x&a=b");
        assert!(uri.is_sip() && !uri.is_sips());
        assert_eq!((uri.user, uri.password), (Some("alice"), Some("s%3Acret")));
        assert_eq!((uri.host, uri.port), ("[2001:DB8::1]", Some(5070)));
        assert_eq!(uri.param("Transport"), Some(Some("TCP")));
        assert_eq!(uri.param("lr"), Some(None));
        assert_eq!(uri.param("gr"), Some(Some("urn:uuid:f81d")));
        assert_eq!(uri.param("x"), None);
        assert_eq!(uri.headers, Some("Subject=x&a=b"));
    }

    #[test]
    fn a_user_part_may_look_like_the_rest_of_a_uri() {
        let uri = uri("sip:user;par=u%40example.net?x@example.com");
        assert_eq!(uri.user_decoded(), "user;par=u@example.net?x");
        assert_eq!(uri.host, "example.com");
        assert_eq!(uri.params.as_str(), "");
        assert_eq!(uri.headers, None);
    }

    #[test]
    fn other_schemes_are_opaque() {
        let uri = uri("soap.beep://192.0.2.103:3002");
        assert_eq!((uri.scheme, uri.host, uri.aor()), ("soap.beep", "", None));
        assert_eq!(self::uri("pres:bob@Example.com").aor().as_deref(), Some("bob@example.com"));
    }

    #[test]
    fn refuses_what_breaks_the_grammar() {
        let long_port = "sip:a@b:655360";
        let bad = [
            "",
            "sip",
            "sip:",
            ":a@b",
            "1sip:a@b",
            "sip:@b",
            "sip:a@",
            "sip:a@b@c",
            "sip:a b@c",
            "sip:a@b;",
            "sip:a@b;;x",
            "sip:a@b;=x",
            "sip:%4@b",
            "sip:a%zz@b",
            "sip:%ff@b",
            "sip:a@2001:db8::1",
            "<sip:a@b>",
            "sip:a@b>",
            "sip:a\\b@c",
            "sip:\u{fc}@b",
            long_port,
        ];
        for text in bad {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_aor_is_equal_for_every_spelling_of_a_user() {
        let aor = Some("user@example.com".to_owned());
        for text in [
            "sip:user@example.com",
            "sips:%75se%72@EXAMPLE.com:5061;transport=tls",
            "sip:user:pw@example.com.",
            "im:user@example.com",
        ] {
            assert_eq!(uri(text).aor(), aor, "{text}");
        }
        assert_eq!(uri("sip:a%20b%2fc%C3%BC%00@h").aor().as_deref(), Some("a%20b/c%C3%BC%00@h"));
        assert_eq!(uri("sip:*97#@h").aor(), uri("sip:*97%23@h").aor());
        assert_eq!(uri("sip:h").aor(), None);
    }

    #[test]
    fn an_escaped_percent_sign_is_not_unescaped_twice() {
        assert_eq!(uri("sip:%2541@h").user_decoded(), "%41");
        assert_eq!(uri("sip:%2541@h").aor().as_deref(), Some("%2541@h"));
        assert_ne!(uri("sip:%2541@h").aor(), uri("sip:A@h").aor());
    }

    #[test]
    fn bindings_are_equal_by_what_counts() {
        let key = uri("sip:%61lice@Host.example:5060;x=1;transport=TCP").canonical_binding();
        assert_eq!(key, "sip:alice@host.example:5060;transport=tcp");
        assert_eq!(uri("SIP:alice@host.example:5060;Transport=tcp;ob").canonical_binding(), key);
        assert_eq!(uri("sip:a@[2001:DB8:0::1]").canonical_binding(), uri("sip:a@[2001:db8::1]").canonical_binding());
        for other in [
            "sip:alice@host.example;transport=tcp",
            "sips:alice@host.example:5060;transport=tcp",
            "sip:Alice@host.example:5060;transport=tcp",
        ] {
            assert_ne!(uri(other).canonical_binding(), key);
        }
        assert_ne!(uri("sip:%00@h").canonical_binding(), uri("sip:%00%00@h").canonical_binding());
        assert_eq!(uri("name:John_Smith").canonical_binding(), "name:John_Smith");
    }
}
