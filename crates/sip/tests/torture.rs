//! Every torture message comes out as its table says, as a datagram and over a stream in every cut.

#[path = "torture/table.rs"]
mod table;

use std::path::Path;

use bytes::{Bytes, BytesMut};
use commpool_sip::{Contacts, Frame, HeaderName, Limits, Message, StreamFramer};
use table::Case;

#[test]
fn own_messages() {
    check_folder(&table::own_folder());
}

#[test]
fn rfc_messages() {
    if let Some(folder) = table::rfc_folder() {
        check_folder(&folder);
    }
}

fn check_folder(folder: &Path) {
    let cases = table::cases(folder);
    assert!(cases.len() > 50, "the table is cut short");
    let wrong: Vec<String> = cases
        .iter()
        .flat_map(|case| check(case).into_iter().map(|wrong| format!("{}: {wrong}", case.name())))
        .collect();
    assert!(wrong.is_empty(), "{} wrong of {} messages:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Everything that is not as expected.
fn check(case: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    match Message::parse_datagram(Bytes::from(case.octets.clone()), &Limits::default()) {
        Ok(message) => {
            match (case.well_formed(), message.validate()) {
                (true, Err(invalid)) => wrong.push(format!("refused: {invalid}")),
                (false, Ok(())) if !case.may_be_accepted() => wrong.push("found valid".to_owned()),
                (false, Err(invalid)) => check_status(case, invalid.status, &mut wrong),
                _ => {}
            }
            check_fields(case, &message, &mut wrong);
        }
        Err(malformed) if case.well_formed() => wrong.push(format!("not read: {malformed}")),
        Err(malformed) if malformed.partial.is_some() => check_status(case, malformed.status, &mut wrong),
        Err(_) => {}
    }
    check_stream(case, &mut wrong);
    wrong
}

fn check_status(case: &Case, status: u16, wrong: &mut Vec<String>) {
    let answer = case.cell("server_answer");
    if !answer.contains(&status.to_string()) && !answer.contains("discard") && !answer.contains("silence") {
        wrong.push(format!("refused with {status} instead of {answer}"));
    }
}

fn check_fields(case: &Case, message: &Message, wrong: &mut Vec<String>) {
    for (column, read) in fields(message) {
        let expected = case.cell(column);
        let fits = match (expected, &read) {
            ("ERR", read) => read.is_none(),
            ("", _) if !case.well_formed() => true,
            (expected, read) => read.as_deref() == Some(expected),
        };
        if !fits {
            wrong.push(format!("{column} is {read:?} instead of {expected:?}"));
        }
    }
}

/// The columns of the table as this message gives them; `None` for an error, empty for what is absent.
fn fields(message: &Message) -> Vec<(&'static str, Option<String>)> {
    let method = message.status().map_or_else(|| message.method().to_string(), |status| status.to_string());
    let vias: Result<Vec<_>, _> = message.vias().collect();
    let top = message.top_via();
    let optional = |text: Option<&str>| Some(text.unwrap_or_default().to_owned());
    let absent = |name: HeaderName| (!message.has(name)).then(String::new);
    let from = message.from();
    let to = message.to();
    let cseq = message.cseq();
    vec![
        ("method_or_status", Some(method)),
        ("request_uri", Some(message.request_uri().to_owned())),
        ("n_via", vias.ok().map(|vias| vias.len().to_string())),
        ("top_via_transport", top.ok().map(|via| via.transport.to_owned())),
        ("top_via_sent_by", top.ok().map(|via| via.sent_by().to_owned())),
        ("top_via_branch", top.ok().and_then(|via| optional(via.branch()))),
        ("from_uri", from.ok().map(|from| from.uri.to_owned())),
        ("from_tag", from.ok().and_then(|from| optional(from.tag()))),
        ("to_uri", to.ok().map(|to| to.uri.to_owned())),
        ("to_tag", to.ok().and_then(|to| optional(to.tag()))),
        ("call_id", message.call_id().ok().map(str::to_owned).or(absent(HeaderName::CallId))),
        ("cseq_number", cseq.ok().map(|(number, _)| number.to_string())),
        ("cseq_method", cseq.ok().map(|(_, method)| method.to_string())),
        ("contacts", message.contacts().ok().map(contacts)),
        ("max_forwards", message.max_forwards().ok().map(|hops| hops.map(|hops| hops.to_string()).unwrap_or_default())),
        ("body_octets", Some(message.body().len().to_string())),
    ]
}

fn contacts(contacts: Contacts<'_>) -> String {
    match contacts {
        Contacts::None => String::new(),
        Contacts::Star => "*".to_owned(),
        Contacts::List(list) => list.iter().map(|contact| contact.uri).collect::<Vec<_>>().join(" | "),
    }
}

/// What a stream gives for these octets must not depend on how they are cut, and the first message is that of the datagram.
fn check_stream(case: &Case, wrong: &mut Vec<String>) {
    let whole = frames(&case.octets, case.octets.len());
    for size in [1, 2, 3, 7, 64] {
        if frames(&case.octets, size) != whole {
            wrong.push(format!("another result when cut into pieces of {size} octets"));
        }
    }
    let datagram = Message::parse_datagram(Bytes::from(case.octets.clone()), &Limits::default());
    if let (Ok(datagram), Some(Frame::Message(first))) =
        (datagram, whole.frames.iter().find(|frame| matches!(frame, Frame::Message(_))))
        && datagram.octets() != first
    {
        wrong.push("the stream cuts the message elsewhere than the datagram".to_owned());
    }
    for frame in &whole.frames {
        if let Frame::Message(octets) = frame
            && let Err(malformed) = Message::parse_framed(octets.clone(), &Limits::default())
            && case.well_formed()
        {
            wrong.push(format!("cut from the stream, but then {malformed}"));
        }
    }
    if case.well_formed() && whole.frames.is_empty() && has_length(case) {
        wrong.push(format!("not cut from the stream: {:?}", whole.error));
    }
}

fn has_length(case: &Case) -> bool {
    Message::parse_datagram(Bytes::from(case.octets.clone()), &Limits::default())
        .is_ok_and(|message| message.has(HeaderName::ContentLength))
}

#[derive(Debug, PartialEq, Eq)]
struct Cut {
    frames: Vec<Frame>,
    error: Option<(Option<u16>, &'static str)>,
}

/// The frames without the pongs, of which the first half of a ping may be one.
fn frames(octets: &[u8], size: usize) -> Cut {
    let mut framer = StreamFramer::new(Limits::default());
    let mut buffer = BytesMut::new();
    let mut cut = Cut { frames: Vec::new(), error: None };
    for piece in octets.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match framer.next(&mut buffer) {
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(frame)) => cut.frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    cut.error = Some((error.status, error.what));
                    return cut;
                }
            }
        }
    }
    cut
}
