//! Other parsers read what ours reads: rsip and sipx, each apart from its known defects.

#[expect(dead_code, reason = "only well-formed messages are wanted here")]
#[path = "../../sip/tests/torture/table.rs"]
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use commpool_rsip_compat::{compare, from_rsip, to_rsip};
use commpool_sip::{Contacts, Limits, Message, Uri};
use sipx_sip::headers::{self as theirs, ContactValue};
use table::Case;

/// What rsip 0.4.0 refuses or reads wrongly, and the torture messages that show it.
const DEFECTS: &[(&str, &[&str])] = &[
    (
        "a folded row refuses the message",
        &["folded", "content-length-folded", "look-alike-header", "wsinv", "esc01", "longreq", "semiuri"],
    ),
    ("white space before the colon refuses the message", &["content-length-space"]),
    ("empty lines before the start line refuse the message", &["empty-lines-first"]),
    ("the version is compared with regard to case", &["version-lower-case"]),
    (
        "a method outside a fixed list refuses the message",
        &["method-every-character", "method-escaped", "service-request", "esc02", "intmeth"],
    ),
    ("methods are compared without regard to case", &["method-lower-case"]),
    ("compact names are not known: no Call-ID, no Contact", &["dblreq", "regescrt"]),
    ("several Contacts in a row are an error", &["user-escaped-nul"]),
    ("of several Via values in a row only the first is seen, and unknown transports are an error", &["transports"]),
    ("a bracket inside a quoted display name begins the address", &["display-quoted-separators"]),
    ("a status line without a space after the status refuses the message", &["reason-missing"]),
    (
        "URIs of other schemes are read as user, host and port",
        &["scheme-unknown", "scheme-elsewhere", "scheme-presence", "unkscm", "unksm2", "novelsc"],
    ),
    ("a user part with a dot in it becomes part of the host", &["invut", "regaut01", "user-looks-like-sips"]),
    ("the headers of a URI are dropped", &["contact-uri-parts"]),
    ("a quoted value with brackets is an error: +sip.instance", &["contact-instance"]),
    (
        "IPv6 addresses are read as host and port",
        &[
            "ipv6-everywhere",
            "ipv6-port-inside",
            "ipv6-received-bracketed",
            "ipv6-received-plain",
            "ipv6-mapped",
            "ipv6-mixed",
            "ipv6-good",
            "port-ambiguous",
            "port-unambiguous",
            "via-received-param-with-delim",
            "via-received-param-no-delim",
            "ipv6-in-sdp",
            "mult-ip-in-header",
            "mult-ip-in-sdp",
            "ipv4-mapped-ipv6",
            "ipv6-correct-abnf-2-colons",
        ],
    ),
];

/// What sipx 1.0.1 refuses.
const SIPX_DEFECTS: &[(&str, &[&str])] = &[
    ("white space around the colon of a sent-by is an error", &["folded"]),
    ("empty lines before the start line of a datagram refuse the message", &["empty-lines-first"]),
];

/// The well-formed torture messages of all folders there are.
fn well_formed() -> Vec<Case> {
    let folders = [Some(table::own_folder()), table::rfc_folder()];
    let cases = folders.into_iter().flatten().flat_map(|folder: PathBuf| table::cases(&folder));
    cases.filter(Case::well_formed).collect()
}

fn ours(case: &Case) -> Message {
    Message::parse_datagram(Bytes::from(case.octets.clone()), &Limits::default())
        .unwrap_or_else(|malformed| panic!("{}: {malformed}", case.name()))
}

#[test]
fn rsip_agrees_apart_from_its_known_defects() {
    let cases = well_formed();
    let differing: BTreeSet<&str> = cases
        .iter()
        .filter(|case| {
            let theirs = rsip::SipMessage::try_from(case.octets.as_slice());
            theirs.map_or(true, |theirs| compare(&ours(case), &theirs).is_err())
        })
        .map(Case::name)
        .collect();
    let present: BTreeSet<&str> = cases.iter().map(Case::name).collect();
    let known = DEFECTS.iter().flat_map(|(_, names)| names.iter().copied());
    let known: BTreeSet<&str> = known.filter(|name| present.contains(name)).collect();
    assert_eq!(differing, known, "left: rsip differs; right: the written list");
}

#[test]
fn a_message_is_carried_to_rsip_and_back_or_refused() {
    let mut carried = 0;
    for case in well_formed() {
        let ours = ours(&case);
        let Ok(theirs) = to_rsip(&ours) else { continue };
        let back = from_rsip(&theirs).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        assert_eq!(facts(&back), facts(&ours), "{}", case.name());
        assert_eq!(back.body(), ours.body(), "{}", case.name());
        carried += 1;
    }
    assert!(carried >= 20, "only {carried} messages are carried at all");
}

/// What both sides must agree on, as text.
type Facts = Vec<(&'static str, String)>;

fn facts(message: &Message) -> Facts {
    let uri = |text: &str| Uri::parse(text).map_or_else(|_| text.to_owned(), |uri| uri.canonical_binding());
    let (from, to, cseq) = (message.from().unwrap(), message.to().unwrap(), message.cseq().unwrap());
    let vias = message.vias().map(Result::unwrap).map(|via| {
        format!(
            "{} {}:{:?} {:?}",
            via.transport,
            via.host.trim_matches(['[', ']']),
            via.port,
            via.branch().unwrap_or_default()
        )
    });
    let contacts = match message.contacts().unwrap() {
        Contacts::None => String::new(),
        Contacts::Star => "*".to_owned(),
        Contacts::List(list) => list.iter().map(|contact| uri(contact.uri)).collect::<Vec<_>>().join(" | "),
    };
    vec![
        (
            "start",
            message.status().map_or_else(
                || format!("{} {}", message.method(), uri(message.request_uri())),
                |status| status.to_string(),
            ),
        ),
        ("Via", vias.collect::<Vec<_>>().join(" | ")),
        ("From", format!("{} {}", uri(from.uri), from.tag().unwrap_or_default())),
        ("To", format!("{} {}", uri(to.uri), to.tag().unwrap_or_default())),
        ("Call-ID", message.call_id().unwrap().to_owned()),
        ("CSeq", format!("{} {}", cseq.0, cseq.1)),
        ("Contact", contacts),
        ("body", message.body().len().to_string()),
    ]
}

#[test]
fn sipx_agrees_apart_from_its_known_defects() {
    let mut differing = Vec::new();
    for case in well_formed() {
        if SIPX_DEFECTS.iter().any(|(_, names)| names.contains(&case.name())) {
            assert!(sipx_facts(&case.octets).is_err(), "{} is read now: take it off the list", case.name());
            continue;
        }
        let ours = facts(&ours(&case));
        match sipx_facts(&case.octets) {
            Ok(theirs) if theirs == ours => {}
            Ok(theirs) => {
                let differs = ours.into_iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
                differing.push(format!("{}: {:?}", case.name(), differs.collect::<Vec<_>>()));
            }
            Err(error) => differing.push(format!("{}: {error}", case.name())),
        }
    }
    assert!(differing.is_empty(), "ours, then theirs:\n{}", differing.join("\n"));
}

/// The same facts as sipx reads them.
fn sipx_facts(octets: &[u8]) -> Result<Facts, String> {
    let say = |what: &str| what.to_owned();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let uri = |uri: &sipx_sip::Uri| {
        let uri = text(&uri.to_bytes());
        Uri::parse(&uri).map_or_else(|_| uri.clone(), |uri| uri.canonical_binding())
    };
    let message = sipx_sip::parse_datagram(Bytes::copy_from_slice(octets), &sipx_sip::Limits::datagram())
        .map_err(|error| error.to_string())?;
    let headers = message.headers();
    let from = headers.typed::<theirs::From>().ok_or(say("no From"))?.map_err(|error| error.to_string())?;
    let to = headers.typed::<theirs::To>().ok_or(say("no To"))?.map_err(|error| error.to_string())?;
    let cseq = headers.typed::<theirs::CSeq>().ok_or(say("no CSeq"))?.map_err(|error| error.to_string())?;
    let call_id = headers.typed::<theirs::CallId>().ok_or(say("no Call-ID"))?.map_err(|error| error.to_string())?;
    let vias: Result<Vec<_>, _> = headers.typed_all::<theirs::Via>().collect();
    let vias = vias.map_err(|error| error.to_string())?.into_iter().map(|via| {
        let branch = via.branch().map(text).unwrap_or_default();
        format!("{} {}:{:?} {branch:?}", text(&via.transport), text(&via.host.to_bytes()), via.port)
    });
    let contacts: Result<Vec<_>, _> = headers.typed_all::<ContactValue>().collect();
    let contacts = contacts.map_err(|error| error.to_string())?.into_iter().map(|contact| match contact {
        ContactValue::Wildcard => "*".to_owned(),
        ContactValue::Address(address) => uri(&address.uri),
    });
    let start = match &message {
        sipx_sip::Message::Request(request) => format!("{} {}", text(request.method.as_bytes()), uri(&request.uri)),
        sipx_sip::Message::Response(response) => response.status.code().to_string(),
    };
    Ok(vec![
        ("start", start),
        ("Via", vias.collect::<Vec<_>>().join(" | ")),
        ("From", format!("{} {}", uri(&from.0.uri), from.0.tag().map(text).unwrap_or_default())),
        ("To", format!("{} {}", uri(&to.0.uri), to.0.tag().map(text).unwrap_or_default())),
        ("Call-ID", text(&call_id.0)),
        ("CSeq", format!("{} {}", cseq.sequence, text(cseq.method.as_bytes()))),
        ("Contact", contacts.collect::<Vec<_>>().join(" | ")),
        ("body", message.body().len().to_string()),
    ])
}
