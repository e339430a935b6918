//! Presence documents (RFC 3863, RFC 4480): written as clients write them, read as the simplest clients read them.

use anyhow::{Context, Result, bail, ensure};
use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};

const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";

/// One tuple.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Its id.
    pub id: String,
    /// Text of `basic`.
    pub basic: Option<String>,
    /// Activities inside the tuple.
    pub activities: Vec<String>,
    /// First note.
    pub note: Option<String>,
}

/// What a watcher is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Whose presence it is.
    pub entity: String,
    /// Tuples in their order.
    pub tuples: Vec<Tuple>,
    /// Activities of the person.
    pub activities: Vec<String>,
    /// First note outside the tuples.
    pub note: Option<String>,
}

impl Document {
    /// Reads a document, demanding the right namespaces.
    ///
    /// # Errors
    /// When it is not well formed or no presence document.
    pub fn parse(octets: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(octets).context("presence document is not UTF-8")?;
        let mut reader = NsReader::from_str(text);
        let (mut document, mut path) = (Self::default(), Vec::<String>::new());
        loop {
            let (space, event) = reader.read_resolved_event()?;
            match event {
                Event::Start(tag) => {
                    document.open(&space, &tag, &path)?;
                    path.push(local(&tag));
                }
                Event::Empty(tag) => document.open(&space, &tag, &path)?,
                Event::End(_) => drop(path.pop()),
                Event::Text(text) => document.text(&text, &path),
                Event::GeneralRef(name) => document.text(character(&name)?, &path),
                Event::DocType(_) => bail!("a DOCTYPE in a presence document"),
                Event::Eof => break,
                _ => {}
            }
        }
        ensure!(!document.entity.is_empty(), "no presence document: {}", String::from_utf8_lossy(octets));
        Ok(document)
    }

    fn open(&mut self, space: &ResolveResult<'_>, tag: &BytesStart<'_>, path: &[String]) -> Result<()> {
        let name = local(tag);
        let in_space = |wanted| matches!(space, ResolveResult::Bound(Namespace(found)) if *found == wanted);
        let attribute = |name: &str| -> Result<String> {
            let found = tag.try_get_attribute(name)?.with_context(|| format!("no attribute {name}"))?;
            Ok(found.normalized_value(quick_xml::XmlVersion::Implicit1_0)?.into_owned())
        };
        match (path.len(), name.as_str()) {
            (0, "presence") => {
                ensure!(in_space(PIDF), "root element outside the PIDF namespace");
                self.entity = attribute("entity")?;
            }
            (1, "tuple") => self.tuples.push(Tuple { id: attribute("id")?, ..Tuple::default() }),
            (1, "person") => ensure!(in_space(DATA_MODEL), "person outside the data model's namespace"),
            _ if path.last().is_some_and(|parent| parent == "activities") => {
                ensure!(in_space(RPID), "activity {name} outside RPID's namespace");
                let in_tuple = path.iter().any(|parent| parent == "tuple");
                let list = if in_tuple { self.tuples.last_mut().map(|tuple| &mut tuple.activities) } else { None };
                list.unwrap_or(&mut self.activities).push(name);
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str, path: &[String]) {
        let Some(name) = path.last() else { return };
        let tuple = if path.iter().any(|parent| parent == "tuple") { self.tuples.last_mut() } else { None };
        match (name.as_str(), tuple) {
            ("basic", Some(tuple)) => tuple.basic = Some(text.trim().to_owned()),
            ("note", Some(tuple)) => add(&mut tuple.note, text),
            ("note", None) => add(&mut self.note, text),
            _ => {}
        }
    }

    /// What a client that looks at the first tuple only shows: open or not.
    #[must_use]
    pub fn first_basic(&self) -> Option<&str> {
        self.tuples.first()?.basic.as_deref()
    }

    /// Whether a client that looks at the first tuple only shows the user as reachable.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.first_basic() == Some("open")
    }

    /// Activities of the user as a whole: of the person, else of the first tuple.
    #[must_use]
    pub fn doing(&self) -> Vec<&str> {
        let of_tuple = || self.tuples.first().map(|tuple| &tuple.activities);
        let list = if self.activities.is_empty() { of_tuple() } else { Some(&self.activities) };
        list.into_iter().flatten().map(String::as_str).collect()
    }

    /// Every note of the document.
    #[must_use]
    pub fn notes(&self) -> Vec<&str> {
        self.note.iter().chain(self.tuples.iter().filter_map(|tuple| tuple.note.as_ref())).map(String::as_str).collect()
    }
}

fn local(tag: &BytesStart<'_>) -> String {
    tag.local_name().as_ref().to_owned()
}

/// Character of one of the five entities every document may use.
fn character(entity: &str) -> Result<&'static str> {
    Ok(match entity {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        other => bail!("entity &{other}; in a presence document"),
    })
}

fn add(note: &mut Option<String>, text: &str) {
    note.get_or_insert_default().push_str(text);
}

/// A document as a device publishes it.
#[must_use]
pub fn published(entity: &str, basic: &str, activity: Option<&str>, note: Option<&str>) -> String {
    let note = note.map_or_else(String::new, |text| format!("<note>{text}</note>"));
    let person = activity.map_or_else(String::new, |name| {
        format!("<dm:person id=\"p1\"><rpid:activities><rpid:{name}/></rpid:activities></dm:person>")
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
         xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
         entity=\"{entity}\"><tuple id=\"t1\"><status><basic>{basic}</basic></status>{note}</tuple>{person}</presence>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let text = published("sip:a@x", "open", Some("on-the-phone"), Some("a &amp; b"));
        let document = Document::parse(text.as_bytes()).unwrap();
        assert!(document.is_open());
        assert_eq!(document.doing(), ["on-the-phone"]);
        assert_eq!((document.entity.as_str(), document.notes()), ("sip:a@x", vec!["a & b"]));
    }

    #[test]
    fn foreign_namespaces_are_refused() {
        assert!(Document::parse(b"<presence xmlns='urn:x' entity='sip:a@x'/>").is_err());
        assert!(
            Document::parse(b"<!DOCTYPE a><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:a@x'/>").is_err()
        );
    }
}
