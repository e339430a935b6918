//! Between PIDF documents and the model's presence: what a publication says, what watchers are shown.

use commpool_model::presence::{Aggregate, Availability, Facts, Source, State, aggregate};
use commpool_sip::pidf::{self, Basic, Document, Note, Person, Tuple};

/// The one body type of the presence package.
pub const PIDF: &str = "application/pidf+xml";
/// Largest document kept of a publication, octets.
const MAX_DOCUMENT: usize = 25 * 1024;
/// Largest full body of a NOTIFY over UDP, so that the whole stays below 1,300 octets (RFC 3261 §18.1.1).
pub const UDP_BODY: usize = 550;
/// Most activities kept of a publication, and octets of its note.
const MAX_ACTIVITIES: usize = 8;
const MAX_NOTE: usize = 512;

/// Why a published document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not PIDF, or beyond the parser's bounds.
    Malformed,
    /// Larger than what is kept.
    TooLarge,
}

/// What a published document says, and its regenerated form.
pub fn published(body: &[u8]) -> Result<(State, Vec<u8>), Unusable> {
    let document = pidf::parse(body).map_err(|_| Unusable::Malformed)?;
    let state = state_of(&document);
    let octets = pidf::write(&document);
    if octets.len() > MAX_DOCUMENT { Err(Unusable::TooLarge) } else { Ok((state, octets)) }
}

/// What a document says as a whole: open if any tuple is, activities of the person, else of the tuples.
fn state_of(document: &Document) -> State {
    let open = document.tuples.iter().any(|t| t.basic == Some(Basic::Open));
    let closed = !open && document.tuples.iter().any(|t| t.basic == Some(Basic::Closed));
    let mut activities: Vec<String> = document.person.iter().flat_map(|p| p.activities.iter().cloned()).collect();
    activities.extend(document.tuples.iter().flat_map(|t| t.activities.iter().cloned()));
    activities.dedup();
    activities.truncate(MAX_ACTIVITIES);
    let availability = if closed { Availability::Closed } else { availability(open, &activities) };
    State { source: Source::Automatic, availability, activities, note: note_of(document) }
}

fn note_of(document: &Document) -> Option<String> {
    let person = document.person.iter().flat_map(|p| &p.notes);
    let tuples = document.tuples.iter().flat_map(|t| &t.notes);
    let text = person.chain(&document.notes).chain(tuples).map(|n| n.text.trim()).find(|t| !t.is_empty())?;
    let mut end = MAX_NOTE.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).map(str::to_owned)
}

/// RPID activities (RFC 4480 §3.2) by what they mean for reaching somebody; the strongest word counts.
fn availability(open: bool, activities: &[String]) -> Availability {
    let has = |names: &[&str]| activities.iter().any(|a| names.contains(&a.as_str()));
    if has(&["do-not-disturb", "dnd"]) {
        Availability::DoNotDisturb
    } else if has(&["busy", "on-the-phone", "meeting", "appointment", "presentation", "in-transit", "steering"]) {
        Availability::Busy
    } else if has(&["be-right-back", "meal", "breakfast", "dinner"]) {
        Availability::BeRightBack
    } else if has(&["away", "permanent-absence", "sleeping", "vacation", "holiday", "travel"]) {
        Availability::Away
    } else if open {
        Availability::Available
    } else {
        Availability::SignedIn
    }
}

/// What watchers of a user are shown, in full and cut for UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Aggregate tuple first, then one per device.
    pub full: Vec<u8>,
    /// The aggregate tuple alone, note cut.
    pub short: Vec<u8>,
}

/// The documents for watchers of a user, from all that counts.
pub fn shown(address: &str, facts: &Facts) -> Shown {
    let total = aggregate(facts);
    let entity = format!("sip:{address}");
    let mut tuples = vec![aggregate_tuple(&total, address)];
    if total.tuples.len() > 1 {
        tuples.extend(total.tuples.iter().enumerate().map(|(n, t)| device_tuple(n, &t.state)));
    }
    let document = |tuples: Vec<Tuple>, note: Option<&str>| Document {
        entity: entity.clone(),
        tuples,
        person: Some(person(&total, note)),
        ..Document::default()
    };
    let full = pidf::write(&document(tuples, total.note.as_deref()));
    let note = total.note.as_deref().map(|n| n.chars().take(32).collect::<String>());
    let mut first = aggregate_tuple(&total, address);
    first.notes.clear();
    let short = pidf::write(&document(vec![first], note.as_deref()));
    Shown { full, short }
}

/// What somebody sees who may not see anything, or of somebody who is not there: a `closed` document.
pub fn offline(address: &str) -> Vec<u8> {
    shown(address, &Facts::default()).full
}

const fn basic(availability: Availability) -> Basic {
    if matches!(availability, Availability::Closed) { Basic::Closed } else { Basic::Open }
}

fn aggregate_tuple(total: &Aggregate, address: &str) -> Tuple {
    Tuple {
        id: "aggregate".to_owned(),
        basic: Some(basic(total.availability)),
        contact: Some((format!("sip:{address}"), None)),
        notes: total.note.iter().map(|n| note(n)).collect(),
        ..Tuple::default()
    }
}

fn device_tuple(number: usize, state: &State) -> Tuple {
    Tuple {
        id: format!("device-{number}"),
        basic: Some(basic(state.availability)),
        activities: state.activities.clone(),
        ..Tuple::default()
    }
}

fn person(total: &Aggregate, text: Option<&str>) -> Person {
    Person {
        id: "person".to_owned(),
        activities: total.activities.clone(),
        notes: text.map(note).into_iter().collect(),
        ..Person::default()
    }
}

fn note(text: &str) -> Note {
    Note::new(text)
}
