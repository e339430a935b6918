//! Reading the value of an `Authorization` or `Proxy-Authorization` row.

use std::borrow::Cow;

use super::Algorithm;
use crate::chars::is_token;

/// Most parameters in one row.
const MOST_PARAMETERS: usize = 32;

/// Why a row gives no Digest credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The row is of another scheme, which may have a syntax of its own.
    #[error("credentials of another scheme than Digest")]
    Scheme,
    /// A parameter is written wrongly, or there are more than 32.
    #[error("malformed Digest credentials: {0}")]
    Syntax(&'static str),
    /// A parameter that may stand once stands twice.
    #[error("Digest credentials with two {0} parameters")]
    Duplicate(&'static str),
    /// A parameter is missing.
    #[error("Digest credentials without {0}")]
    Missing(&'static str),
}

/// Digest credentials as a client sent them (RFC 7616 §3.4), one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// User name, escapes of the quoted-string undone.
    pub username: Cow<'a, str>,
    /// Realm.
    pub realm: Cow<'a, str>,
    /// Nonce.
    pub nonce: Cow<'a, str>,
    /// Digest URI: see [`super::uri_matches`].
    pub uri: Cow<'a, str>,
    /// The answer in hex, as written.
    pub response: Cow<'a, str>,
    /// Name of the algorithm as written, known or not; see [`Self::algorithm`].
    pub algorithm_name: Option<Cow<'a, str>>,
    /// The client's own nonce.
    pub cnonce: Option<Cow<'a, str>>,
    /// Quality of protection as written, without quotes.
    pub qop: Option<&'a str>,
    /// Nonce count.
    pub nc: Option<u32>,
    /// The eight hex digits of the nonce count as written, which are part of what is hashed.
    pub(super) nc_text: Option<&'a str>,
    /// Opaque string of the challenge.
    pub opaque: Option<Cow<'a, str>>,
    /// All other parameters in their order, `username*` among them.
    pub other: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Credentials<'a> {
    /// Reads one row's value, folding undone: parameters in any order and case, quoted or not where clients differ.
    ///
    /// # Errors
    /// See [`CredentialsError`]. `username`, `realm`, `nonce`, `uri` and `response` must be there.
    pub fn parse(value: &'a str) -> Result<Self, CredentialsError> {
        let value = value.trim_start_matches(is_space);
        let scheme_end = value.find(is_space).unwrap_or(value.len());
        let (scheme, rest) = value.split_at_checked(scheme_end).unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(CredentialsError::Scheme);
        }
        Parameters::collect(rest)?.finish()
    }

    /// The algorithm the answer was made with: MD5 if none is named (RFC 7616 §3.4), `None` if it is not one of ours.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm_name.as_deref().map_or(Some(Algorithm::Md5), Algorithm::parse)
    }
}

/// Parameters read so far.
#[derive(Default)]
struct Parameters<'a> {
    username: Option<Cow<'a, str>>,
    realm: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    response: Option<Cow<'a, str>>,
    algorithm: Option<Cow<'a, str>>,
    cnonce: Option<Cow<'a, str>>,
    qop: Option<Cow<'a, str>>,
    nc: Option<Cow<'a, str>>,
    opaque: Option<Cow<'a, str>>,
    other: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Parameters<'a> {
    fn collect(mut rest: &'a str) -> Result<Self, CredentialsError> {
        let mut parameters = Self::default();
        for _ in 0..=MOST_PARAMETERS {
            rest = rest.trim_start_matches(|c| is_space(c) || c == ',');
            if rest.is_empty() {
                return Ok(parameters);
            }
            let (name, value, after) = parameter(rest)?;
            parameters.put(name, value)?;
            rest = after.trim_start_matches(is_space);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(CredentialsError::Syntax("no comma between two parameters"));
            }
        }
        Err(CredentialsError::Syntax("more than 32 parameters"))
    }

    fn put(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), CredentialsError> {
        let fields = [
            ("username", &mut self.username),
            ("realm", &mut self.realm),
            ("nonce", &mut self.nonce),
            ("uri", &mut self.uri),
            ("response", &mut self.response),
            ("algorithm", &mut self.algorithm),
            ("cnonce", &mut self.cnonce),
            ("qop", &mut self.qop),
            ("nc", &mut self.nc),
            ("opaque", &mut self.opaque),
        ];
        let Some((known, field)) = fields.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            self.other.push((name, value));
            return Ok(());
        };
        match field.replace(value) {
            Some(_) => Err(CredentialsError::Duplicate(known)),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Credentials<'a>, CredentialsError> {
        let missing = CredentialsError::Missing;
        let nc_text = self.nc.map(|nc| plain(nc, "nc")).transpose()?;
        Ok(Credentials {
            username: self.username.ok_or(missing("username"))?,
            realm: self.realm.ok_or(missing("realm"))?,
            nonce: self.nonce.ok_or(missing("nonce"))?,
            uri: self.uri.ok_or(missing("uri"))?,
            response: self.response.ok_or(missing("response"))?,
            algorithm_name: self.algorithm,
            cnonce: self.cnonce,
            qop: self.qop.map(|qop| plain(qop, "qop")).transpose()?,
            nc: nc_text.map(count).transpose()?,
            nc_text,
            opaque: self.opaque,
            other: self.other,
        })
    }
}

/// A value in which no escape makes sense.
fn plain<'a>(value: Cow<'a, str>, what: &'static str) -> Result<&'a str, CredentialsError> {
    match value {
        Cow::Borrowed(text) => Ok(text),
        Cow::Owned(_) => Err(CredentialsError::Syntax(what)),
    }
}

/// A nonce count: exactly eight hex digits (RFC 7616 §3.4).
fn count(text: &str) -> Result<u32, CredentialsError> {
    let wrong = CredentialsError::Syntax("nc is not eight hex digits");
    if text.len() != 8 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return Err(wrong);
    }
    u32::from_str_radix(text, 16).map_err(|_| wrong)
}

/// Name, value and what follows, of the parameter at the start of `text`.
fn parameter(text: &str) -> Result<(&str, Cow<'_, str>, &str), CredentialsError> {
    let (name, rest) = text.split_once('=').ok_or(CredentialsError::Syntax("a parameter without ="))?;
    let name = name.trim_end_matches(is_space);
    if !is_token(name.as_bytes()) {
        return Err(CredentialsError::Syntax("a parameter's name is not a token"));
    }
    let rest = rest.trim_start_matches(is_space);
    if let Some(quoted) = rest.strip_prefix('"') {
        let (value, rest) = quoted_string(quoted)?;
        return Ok((name, value, rest));
    }
    let end = rest.find(|c| is_space(c) || matches!(c, ',' | '"')).unwrap_or(rest.len());
    let (value, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if value.is_empty() {
        return Err(CredentialsError::Syntax("a parameter without value"));
    }
    Ok((name, Cow::Borrowed(value), rest))
}

/// Content of a quoted-string whose opening quote is gone, and what follows its closing one.
fn quoted_string(text: &str) -> Result<(Cow<'_, str>, &str), CredentialsError> {
    let mut unescaped: Option<String> = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let (content, rest) = text.split_at_checked(at).unwrap_or((text, ""));
                let value = unescaped.map_or(Cow::Borrowed(content), Cow::Owned);
                return Ok((value, rest.strip_prefix('"').unwrap_or(rest)));
            }
            '\\' => {
                let (_, escaped) = characters.next().ok_or(CredentialsError::Syntax("an open quote"))?;
                unescaped.get_or_insert_with(|| text.get(..at).unwrap_or_default().to_owned()).push(escaped);
            }
            other => {
                if let Some(unescaped) = &mut unescaped {
                    unescaped.push(other);
                }
            }
        }
    }
    Err(CredentialsError::Syntax("an open quote"))
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}
