//! A reader of XML from strangers: every amount in it is bounded and counted.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::errors::Error;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::name::{NamespaceError, ResolveResult};
use quick_xml::reader::NsReader;

use super::{
    DATA_MODEL, MOST_ATTRIBUTES, MOST_DEPTH, MOST_ELEMENTS, MOST_NAMESPACES, MOST_OCTETS, PIDF, PidfError, RPID,
};

/// What stands next in a document.
pub(super) enum Item<'i> {
    /// An element begins; an empty one is followed by its end like any other.
    Start(Element<'i>),
    /// Text, references in it resolved.
    Text(Cow<'i, str>),
    /// The innermost open element ends.
    End,
    /// The root has ended.
    Eof,
}

/// Namespace of an element, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// PIDF (RFC 3863).
    Pidf,
    /// The data model (RFC 4479).
    DataModel,
    /// RPID (RFC 4480).
    Rpid,
    /// Any other, or none.
    Other,
}

impl Space {
    fn of(resolved: &ResolveResult<'_>) -> Self {
        match resolved {
            ResolveResult::Bound(namespace) if namespace.into_inner() == PIDF => Self::Pidf,
            ResolveResult::Bound(namespace) if namespace.into_inner() == DATA_MODEL => Self::DataModel,
            ResolveResult::Bound(namespace) if namespace.into_inner() == RPID => Self::Rpid,
            _ => Self::Other,
        }
    }
}

/// Start of an element.
pub(super) struct Element<'i> {
    /// Its namespace.
    pub(super) space: Space,
    start: BytesStart<'i>,
    /// Where it stands in the document.
    at: u64,
}

impl Element<'_> {
    /// Name without prefix.
    pub(super) fn name(&self) -> &str {
        self.start.local_name().into_inner()
    }

    /// Whether it is the element of that name in that namespace.
    pub(super) fn is(&self, space: Space, name: &str) -> bool {
        self.space == space && self.name() == name
    }

    /// Value of an attribute, named as it is written (`xml:lang` with its prefix).
    pub(super) fn attribute(&self, name: &str) -> Result<Option<String>, PidfError> {
        let syntax = || PidfError::Syntax(self.at);
        for attribute in self.start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| syntax())?;
            if attribute.key.as_ref() == name {
                let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| syntax())?;
                return if value.chars().all(is_xml_character) { Ok(Some(value.into_owned())) } else { Err(syntax()) };
            }
        }
        Ok(None)
    }
}

/// Work done, for tests that prove it bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Events that the XML reader underneath gave.
    pub(super) events: usize,
    /// Elements.
    pub(super) elements: usize,
    /// Attributes.
    pub(super) attributes: usize,
    /// Declarations of namespaces.
    pub(super) namespaces: usize,
}

/// The reader.
pub(super) struct Bounded<'i> {
    inner: NsReader<&'i [u8]>,
    depth: usize,
    root_seen: bool,
    work: Work,
}

impl<'i> Bounded<'i> {
    /// A reader of `octets`.
    pub(super) fn new(octets: &'i [u8]) -> Result<Self, PidfError> {
        if octets.len() > MOST_OCTETS {
            return Err(PidfError::TooMany("octets"));
        }
        let text = std::str::from_utf8(octets).map_err(|_| PidfError::Encoding)?;
        if let Some(at) = octets.iter().position(|octet| *octet < 0x20 && !matches!(octet, b'\t' | b'\n' | b'\r')) {
            return Err(PidfError::Syntax(at as u64));
        }
        let mut inner = NsReader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        inner.config_mut().expand_empty_elements = true;
        inner.resolver_mut().set_max_namespace_bindings(MOST_NAMESPACES);
        Ok(Self { inner, depth: 0, root_seen: false, work: Work::default() })
    }

    /// Work done so far.
    #[cfg(test)]
    pub(super) fn work(&self) -> Work {
        self.work
    }

    /// What stands next.
    pub(super) fn next(&mut self) -> Result<Item<'i>, PidfError> {
        loop {
            self.work.events += 1;
            let event = self.inner.read_event().map_err(|error| match error {
                Error::Namespace(NamespaceError::TooManyBindings(_)) => PidfError::TooMany("namespace declarations"),
                _ => PidfError::Syntax(self.inner.error_position()),
            })?;
            match event {
                Event::Start(start) | Event::Empty(start) => return self.start(start).map(Item::Start),
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Item::End);
                }
                Event::Text(text) if self.depth > 0 => return Ok(Item::Text(text.xml10_content())),
                Event::Text(text) if text.trim_matches(is_space).is_empty() => {}
                Event::CData(text) if self.depth > 0 => return Ok(Item::Text(text.xml10_content())),
                Event::GeneralRef(reference) if self.depth > 0 => return self.reference(&reference).map(Item::Text),
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => return Err(self.syntax()),
                Event::Decl(declaration) => check_encoding(&declaration)?,
                Event::Comment(_) | Event::PI(_) => {}
                Event::DocType(_) => return Err(PidfError::Doctype),
                Event::Eof if self.depth == 0 && self.root_seen => return Ok(Item::Eof),
                Event::Eof => return Err(self.syntax()),
            }
        }
    }

    fn start(&mut self, start: BytesStart<'i>) -> Result<Element<'i>, PidfError> {
        if self.depth == 0 && std::mem::replace(&mut self.root_seen, true) {
            return Err(self.syntax());
        }
        self.depth += 1;
        self.work.elements += 1;
        if self.depth > MOST_DEPTH {
            return Err(PidfError::TooMany("levels of elements"));
        }
        if self.work.elements > MOST_ELEMENTS {
            return Err(PidfError::TooMany("elements"));
        }
        self.count_attributes(&start)?;
        let space = Space::of(&self.inner.resolver().resolve_element(start.name()).0);
        Ok(Element { space, start, at: self.inner.buffer_position() })
    }

    /// Counts attributes and declarations. That no two have the same name is not checked, which would cost the square of
    /// their number; the first counts.
    fn count_attributes(&mut self, start: &BytesStart<'_>) -> Result<(), PidfError> {
        for (count, attribute) in start.attributes().with_checks(false).enumerate() {
            self.work.attributes += 1;
            if count >= MOST_ATTRIBUTES {
                return Err(PidfError::TooMany("attributes"));
            }
            if attribute.map_err(|_| self.syntax())?.key.as_namespace_binding().is_some() {
                self.work.namespaces += 1;
                if self.work.namespaces > MOST_NAMESPACES {
                    return Err(PidfError::TooMany("namespace declarations"));
                }
            }
        }
        Ok(())
    }

    /// Text of a reference: to a character, or to one of the five entities that every document has.
    fn reference(&self, reference: &BytesRef<'_>) -> Result<Cow<'i, str>, PidfError> {
        match reference.resolve_char_ref() {
            Ok(Some(character)) if is_xml_character(character) => Ok(Cow::Owned(character.to_string())),
            Ok(None) => resolve_xml_entity(reference).map(Cow::Borrowed).ok_or_else(|| self.syntax()),
            _ => Err(self.syntax()),
        }
    }

    fn syntax(&self) -> PidfError {
        PidfError::Syntax(self.inner.buffer_position())
    }
}

fn check_encoding(declaration: &BytesDecl<'_>) -> Result<(), PidfError> {
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name)) if ["utf-8", "utf8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(&name)) => Ok(()),
        Some(_) => Err(PidfError::Encoding),
    }
}

/// White space of XML.
pub(super) fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// Whether XML 1.0 can carry the character at all (§2.2).
pub(super) fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
