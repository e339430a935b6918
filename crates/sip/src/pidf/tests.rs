//! Presence documents: what clients send, what strangers try, what comes back.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::reader::{Bounded, Work};
use super::*;

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// A presence document with this inside.
fn presence(inside: &str) -> String {
    format!(
        "<presence xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}' xmlns:r='{RPID}' entity='sip:a@example.org'>{inside}</presence>"
    )
}

fn parsed(inside: &str) -> Result<Document, PidfError> {
    parse(presence(inside).as_bytes())
}

#[test]
fn linphones_document_is_read() {
    let document = parse(samples::LINPHONE.as_bytes()).unwrap();
    let expected = Document {
        entity: "sip:alice@example.org".into(),
        tuples: vec![Tuple {
            id: "k7yx_e".into(),
            basic: Some(Basic::Open),
            contact: Some(("sip:alice@example.org;gr=urn:uuid:1".into(), Some(800))),
            timestamp: Some("2026-11-24T08:00:00Z".into()),
            ..Tuple::default()
        }],
        person: Some(Person {
            id: "z0q".into(),
            activities: vec!["on-the-phone".into(), "busy".into()],
            notes: vec![],
            timestamp: Some("2026-11-24T08:00:01Z".into()),
        }),
        notes: vec![Note { lang: Some("de".into()), text: "Bin gleich da".into() }],
    };
    assert_eq!(document, expected);
}

#[test]
fn pjsips_baresips_and_sip_js_documents_are_read() {
    let pjsip = parse(samples::PJSIP.as_bytes()).unwrap();
    assert_eq!(pjsip.tuples[0].basic, Some(Basic::Open));
    assert_eq!(pjsip.tuples[0].contact, Some(("sip:bob@192.0.2.9:5060;ob".into(), None)));
    let person = pjsip.person.unwrap();
    assert_eq!((person.activities, person.notes), (vec!["away".into()], vec![Note::new("Out for lunch & coffee")]));

    let baresip = parse(samples::BARESIP.as_bytes()).unwrap();
    assert_eq!((baresip.tuples.len(), baresip.tuples[0].basic), (1, None));
    assert_eq!(baresip.person.unwrap(), Person { id: "p1001".into(), ..Person::default() });

    let sip_js = parse(samples::SIP_JS.as_bytes()).unwrap();
    assert_eq!((sip_js.entity.as_str(), sip_js.tuples[0].basic), ("sip:dave@example.org", Some(Basic::Closed)));
    assert_eq!(sip_js.tuples[0].notes, [Note::new("<gone> home")]);
}

#[test]
fn what_is_unknown_is_passed_over_and_what_is_known_elsewhere_is_found() {
    let document = parsed(
        "<x:y xmlns:x='urn:x'><tuple id='no'/><x:z>t</x:z></x:y>\
         <tuple id='t'><status><r:activities><r:away/><x/></r:activities><basic/></status><status><basic>OPEN</basic></status>\
         <r:activities><r:busy/><r:away/><r:note>n1</r:note></r:activities><note> </note><contact priority='7'>c</contact></tuple>\
         <dm:device id='d'><dm:note>no</dm:note></dm:device>\
         <dm:person id='one'><r:activities><r:meeting>long<x/></r:meeting></r:activities></dm:person><dm:person id='two'/>",
    )
    .unwrap();
    let tuple = &document.tuples[0];
    assert_eq!((document.tuples.len(), tuple.basic), (1, Some(Basic::Open)));
    assert_eq!(tuple.activities, ["away", "busy"]);
    assert_eq!(tuple.notes, [Note::new("n1")]);
    assert_eq!(tuple.contact, Some(("c".into(), None)));
    let person = document.person.unwrap();
    assert_eq!((person.id.as_str(), person.activities), ("one", vec!["meeting".to_owned()]));
}

#[test]
fn names_count_by_namespace_not_by_prefix() {
    let other = format!(
        "<r:presence xmlns:r='{PIDF}' xmlns='{RPID}'><r:tuple id='1'><tuple/><r:status><basic>open</basic>\
         <activities xmlns:r='urn:x'><away/><r:busy/></activities></r:status></r:tuple></r:presence>"
    );
    let document = parse(other.as_bytes()).unwrap();
    assert_eq!((document.tuples[0].basic, &document.tuples[0].activities), (None, &vec!["away".to_owned()]));
    for wrong in ["<presence/>", "<presence xmlns='urn:x'/>", "<tuple xmlns='urn:ietf:params:xml:ns:pidf'/>"] {
        assert_eq!(parse(wrong.as_bytes()), Err(PidfError::NotPidf), "{wrong}");
    }
}

#[test]
fn references_are_resolved_and_nothing_else() {
    let note = |inside: &str| parsed(&format!("<note>{inside}</note>")).map(|document| document.notes[0].text.clone());
    assert_eq!(note("a&lt;b&gt;&amp;&apos;&quot;&#65;&#x1F600;<!-- c -->d<x>no</x>e").unwrap(), "a<b>&'\"A😀de");
    assert_eq!(note("a\r\nb&#13;c").unwrap(), "a\nb\rc");
    for wrong in ["&nbsp;", "&#0;", "&#1;", "&#xFFFE;", "&#xD800;", "&#x110000;", "&;", "&a", "\u{1}"] {
        assert!(matches!(note(wrong), Err(PidfError::Syntax(_))), "{wrong}");
    }
    let entity = |value: &str| {
        parse(format!("<presence xmlns='{PIDF}' entity='{value}'/>").as_bytes()).map(|document| document.entity)
    };
    assert_eq!(entity("sip:a&amp;b").unwrap(), "sip:a&b");
    assert!(entity("&#1;").is_err() && entity("&x;").is_err());
}

#[test]
fn broken_xml_is_refused() {
    for wrong in [
        "",
        " ",
        "text",
        "<presence",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'></presenc>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'/><presence/>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'/>text",
        "x<presence xmlns='urn:ietf:params:xml:ns:pidf'/>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' a/>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' a=1/>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'><tuple></presence></tuple>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'/></x>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:xml='urn:x'/>",
    ] {
        let error = parse(wrong.as_bytes()).unwrap_err();
        assert!(matches!(error, PidfError::Syntax(_) | PidfError::NotPidf), "{wrong}: {error}");
    }
}

#[test]
fn other_encodings_are_refused() {
    let declared = |encoding: &str| {
        parse(format!("<?xml version='1.0' encoding='{encoding}'?><presence xmlns='{PIDF}'/>").as_bytes())
    };
    for known in ["UTF-8", "utf-8", "US-ASCII"] {
        assert!(declared(known).is_ok(), "{known}");
    }
    for unknown in ["ISO-8859-1", "UTF-16", "UTF-7"] {
        assert_eq!(declared(unknown), Err(PidfError::Encoding), "{unknown}");
    }
    assert_eq!(parse(b"<presence xmlns='urn:ietf:params:xml:ns:pidf'>\xff</presence>"), Err(PidfError::Encoding));
    assert!(parse(format!("\u{feff}<presence xmlns='{PIDF}'/>").as_bytes()).is_ok());
}

/// What a reader of the document costs, and what comes of it.
fn cost(document: &str) -> (Result<Document, PidfError>, Work) {
    match Bounded::new(document.as_bytes()) {
        Ok(mut reader) => (parse::read(&mut reader), reader.work()),
        Err(error) => (Err(error), Work::default()),
    }
}

fn repeated(count: usize, mut piece: impl FnMut(usize, &mut String)) -> String {
    let mut all = String::new();
    for number in 0..count {
        piece(number, &mut all);
    }
    all
}

#[test]
fn bombs_are_refused_after_little_work() {
    let deep = "<a>".repeat(10_000);
    let nested = repeated(1_500, |number, all| write!(all, "<a xmlns:n{number}='urn:{number}'>").unwrap());
    let attributes = repeated(10_000, |number, all| write!(all, " a{number}=''").unwrap());
    let declarations = repeated(3_000, |number, all| write!(all, " xmlns:n{number}='u'").unwrap());
    let siblings = repeated(70, |number, all| write!(all, "<x xmlns:n{number}='u'/>").unwrap());
    let cases = [
        ("depth", presence(&deep), PidfError::TooMany("levels of elements")),
        ("depth alone", deep.clone(), PidfError::NotPidf),
        ("nested namespaces", presence(&nested), PidfError::TooMany("levels of elements")),
        (
            "namespaces of one element",
            presence(&format!("<x{declarations}/>")),
            PidfError::TooMany("namespace declarations"),
        ),
        ("namespaces of siblings", presence(&siblings), PidfError::TooMany("namespace declarations")),
        ("attributes", presence(&format!("<x{}/>", &attributes[..60_000])), PidfError::TooMany("attributes")),
        ("too long", presence(&format!("<x{attributes}/>")), PidfError::TooMany("octets")),
        (
            "68 KB of namespaces",
            presence(&repeated(68, |_, all| all.push_str(&nested[..1000]))),
            PidfError::TooMany("octets"),
        ),
        (
            "entities",
            format!(
                "<!DOCTYPE p [<!ENTITY a 'ha'><!ENTITY b '{}'>]><presence xmlns='{PIDF}'>&b;</presence>",
                "&a;".repeat(1000)
            ),
            PidfError::Doctype,
        ),
        ("external entity", "<!DOCTYPE p SYSTEM 'file:///etc/passwd'><p/>".to_owned(), PidfError::Doctype),
    ];
    for (what, document, expected) in cases {
        let (result, work) = cost(&document);
        assert_eq!(result, Err(expected), "{what}");
        assert!(work.events <= 130 && work.attributes <= 130, "{what}: {work:?}");
    }
}

#[test]
fn elements_are_counted_wherever_they_stand() {
    let fits = presence(&"<x/>".repeat(MOST_ELEMENTS - 1));
    let (result, work) = cost(&fits);
    assert!(result.is_ok());
    assert!(work.elements == MOST_ELEMENTS && work.events <= 2 * MOST_ELEMENTS + 2, "{work:?}");
    assert_eq!(cost(&presence(&"<x/>".repeat(MOST_ELEMENTS))).0, Err(PidfError::TooMany("elements")));
    let deep = |levels: usize| presence(&("<x>".repeat(levels) + &"</x>".repeat(levels)));
    assert!(cost(&deep(MOST_DEPTH - 1)).0.is_ok());
    assert_eq!(cost(&deep(MOST_DEPTH)).0, Err(PidfError::TooMany("levels of elements")));
    let attributes = |count| presence(&format!("<x{}/>", repeated(count, |n, all| write!(all, " a{n}=''").unwrap())));
    assert!(cost(&attributes(MOST_ATTRIBUTES)).0.is_ok());
    assert_eq!(cost(&attributes(MOST_ATTRIBUTES + 1)).0, Err(PidfError::TooMany("attributes")));
    let full = presence("") + &" ".repeat(MOST_OCTETS - presence("").len());
    assert!(parse(full.as_bytes()).is_ok());
    assert_eq!(parse((full + " ").as_bytes()), Err(PidfError::TooMany("octets")));
}

#[test]
fn a_document_is_written_in_the_order_simple_clients_need() {
    let document = Document {
        entity: "sip:bob&co@example.org".into(),
        tuples: vec![
            Tuple {
                id: "pool".into(),
                basic: Some(Basic::Open),
                contact: Some(("sip:bob@example.org".into(), Some(1000))),
                activities: vec!["away".into()],
                notes: vec![Note { lang: Some("en".into()), text: "a < b".into() }],
                timestamp: Some("2026-11-24T08:00:00Z".into()),
            },
            Tuple { id: "pool".into(), basic: Some(Basic::Closed), ..Tuple::default() },
        ],
        person: Some(Person {
            id: "1 person".into(),
            activities: vec!["on-the-phone".into(), "no name".into()],
            notes: vec![Note::new("later")],
            timestamp: None,
        }),
        notes: vec![Note::new("note"), Note::new("")],
    };
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
        xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
        entity=\"sip:bob&amp;co@example.org\">\
        <tuple id=\"pool\"><status><basic>open</basic></status><rpid:activities><rpid:away/></rpid:activities>\
        <contact priority=\"1\">sip:bob@example.org</contact><note xml:lang=\"en\">a &lt; b</note>\
        <timestamp>2026-11-24T08:00:00Z</timestamp></tuple>\
        <tuple id=\"pool-2\"><status><basic>closed</basic></status></tuple><note>note</note>\
        <dm:person id=\"_1_person\"><rpid:activities><rpid:on-the-phone/></rpid:activities><dm:note>later</dm:note>\
        </dm:person></presence>";
    assert_eq!(text(&write(&document)), expected);
}

#[test]
fn many_equal_ids_cost_no_more_than_many_different_ones() {
    let tuple = |id: String| Tuple { id, ..Tuple::default() };
    let tuples = (2..2000).map(|number| tuple(format!("a-{number}"))).chain((0..2000).map(|_| tuple("a".into())));
    let document = Document { tuples: tuples.collect(), ..Document::default() };
    let written = text(&write(&document));
    let ids: std::collections::BTreeSet<_> =
        written.split(" id=\"").skip(1).map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), 3998);
}

#[test]
fn priorities_are_decimals_between_zero_and_one() {
    for (written, expected) in [
        ("0", Some(0)),
        ("1", Some(1000)),
        ("1.000", Some(1000)),
        ("0.8", Some(800)),
        ("0.025", Some(25)),
        (".5", Some(500)),
        (" 0.5 ", Some(500)),
        ("1.001", None),
        ("0.1234", None),
        ("2", None),
        ("-1", None),
        ("", None),
        (".", None),
        ("0.+1", None),
    ] {
        let document = parsed(&format!("<tuple id='t'><contact priority='{written}'>c</contact></tuple>")).unwrap();
        assert_eq!(document.tuples[0].contact, Some(("c".into(), expected)), "{written}");
    }
}

fn word() -> impl Strategy<Value = String> {
    // Legal in XML, without white space at the ends.
    "[^\\p{Cc}\\p{Zs}\u{fffe}\u{ffff}]([^\\p{Cc}\u{fffe}\u{ffff}]|[\t\n\r]){0,12}[^\\p{Cc}\\p{Zs}\u{fffe}\u{ffff}]"
}

fn notes() -> impl Strategy<Value = Vec<Note>> {
    let lang = proptest::option::of("[a-z]{2}(-[A-Z]{2})?");
    prop::collection::vec((lang, word()).prop_map(|(lang, text)| Note { lang, text }), 0..3)
}

fn activities() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-z_][a-z0-9.-]{0,8}", 0..4)
        .prop_map(|names| names.into_iter().filter(|name| name != "note").collect())
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let basic = prop_oneof![Just(None), Just(Some(Basic::Open)), Just(Some(Basic::Closed))];
    let contact = proptest::option::of((word(), proptest::option::of(0_u16..=1000)));
    (basic, contact, activities(), notes(), proptest::option::of(word())).prop_map(
        |(basic, contact, activities, notes, timestamp)| Tuple {
            id: String::new(),
            basic,
            contact,
            activities,
            notes,
            timestamp,
        },
    )
}

fn document() -> impl Strategy<Value = Document> {
    let person = (activities(), notes(), proptest::option::of(word()))
        .prop_map(|(activities, notes, timestamp)| Person { id: "p".into(), activities, notes, timestamp });
    (word(), prop::collection::vec(tuple(), 0..4), proptest::option::of(person), notes()).prop_map(
        |(entity, mut tuples, person, notes)| {
            for (number, tuple) in tuples.iter_mut().enumerate() {
                tuple.id = format!("t{number}");
            }
            Document { entity, tuples, person, notes }
        },
    )
}

proptest! {
    #[test]
    fn a_written_document_is_read_back_equal(document in document()) {
        prop_assert_eq!(parse(&write(&document)).unwrap(), document);
    }

    #[test]
    fn whatever_is_in_a_document_it_is_written_well_formed(
        texts in prop::collection::vec(any::<String>(), 6),
        names in prop::collection::vec(any::<String>(), 0..3),
    ) {
        let note = Note { lang: Some(texts[0].clone()), text: texts[1].clone() };
        let person = Person { id: texts[2].clone(), activities: names.clone(), notes: vec![note.clone()], timestamp: Some(texts[3].clone()) };
        let tuple = Tuple {
            id: texts[2].clone(),
            contact: Some((texts[4].clone(), Some(7))),
            activities: names,
            notes: vec![note.clone()],
            timestamp: Some(texts[3].clone()),
            basic: None,
        };
        let document = Document { entity: texts[5].clone(), tuples: vec![tuple; 2], person: Some(person), notes: vec![note] };
        let once = parse(&write(&document)).unwrap();
        prop_assert_eq!(parse(&write(&once)).unwrap(), once);
    }

    #[test]
    fn no_octets_make_the_reader_fail_badly(octets in prop::collection::vec(any::<u8>(), 0..300), inside in "[<>/&;#a-z='\" !?\\[\\]-]{0,80}") {
        let _ = parse(&octets);
        if let Ok(document) = parsed(&inside) {
            prop_assert!(parse(&write(&document)).is_ok());
        }
    }

    #[test]
    fn damaged_documents_are_read_or_refused(at in 0_usize..1200, octet in any::<u8>(), cut in any::<bool>()) {
        for sample in [samples::LINPHONE, samples::PJSIP, samples::BARESIP, samples::SIP_JS] {
            let mut octets = sample.as_bytes().to_vec();
            let at = at % octets.len();
            if cut {
                octets.truncate(at);
                prop_assert!(parse(&octets).is_err() || sample[at..].trim().is_empty());
            } else {
                octets[at] = octet;
                let _ = parse(&octets);
            }
        }
    }
}
