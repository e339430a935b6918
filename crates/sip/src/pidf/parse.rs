//! Reading presence documents.

use super::reader::{Bounded, Element, Item, Space, is_space};
use super::{Basic, Document, Note, Person, PidfError, Tuple};

/// Reads a presence document. What is not known here, elements and attributes, is passed over.
///
/// Leaves aside empty notes and times, a basic status other than `open` and `closed` (baresip says `unknown`), and
/// activities whose name could not be written again.
///
/// # Errors
/// See [`PidfError`]: answer 400, or 413 for too much.
pub fn parse(octets: &[u8]) -> Result<Document, PidfError> {
    read(&mut Bounded::new(octets)?)
}

/// Reads the whole of a document.
pub(super) fn read(reader: &mut Bounded<'_>) -> Result<Document, PidfError> {
    let root = match reader.next()? {
        Item::Start(element) if element.is(Space::Pidf, "presence") => element,
        _ => return Err(PidfError::NotPidf),
    };
    let mut document = Document { entity: root.attribute("entity")?.unwrap_or_default(), ..Document::default() };
    each_child(reader, |reader, element| {
        if element.is(Space::Pidf, "tuple") {
            document.tuples.push(tuple(reader, &element)?);
        } else if element.is(Space::DataModel, "person") && document.person.is_none() {
            document.person = Some(person(reader, &element)?);
        } else if is_note(&element) {
            document.notes.extend(note(reader, &element)?);
        } else {
            skip(reader)?;
        }
        Ok(())
    })?;
    while !matches!(reader.next()?, Item::Eof) {}
    Ok(document)
}

fn tuple(reader: &mut Bounded<'_>, element: &Element<'_>) -> Result<Tuple, PidfError> {
    let mut tuple = Tuple { id: element.attribute("id")?.unwrap_or_default(), ..Tuple::default() };
    each_child(reader, |reader, element| {
        if element.is(Space::Pidf, "status") {
            status(reader, &mut tuple)?;
        } else if element.is(Space::Pidf, "contact") {
            let priority = element.attribute("priority")?.and_then(|priority| thousandths(&priority));
            tuple.contact = text(reader)?.map(|uri| (uri, priority));
        } else if element.is(Space::Rpid, "activities") {
            activities(reader, &mut tuple.activities, &mut tuple.notes)?;
        } else if is_note(&element) {
            tuple.notes.extend(note(reader, &element)?);
        } else if is_timestamp(&element) {
            tuple.timestamp = text(reader)?;
        } else {
            skip(reader)?;
        }
        Ok(())
    })?;
    Ok(tuple)
}

fn status(reader: &mut Bounded<'_>, tuple: &mut Tuple) -> Result<(), PidfError> {
    each_child(reader, |reader, element| {
        if element.is(Space::Pidf, "basic") {
            tuple.basic = text(reader)?.and_then(|word| {
                [Basic::Open, Basic::Closed].into_iter().find(|basic| basic.as_str().eq_ignore_ascii_case(&word))
            });
        } else if element.is(Space::Rpid, "activities") {
            activities(reader, &mut tuple.activities, &mut tuple.notes)?;
        } else {
            skip(reader)?;
        }
        Ok(())
    })
}

fn person(reader: &mut Bounded<'_>, element: &Element<'_>) -> Result<Person, PidfError> {
    let mut person = Person { id: element.attribute("id")?.unwrap_or_default(), ..Person::default() };
    each_child(reader, |reader, element| {
        if element.is(Space::Rpid, "activities") {
            activities(reader, &mut person.activities, &mut person.notes)?;
        } else if is_note(&element) {
            person.notes.extend(note(reader, &element)?);
        } else if is_timestamp(&element) {
            person.timestamp = text(reader)?;
        } else {
            skip(reader)?;
        }
        Ok(())
    })?;
    Ok(person)
}

/// Activities by their element names, each once (RFC 4480 §3.2), and the notes among them.
fn activities(reader: &mut Bounded<'_>, names: &mut Vec<String>, notes: &mut Vec<Note>) -> Result<(), PidfError> {
    each_child(reader, |reader, element| {
        if element.is(Space::Rpid, "note") {
            notes.extend(note(reader, &element)?);
            return Ok(());
        }
        if element.space == Space::Rpid
            && is_plain_name(element.name())
            && !names.iter().any(|name| name == element.name())
        {
            names.push(element.name().to_owned());
        }
        skip(reader)
    })
}

fn is_note(element: &Element<'_>) -> bool {
    element.is(Space::Pidf, "note") || element.is(Space::DataModel, "note")
}

fn is_timestamp(element: &Element<'_>) -> bool {
    element.is(Space::Pidf, "timestamp") || element.is(Space::DataModel, "timestamp")
}

fn note(reader: &mut Bounded<'_>, element: &Element<'_>) -> Result<Option<Note>, PidfError> {
    let lang = element.attribute("xml:lang")?.filter(|lang| !lang.is_empty());
    Ok(text(reader)?.map(|text| Note { lang, text }))
}

/// Calls `child` with each child of the element that has begun; it reads up to the child's end.
fn each_child<'i>(
    reader: &mut Bounded<'i>,
    mut child: impl FnMut(&mut Bounded<'i>, Element<'i>) -> Result<(), PidfError>,
) -> Result<(), PidfError> {
    loop {
        match reader.next()? {
            Item::Start(element) => child(reader, element)?,
            Item::Text(_) => {}
            Item::End | Item::Eof => return Ok(()),
        }
    }
}

/// Passes over the rest of the element that has begun.
fn skip(reader: &mut Bounded<'_>) -> Result<(), PidfError> {
    let mut open = 1_usize;
    while open > 0 {
        match reader.next()? {
            Item::Start(_) => open += 1,
            Item::End => open -= 1,
            Item::Text(_) => {}
            Item::Eof => return Ok(()),
        }
    }
    Ok(())
}

/// Text of the element that has begun, without white space around it; `None` if there is none.
fn text(reader: &mut Bounded<'_>) -> Result<Option<String>, PidfError> {
    let mut collected = String::new();
    loop {
        match reader.next()? {
            Item::Text(piece) => collected.push_str(&piece),
            Item::Start(_) => skip(reader)?,
            Item::End | Item::Eof => {
                let text = collected.trim_matches(is_space);
                return Ok((!text.is_empty()).then(|| text.to_owned()));
            }
        }
    }
}

/// A priority (RFC 3863 §4.1.5: a decimal from 0 to 1 with up to three digits) in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.trim_matches(is_space).split_once('.').unwrap_or((text.trim_matches(is_space), ""));
    if !matches!(whole, "" | "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    let value = fraction + if whole == "1" { 1000 } else { 0 };
    (value <= 1000).then_some(value)
}

/// Whether the text can be the name of an element in any document: an NCName of ASCII characters.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.chars().all(is_name_character)
}

/// Whether the character can stand in a name, after its first.
pub(super) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}
