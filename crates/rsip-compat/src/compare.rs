//! Whether two readings of one message say the same.

use commpool_sip::params::{Param, Params};
use commpool_sip::{Contacts, Message, Method, NameAddr, Uri, Via};
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::HasHeaders;

use crate::{NotCarried, not};

/// Compares what both sides read in From, To, Call-ID, CSeq, every Via and every Contact of one message.
///
/// # Errors
/// Names the first header that rsip cannot read, or reads differently.
pub fn compare(ours: &Message, theirs: &rsip::SipMessage) -> Result<(), NotCarried> {
    let contacts = match ours.contacts().map_err(|error| not(error.what))? {
        Contacts::List(list) => list,
        Contacts::None | Contacts::Star => Vec::new(),
    };
    let mut contacts = contacts.into_iter();
    let mut vias = ours.vias();
    for header in theirs.headers().iter() {
        match header {
            rsip::Header::Contact(contact) => same_contact(contact, &mut contacts)?,
            rsip::Header::Via(via) => {
                let via = via.typed().map_err(|_| not("rsip cannot read Via"))?;
                let same = vias.next().is_some_and(|ours| ours.is_ok_and(|ours| same_via(&ours, &via)));
                check(same, "rsip reads Via differently")?;
            }
            other => same_single(ours, other)?,
        }
    }
    check(vias.next().is_none() && contacts.next().is_none(), "rsip leaves out a Via or a Contact")?;
    check_counts(theirs)?;
    match theirs {
        rsip::SipMessage::Request(request) => {
            let uri = Uri::parse(ours.request_uri());
            let same = uri.is_ok_and(|uri| same_uri(&uri, &request.uri));
            check(
                same && ours.method().as_str() == request.method.to_string(),
                "rsip reads the request line differently",
            )
        }
        rsip::SipMessage::Response(response) => {
            check(ours.status() == Some(response.status_code.code()), "rsip reads the status differently")
        }
    }
}

fn same_contact<'a>(
    theirs: &rsip::headers::Contact,
    ours: &mut impl Iterator<Item = NameAddr<'a>>,
) -> Result<(), NotCarried> {
    if theirs.value().trim() == "*" {
        return Ok(());
    }
    let theirs = theirs.typed().map_err(|_| not("rsip cannot read Contact"))?;
    let same = |ours: NameAddr<'_>| same_address(&ours, theirs.display_name.as_deref(), &theirs.uri, &theirs.params);
    check(ours.next().is_some_and(same), "rsip reads Contact differently")
}

/// Headers that stand once.
fn same_single(ours: &Message, theirs: &rsip::Header) -> Result<(), NotCarried> {
    match theirs {
        rsip::Header::From(from) => {
            let from = from.typed().map_err(|_| not("rsip cannot read From"))?;
            let same = |ours: NameAddr<'_>| same_address(&ours, from.display_name.as_deref(), &from.uri, &from.params);
            check(ours.from().is_ok_and(same), "rsip reads From differently")
        }
        rsip::Header::To(to) => {
            let to = to.typed().map_err(|_| not("rsip cannot read To"))?;
            let same = |ours: NameAddr<'_>| same_address(&ours, to.display_name.as_deref(), &to.uri, &to.params);
            check(ours.to().is_ok_and(same), "rsip reads To differently")
        }
        rsip::Header::CSeq(cseq) => {
            let cseq = cseq.typed().map_err(|_| not("rsip cannot read CSeq"))?;
            let same =
                |(number, method): (u32, Method<'_>)| number == cseq.seq && method.as_str() == cseq.method.to_string();
            check(ours.cseq().is_ok_and(same), "rsip reads CSeq differently")
        }
        rsip::Header::CallId(call_id) => check(ours.call_id() == Ok(call_id.value()), "rsip reads Call-ID differently"),
        _ => Ok(()),
    }
}

fn check_counts(theirs: &rsip::SipMessage) -> Result<(), NotCarried> {
    let once = |wanted: fn(&rsip::Header) -> bool| theirs.headers().iter().filter(|header| wanted(header)).count() == 1;
    check(once(|header| matches!(header, rsip::Header::From(_))), "rsip sees no From, or several")?;
    check(once(|header| matches!(header, rsip::Header::To(_))), "rsip sees no To, or several")?;
    check(once(|header| matches!(header, rsip::Header::CallId(_))), "rsip sees no Call-ID, or several")?;
    check(once(|header| matches!(header, rsip::Header::CSeq(_))), "rsip sees no CSeq, or several")
}

/// Compares two messages of ours by start line but for the Request-URI, which rsip may write in other case, rows in order, and body.
pub(crate) fn same_message(one: &Message, other: &Message) -> Result<(), NotCarried> {
    check(one.method() == other.method() && one.status() == other.status(), "the start line")?;
    check(one.reason() == other.reason(), "the reason phrase")?;
    check(one.all_rows().count() == other.all_rows().count(), "the number of header rows")?;
    for ((name, value), (other_name, other_value)) in one.all_rows().zip(other.all_rows()) {
        check(name.eq_ignore_ascii_case(other_name) && value == other_value, "a header row")?;
    }
    check(one.body() == other.body(), "the body")
}

fn check(same: bool, what: &'static str) -> Result<(), NotCarried> {
    if same { Ok(()) } else { Err(not(what)) }
}

fn same_address(ours: &NameAddr<'_>, display: Option<&str>, uri: &rsip::Uri, params: &[rsip::Param]) -> bool {
    let display = display.map(str::trim).filter(|display| !display.is_empty());
    ours.display == display && ours.uri().is_ok_and(|ours| same_uri(&ours, uri)) && same_params(ours.params, params)
}

fn same_via(ours: &Via<'_>, theirs: &rsip::typed::Via) -> bool {
    let sent_by = &theirs.uri;
    ours.transport.eq_ignore_ascii_case(&theirs.transport.to_string())
        && same_host(ours.host, ours.port, sent_by)
        && sent_by.auth.is_none()
        && sent_by.params.is_empty()
        && same_params(ours.params, &theirs.params)
}

/// Compares the parts that rsip holds, not what it writes: that may be right where the parts are not.
fn same_uri(ours: &Uri<'_>, theirs: &rsip::Uri) -> bool {
    let scheme = theirs.scheme.as_ref().map(ToString::to_string).unwrap_or_default();
    let user = theirs.auth.as_ref().map(|auth| auth.user.as_str());
    let password = theirs.auth.as_ref().and_then(|auth| auth.password.as_deref());
    ours.scheme.eq_ignore_ascii_case(&scheme)
        && (ours.user, ours.password) == (user, password)
        && ours.headers.is_none()
        && same_host(ours.host, ours.port, theirs)
        && same_params(ours.params, &theirs.params)
}

fn same_host(host: &str, port: Option<u16>, theirs: &rsip::Uri) -> bool {
    !host.is_empty()
        && host.eq_ignore_ascii_case(&theirs.host().to_string())
        && port == theirs.port().map(|port| *port.value())
}

fn same_params(ours: Params<'_>, theirs: &[rsip::Param]) -> bool {
    let written: Vec<String> = theirs.iter().map(ToString::to_string).collect();
    let mut theirs = written.iter();
    ours.iter().all(|ours| {
        let theirs = theirs.next().and_then(|theirs| single(theirs));
        theirs.is_some_and(|theirs| same_param(&ours, &theirs))
    }) && theirs.next().is_none()
}

/// The one parameter in `text`.
fn single(text: &str) -> Option<Param<'_>> {
    let params = Params::parse(text).ok()?;
    let mut params = params.iter();
    params.next().filter(|_| params.next().is_none())
}

/// Names are equal in any case; the value of `transport` too, since rsip writes it in its own.
fn same_param(ours: &Param<'_>, theirs: &Param<'_>) -> bool {
    let any_case = ours.name.eq_ignore_ascii_case("transport");
    let same_value = match (ours.value, theirs.value) {
        (Some(ours), Some(theirs)) if any_case => ours.eq_ignore_ascii_case(theirs),
        (ours, theirs) => ours == theirs,
    };
    ours.name.eq_ignore_ascii_case(theirs.name) && same_value
}
