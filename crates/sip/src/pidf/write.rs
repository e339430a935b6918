//! Writing presence documents.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;

use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::name::QName;
use quick_xml::writer::Writer;

use super::parse::{is_name_character, is_plain_name};
use super::reader::is_xml_character;
use super::{DATA_MODEL, Document, Note, PIDF, Person, RPID, Tuple};

/// The octets of a document: tuples in their order (simple clients read the first only), then notes, the person last.
///
/// Ids are made fit for XML and different from each other. Characters that XML cannot carry, activities that are no
/// names, and empty notes are left out.
pub fn write(document: &Document) -> Vec<u8> {
    let mut out = Out { xml: Writer::new(Vec::with_capacity(1024)), ids: BTreeSet::new(), repeated: HashMap::new() };
    // Nothing here can fail: the writer's sink is a Vec.
    let _ = out.document(document);
    out.xml.into_inner()
}

struct Out {
    xml: Writer<Vec<u8>>,
    /// Ids given so far.
    ids: BTreeSet<String>,
    /// The number that the next bearer of an id gets beside it.
    repeated: HashMap<String, usize>,
}

impl Out {
    fn document(&mut self, document: &Document) -> io::Result<()> {
        self.xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let namespaces =
            [("xmlns", PIDF), ("xmlns:dm", DATA_MODEL), ("xmlns:rpid", RPID), ("entity", &document.entity)];
        self.open("presence", &namespaces)?;
        for tuple in &document.tuples {
            self.tuple(tuple)?;
        }
        self.notes("note", &document.notes)?;
        if let Some(person) = &document.person {
            self.person(person)?;
        }
        self.close("presence")
    }

    fn tuple(&mut self, tuple: &Tuple) -> io::Result<()> {
        let id = self.id(&tuple.id);
        self.open("tuple", &[("id", &id)])?;
        self.open("status", &[])?;
        if let Some(basic) = tuple.basic {
            self.element("basic", &[], basic.as_str())?;
        }
        self.close("status")?;
        self.activities(&tuple.activities)?;
        match &tuple.contact {
            Some((uri, Some(priority))) => self.element("contact", &[("priority", &decimal(*priority))], uri)?,
            Some((uri, None)) => self.element("contact", &[], uri)?,
            None => {}
        }
        self.notes("note", &tuple.notes)?;
        if let Some(timestamp) = &tuple.timestamp {
            self.element("timestamp", &[], timestamp)?;
        }
        self.close("tuple")
    }

    fn person(&mut self, person: &Person) -> io::Result<()> {
        let id = self.id(&person.id);
        self.open("dm:person", &[("id", &id)])?;
        self.activities(&person.activities)?;
        self.notes("dm:note", &person.notes)?;
        if let Some(timestamp) = &person.timestamp {
            self.element("dm:timestamp", &[], timestamp)?;
        }
        self.close("dm:person")
    }

    fn activities(&mut self, names: &[String]) -> io::Result<()> {
        let mut names = names.iter().filter(|name| is_plain_name(name)).peekable();
        if names.peek().is_none() {
            return Ok(());
        }
        self.open("rpid:activities", &[])?;
        for name in names {
            self.xml.write_event(Event::Empty(BytesStart::new(format!("rpid:{name}"))))?;
        }
        self.close("rpid:activities")
    }

    fn notes(&mut self, element: &str, notes: &[Note]) -> io::Result<()> {
        for note in notes.iter().filter(|note| !note.text.is_empty()) {
            match &note.lang {
                Some(lang) => self.element(element, &[("xml:lang", lang)], &note.text)?,
                None => self.element(element, &[], &note.text)?,
            }
        }
        Ok(())
    }

    fn element(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> io::Result<()> {
        self.open(name, attributes)?;
        self.xml.write_event(Event::Text(BytesText::from_escaped(escaped(text))))?;
        self.close(name)
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
        let attributes = attributes.iter().map(|(key, value)| Attribute { key: QName(key), value: escaped(value) });
        self.xml.write_event(Event::Start(BytesStart::new(name).with_attributes(attributes)))
    }

    fn close(&mut self, name: &str) -> io::Result<()> {
        self.xml.write_event(Event::End(BytesEnd::new(name)))
    }

    /// An id of this document for `wanted`: an NCName that no element has yet.
    fn id(&mut self, wanted: &str) -> String {
        let mut base: String =
            wanted.chars().map(|character| if is_name_character(character) { character } else { '_' }).collect();
        if !is_plain_name(&base) {
            base.insert(0, '_');
        }
        let mut id = base.clone();
        while !self.ids.insert(id.clone()) {
            let number = self.repeated.entry(base.clone()).or_insert(2);
            id = format!("{base}-{number}");
            *number += 1;
        }
        id
    }
}

/// Text for an element or an attribute: what would be read as markup, or changed by a reader, as references.
fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |character: char| {
        is_xml_character(character) && !matches!(character, '&' | '<' | '>' | '"' | '\'' | '\t' | '\n' | '\r')
    };
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            other if is_xml_character(other) => out.push(other),
            _ => {}
        }
    }
    Cow::Owned(out)
}

/// A priority in thousandths as a decimal.
fn decimal(thousandths: u16) -> String {
    match thousandths {
        0 => "0".to_owned(),
        1000.. => "1".to_owned(),
        part => format!("0.{part:03}").trim_end_matches('0').to_owned(),
    }
}
