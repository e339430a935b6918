//! The edge: what comes in on a flow becomes a transaction, a refusal, or an answer to something we sent.

use bytes::Bytes;
use commpool_sip::build::Response;
use commpool_sip::frame::FrameError;
use commpool_sip::header::HeaderName;
use commpool_sip::message::{Malformed, Message};
use commpool_sip::method::Method;
use commpool_sip::otid::{Branch, Otid};
use commpool_sip::time::Moment;
use commpool_sip::transaction::Received;

use super::flow::Flow;
use super::pending::Pending;
use super::{Engine, Output};
use crate::services::{self, ALLOW, ALLOW_EVENTS, Caller, Refusal, Request};

/// A datagram of a stranger shorter than this gets silence: no answer could be short enough not to amplify.
const SHORTEST_ANSWERED: usize = 200;
/// Largest answer to a stranger's datagram, in parts of the request.
const MOST_AMPLIFIED: usize = 2;
/// Option tags a client may require of us.
const EXTENSIONS: [&str; 2] = ["outbound", "path"];

impl Engine {
    pub(super) fn message(&mut self, now: Moment, flow: Flow, message: Message) {
        self.heard(now, flow);
        if message.is_request() { self.request(now, flow, message) } else { self.response(now, flow, &message) }
    }

    fn request(&mut self, now: Moment, flow: Flow, message: Message) {
        let Some(info) = self.info(flow) else { return };
        self.metrics.request(message.method().as_str());
        if message.method() == Method::Ack {
            return;
        }
        let otid = Otid::of(&self.key, &message.identity());
        let request = Request { otid, flow, info, message, received: now };
        if !request.message.has(HeaderName::Via) {
            // There is nowhere an answer could go.
            return self.metrics.malformed();
        }
        if let Err(invalid) = request.message.validate() {
            return self.refuse_unseen(now, &request, &Refusal::because(invalid.status, invalid.what));
        }
        match self.transactions.seen(&otid) {
            Some(Received::Repeat { flow: first, response }) => return self.send(now, first, response),
            Some(_) => return,
            None => {}
        }
        match self.unacceptable(&request) {
            Some(refusal) => self.refuse_unseen(now, &request, &refusal),
            None if request.message.method() == Method::Options => self.options(now, &request),
            None => self.authenticate(now, request),
        }
    }

    /// What can be refused, or must be, before anybody is asked who he is.
    fn unacceptable(&self, request: &Request) -> Option<Refusal> {
        let message = &request.message;
        match message.method() {
            Method::Register | Method::Message | Method::Publish | Method::Subscribe | Method::Options => {}
            Method::Cancel | Method::Notify => return Some(Refusal::status(481)),
            _ => return Some(Refusal::status(405).with(HeaderName::Allow, ALLOW)),
        }
        let required = [HeaderName::Require, HeaderName::ProxyRequire];
        let foreign: Vec<String> = required
            .into_iter()
            .flat_map(|name| message.list(name).flatten())
            .filter(|tag| !EXTENSIONS.contains(&tag.as_ref()))
            .map(|tag| tag.into_owned())
            .collect();
        if !foreign.is_empty() {
            return Some(Refusal::status(420).with(HeaderName::Unsupported, foreign.join(", ")));
        }
        if self.closing() {
            return Some(Refusal::later("Shutting Down"));
        }
        self.loops(request).then(|| Refusal::status(482))
    }

    /// Whether the request went through the pool before, unchanged (RFC 5393 §4.2).
    fn loops(&self, request: &Request) -> bool {
        request.message.method() == Method::Message
            && request
                .message
                .vias()
                .flatten()
                .filter_map(|v| v.branch().and_then(Branch::parse))
                .any(|b| b.loop_hash == self.loop_hash(&request.message))
    }

    /// Everything that decides where a request goes, so that equal hashes mean a loop and not a spiral.
    pub(super) fn loop_hash(&self, message: &Message) -> u32 {
        let route = message.text(HeaderName::Route).unwrap_or_default();
        let from = message.from().map(|f| f.uri).unwrap_or_default();
        self.key.loop_hash(message.request_uri(), "", &route, from)
    }

    fn options(&mut self, now: Moment, request: &Request) {
        let octets = Response::to(&request.message, 200)
            .source(request.info.remote)
            .to_tag(&self.key.to_tag(&request.otid))
            .header(HeaderName::Allow, ALLOW)
            .header(HeaderName::Accept, services::presence::PIDF)
            .header(HeaderName::AllowEvents, ALLOW_EVENTS)
            .header(HeaderName::Supported, "outbound, path")
            .build();
        self.send_unseen(now, request, octets);
    }

    pub(super) fn malformed(&mut self, now: Moment, flow: Flow, malformed: Malformed) {
        self.heard(now, flow);
        self.metrics.malformed();
        let (Some(info), Some(message)) = (self.info(flow), malformed.partial) else { return };
        if !message.is_request() || message.method() == Method::Ack {
            return;
        }
        let otid = Otid::of(&self.key, &message.identity());
        let request = Request { otid, flow, info, message, received: now };
        self.refuse_unseen(now, &request, &Refusal::because(malformed.status, malformed.what));
    }

    pub(super) fn broken(&mut self, now: Moment, flow: Flow, error: FrameError) {
        self.metrics.malformed();
        if let (Some(status), Some(message), Some(info)) = (error.status, error.head, self.info(flow))
            && message.is_request()
        {
            let otid = Otid::of(&self.key, &message.identity());
            let request = Request { otid, flow, info, message, received: now };
            self.refuse_unseen(now, &request, &Refusal::because(status, error.what));
        }
        self.out.push_back(Output::Close { flow });
    }

    /// Opens the transaction of a request that is worth work. False: there is no room, and it was answered.
    pub(super) fn open_transaction(&mut self, now: Moment, request: &Request) -> bool {
        match self.transactions.receive(now, request.otid, request.flow, request.flow.reliable()) {
            Received::New => true,
            Received::Full => {
                self.refuse_unseen(now, request, &Refusal::later("Too Many Requests"));
                false
            }
            Received::Absorbed | Received::Repeat { .. } => false,
        }
    }

    /// A request of a proven sender goes to its service.
    pub(super) fn dispatch(&mut self, now: Moment, request: Request, caller: Caller) {
        let done = match request.message.method() {
            Method::Register => self.register(now, &request, &caller),
            Method::Message => services::message::plan(&self.settings, &request, &caller).map(|read| {
                self.call(now, read, Pending::Route(Box::new(request.clone()), caller));
            }),
            Method::Publish => self.publish(now, &request, &caller),
            Method::Subscribe => self.subscribe(now, &request, &caller),
            _ => Err(Refusal::status(405).with(HeaderName::Allow, ALLOW)),
        };
        if let Err(refusal) = done {
            self.refuse(now, &request, &refusal);
        }
    }

    /// Final or provisional answer inside a transaction.
    pub(super) fn respond(&mut self, now: Moment, request: &Request, octets: Bytes, is_final: bool) {
        if let Some(flow) = self.transactions.respond(now, &request.otid, octets.clone(), is_final) {
            self.send(now, flow, octets);
        }
    }

    /// Refuses a request that has a transaction.
    pub(super) fn refuse(&mut self, now: Moment, request: &Request, refusal: &Refusal) {
        self.metrics.response(refusal.status);
        let octets = self.refusal(request, refusal);
        self.respond(now, request, octets, true);
    }

    /// Refuses a request that has none, and remembers nothing.
    pub(super) fn refuse_unseen(&mut self, now: Moment, request: &Request, refusal: &Refusal) {
        let mut octets = self.refusal(request, refusal);
        if self.amplifies(request, &octets)
            && let Some(fewer) = with_one_challenge(refusal)
        {
            octets = self.refusal(request, &fewer);
        }
        if self.send_unseen(now, request, octets) {
            self.metrics.response(refusal.status);
        }
    }

    /// An answer to somebody who has proven nothing: over UDP he may not even be there, so it must not amplify. False: it
    /// was withheld.
    fn send_unseen(&mut self, now: Moment, request: &Request, octets: Bytes) -> bool {
        let fits = !self.amplifies(request, &octets);
        if fits {
            self.send(now, request.flow, octets)
        } else {
            self.metrics.withheld()
        }
        fits
    }

    fn amplifies(&self, request: &Request, answer: &Bytes) -> bool {
        let asked = request.message.octets().len();
        let stranger = !request.flow.reliable() && self.flows.get(request.flow).is_none();
        stranger && (asked < SHORTEST_ANSWERED || answer.len() > MOST_AMPLIFIED * asked)
    }

    fn refusal(&self, request: &Request, refusal: &Refusal) -> Bytes {
        let tag = self.key.to_tag(&request.otid);
        let mut response = Response::to(&request.message, refusal.status).source(request.info.remote).to_tag(&tag);
        if !refusal.why.is_empty() {
            response = response.reason(refusal.why);
        }
        for (name, value) in &refusal.headers {
            response = response.header(*name, value);
        }
        response.build()
    }
}

/// A refusal with the shortest of its challenges, if it has several: the shortest name is that of the algorithm that most
/// clients know.
fn with_one_challenge(refusal: &Refusal) -> Option<Refusal> {
    let asks =
        |(name, _): &(HeaderName, String)| matches!(name, HeaderName::WwwAuthenticate | HeaderName::ProxyAuthenticate);
    let (challenges, mut headers): (Vec<_>, Vec<_>) = refusal.headers.iter().cloned().partition(asks);
    let several = challenges.len() > 1;
    headers.extend(challenges.into_iter().min_by_key(|(_, value)| value.len()));
    several.then(|| Refusal { headers, ..refusal.clone() })
}
