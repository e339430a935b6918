//! Typed views of the headers every element reads.

use crate::address::{Contacts, NameAddr};
use crate::chars::{is_lws, trim};
use crate::header::{HeaderError, HeaderName};
use crate::message::{Message, NOT_UTF8};
use crate::method::Method;
use crate::values::{Event, list_members, member_end, number, word};
use crate::via::Via;

/// The largest sequence number (RFC 3261 §8.1.1.5).
const CSEQ_LIMIT: u32 = (1 << 31) - 1;

impl Message {
    /// All Via values, top first, over rows and comma lists.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'_>, HeaderError>> {
        self.members(HeaderName::Via)
            .map(|member| member.and_then(|text| Via::parse(text).map_err(at(HeaderName::Via))))
    }

    /// The topmost Via value.
    ///
    /// # Errors
    /// There is none, or it is malformed.
    pub fn top_via(&self) -> Result<Via<'_>, HeaderError> {
        let row = self.required(HeaderName::Via)?;
        let top = row.get(..member_end(row.as_bytes())).unwrap_or(row);
        Via::parse(trim(top)).map_err(at(HeaderName::Via))
    }

    /// The From address.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn from(&self) -> Result<NameAddr<'_>, HeaderError> {
        self.address(HeaderName::From)
    }

    /// The To address.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn to(&self) -> Result<NameAddr<'_>, HeaderError> {
        self.address(HeaderName::To)
    }

    /// The first row of that name as one address: From, To, Refer-To, Referred-By and their kin.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn address(&self, name: HeaderName) -> Result<NameAddr<'_>, HeaderError> {
        NameAddr::parse(self.required(name)?).map_err(at(name))
    }

    /// The addresses of all rows of that name: Route, Record-Route, Path and their kin.
    pub fn addresses(&self, name: HeaderName) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.members(name).map(move |member| member.and_then(|text| NameAddr::parse(text).map_err(at(name))))
    }

    /// The Call-ID.
    ///
    /// # Errors
    /// Absent, empty, or with white space inside.
    pub fn call_id(&self) -> Result<&str, HeaderError> {
        let text = self.required(HeaderName::CallId)?;
        let whole = !text.is_empty() && !text.bytes().any(is_lws);
        if whole { Ok(text) } else { Err(at(HeaderName::CallId)("must be one word")) }
    }

    /// Number, below 2^31, and method of the CSeq.
    ///
    /// # Errors
    /// Absent, or not a number in range and a method.
    pub fn cseq(&self) -> Result<(u32, Method<'_>), HeaderError> {
        let (digits, method) = word(self.required(HeaderName::CSeq)?);
        let value =
            number(digits.as_bytes(), CSEQ_LIMIT).ok_or(at(HeaderName::CSeq)("must begin with a number below 2^31"))?;
        if method.is_empty() || method.bytes().any(is_lws) {
            return Err(at(HeaderName::CSeq)("must end in one method"));
        }
        Ok((value, Method::of(method)))
    }

    /// The Contact header.
    ///
    /// # Errors
    /// An address is malformed, or `*` does not stand alone.
    pub fn contacts(&self) -> Result<Contacts<'_>, HeaderError> {
        let mut list = Vec::new();
        let mut star = false;
        let wrong = at(HeaderName::Contact);
        for row in self.rows(HeaderName::Contact) {
            for member in list_members(row) {
                match std::str::from_utf8(member).map_err(|_| wrong(NOT_UTF8))? {
                    "*" if !star && list.is_empty() => star = true,
                    _ if star => return Err(wrong("* must stand alone")),
                    text => list.push(NameAddr::parse(text).map_err(&wrong)?),
                }
            }
        }
        Ok(match (star, list.is_empty()) {
            (true, _) => Contacts::Star,
            (false, true) => Contacts::None,
            (false, false) => Contacts::List(list),
        })
    }

    /// The hops left, 0 to 255; `None` if absent.
    ///
    /// # Errors
    /// Not a number in range.
    pub fn max_forwards(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::MaxForwards, 255, "must be a number, 0 to 255")
    }

    /// The Expires header in seconds; `None` if absent.
    ///
    /// # Errors
    /// Not a number below 2^32.
    pub fn expires(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::Expires, u32::MAX, "must be a number of seconds below 2^32")
    }

    /// The Content-Length as written; `None` if absent. [`Message::body`] is cut by it already.
    ///
    /// # Errors
    /// Not a number below 2^32.
    pub fn content_length(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::ContentLength, u32::MAX, "must be a number of digits only")
    }

    /// The Event header; `None` if absent.
    ///
    /// # Errors
    /// The package is no token, or a parameter is malformed.
    pub fn event(&self) -> Result<Option<Event<'_>>, HeaderError> {
        self.first(HeaderName::Event)?.map(Event::parse).transpose().map_err(at(HeaderName::Event))
    }

    /// The values of Authorization or Proxy-Authorization, one a row and never split, since Digest values hold commas. Folding is still
    /// inside; rows that are not UTF-8 are left out.
    pub fn authorizations(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.rows(name).filter_map(|row| std::str::from_utf8(row).ok())
    }

    fn required(&self, name: HeaderName) -> Result<&str, HeaderError> {
        self.first(name)?.ok_or(absent(name))
    }

    fn number(&self, name: HeaderName, limit: u32, what: &'static str) -> Result<Option<u32>, HeaderError> {
        let Some(text) = self.first(name)? else { return Ok(None) };
        number(text.as_bytes(), limit).map(Some).ok_or(HeaderError { header: name, what })
    }
}

fn at(header: HeaderName) -> impl Fn(&'static str) -> HeaderError {
    move |what| HeaderError { header, what }
}

fn absent(header: HeaderName) -> HeaderError {
    HeaderError { header, what: "missing" }
}
