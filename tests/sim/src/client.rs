//! A simulated device: signs in, watches, publishes, writes, answers; comes back when its connection goes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::method::Method;
use commpool_sip::pidf::{self, Basic};
use commpool_sip::time::Moment;

use crate::check::{Check, View};
use crate::rng::Rng;
use crate::sip::{DOMAIN, Draft, credentials, document};

/// A request without its final answer is given up after this.
pub const PATIENCE: Duration = Duration::from_secs(33);
/// Subscriptions and publications are asked for so long, seconds.
pub const LIFETIME: u32 = 3600;
/// Over UDP a request is repeated at these times after the first copy.
const REPEATS: [u64; 5] = [500, 1_500, 3_500, 7_500, 11_500];

/// What a request was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Sign in, refresh, or out.
    Register {
        /// Whether it takes the binding away.
        out: bool,
    },
    /// Watch a user.
    Subscribe {
        /// Call-ID of the dialog.
        call_id: String,
    },
    /// Say something about oneself.
    Publish {
        /// Number in the note.
        number: u64,
    },
    /// A message with this number.
    Message {
        /// Number in the body.
        number: u64,
    },
}

/// A request under way.
#[derive(Clone, Debug)]
struct Transaction {
    purpose: Purpose,
    draft: Draft,
    octets: Bytes,
    challenged: bool,
    begun: Moment,
    finals: Option<u16>,
    repeat: usize,
}

/// A subscription of this device.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Whom.
    pub user: String,
    from_tag: String,
    to_tag: Option<String>,
    /// CSeq of the last NOTIFY taken.
    notify: u32,
    /// Over: its client does not know it any more.
    ended: bool,
}

/// What a device wants of the world.
#[derive(Debug)]
pub enum Want {
    /// Octets to its front end.
    Send(Bytes),
    /// To be woken.
    Wake(Duration, Timer),
    /// To give its connection up and get another.
    Reconnect,
}

/// Why a device is woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timer {
    /// A refresh of the registration.
    Refresh(u32),
    /// A refresh of a subscription.
    Resubscribe(String),
    /// Something to do.
    Act,
    /// A request may need another copy, or be given up.
    Request(String),
}

/// One device.
#[derive(Debug)]
pub struct Client {
    /// Place in the world.
    pub index: usize,
    /// Its user.
    pub user: String,
    /// Whether it speaks UDP.
    pub udp: bool,
    /// Users it may write to and watch.
    pub others: Vec<String>,
    /// Whether it does things by itself.
    pub active: bool,
    /// Signed in, as far as it knows.
    pub registered: bool,
    call_id: String,
    cseq: u32,
    branches: u64,
    starts: u32,
    signed_in_as: u32,
    open: BTreeMap<String, Transaction>,
    /// Its subscriptions by Call-ID.
    pub watches: BTreeMap<String, Watch>,
    etag: Option<String>,
    published: u64,
}

impl Watch {
    /// Whether its client goes on believing what it is told.
    pub const fn goes_on(&self) -> bool {
        self.to_tag.is_some() && !self.ended
    }
}

impl Client {
    /// A device of a user.
    pub fn new(index: usize, user: &str, udp: bool, others: Vec<String>) -> Self {
        Self {
            index,
            user: user.to_owned(),
            udp,
            others,
            active: true,
            registered: false,
            call_id: format!("register-{index}"),
            cseq: 0,
            branches: 0,
            starts: 0,
            signed_in_as: 0,
            open: BTreeMap::new(),
            watches: BTreeMap::new(),
            etag: None,
            published: 0,
        }
    }

    fn draft(&self, method: &'static str, to: &str, call_id: &str) -> Draft {
        Draft {
            method,
            uri: if method == "REGISTER" { format!("sip:{DOMAIN}") } else { format!("sip:{to}@{DOMAIN}") },
            from: self.user.clone(),
            from_tag: format!("f{}", self.index),
            to: to.to_owned(),
            to_tag: None,
            call_id: call_id.to_owned(),
            headers: String::new(),
            body: String::new(),
        }
    }

    /// Some devices use outbound and keep their dialogs over a reconnect; the others subscribe anew, as Linphone does.
    fn outbound(&self) -> bool {
        self.index % 2 == 1
    }

    fn contact(&self) -> String {
        let (index, start) = (self.index, self.starts);
        let outbound = if self.outbound() { ";reg-id=1" } else { "" };
        format!(
            "<sip:{}@client-{index}.invalid:{};transport={}>;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-{index:012}>\"{outbound}",
            self.user,
            // Over UDP the port is the client's own and stays; a connection has a new one each time.
            if self.udp { 5070 } else { 5070 + start % 1000 },
            if self.udp { "udp" } else { "tcp" },
        )
    }

    /// A connection stands (or, over UDP, the device begins): it signs in.
    pub fn connected(&mut self, now: Moment) -> Vec<Want> {
        self.starts += 1;
        self.open.clear();
        self.register(now, 600)
    }

    /// Its connection is gone.
    pub fn disconnected(&mut self) {
        self.registered = false;
        self.open.clear();
    }

    /// Signs out and ends its subscriptions.
    pub fn leave(&mut self, now: Moment) -> Vec<Want> {
        self.active = false;
        let mut wants = Vec::new();
        let watches: Vec<String> = self.watches.keys().cloned().collect();
        for call_id in watches {
            wants.extend(self.subscribe_in(now, &call_id, 0));
        }
        wants.extend(self.register(now, 0));
        wants
    }

    fn register(&mut self, now: Moment, expires: u32) -> Vec<Want> {
        let mut draft = self.draft("REGISTER", &self.user, &self.call_id);
        draft.headers = format!("Contact: {};expires={expires}\r\n", self.contact());
        self.ask(now, Purpose::Register { out: expires == 0 }, draft)
    }

    fn subscribe_in(&mut self, now: Moment, call_id: &str, expires: u32) -> Vec<Want> {
        let Some(watch) = self.watches.get(call_id) else { return Vec::new() };
        let mut draft = self.draft("SUBSCRIBE", &watch.user, call_id);
        draft.from_tag = watch.from_tag.clone();
        draft.to_tag = watch.to_tag.clone();
        draft.headers = format!(
            "Event: presence\r\nAccept: application/pidf+xml\r\nExpires: {expires}\r\nContact: <sip:{}@client-{}.invalid>\r\n",
            self.user, self.index
        );
        self.ask(now, Purpose::Subscribe { call_id: call_id.to_owned() }, draft)
    }

    fn watch(&mut self, now: Moment, user: &str) -> Vec<Want> {
        self.branches += 1;
        let call_id = format!("watch-{}-{}", self.index, self.branches);
        let from_tag = format!("w{}-{}", self.index, self.branches);
        let watch = Watch { user: user.to_owned(), from_tag, to_tag: None, notify: 0, ended: false };
        self.watches.insert(call_id.clone(), watch);
        self.subscribe_in(now, &call_id, LIFETIME)
    }

    fn publish(&mut self, now: Moment, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        self.published += 1;
        let number = check.next_note();
        let mut draft = self.draft("PUBLISH", &self.user, &format!("publish-{}-{}", self.index, self.published));
        let if_match = self.etag.as_ref().map(|t| format!("SIP-If-Match: {t}\r\n")).unwrap_or_default();
        draft.headers =
            format!("Event: presence\r\nExpires: {LIFETIME}\r\nContent-Type: application/pidf+xml\r\n{if_match}");
        draft.body = document(&self.user, !rng.one_in(4), number);
        self.ask(now, Purpose::Publish { number }, draft)
    }

    fn write(&mut self, now: Moment, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        let Some(to) = rng.choose(&self.others).cloned() else { return Vec::new() };
        let number = check.message_sent(now, self.udp);
        let mut draft = self.draft("MESSAGE", &to, &format!("message-{number}"));
        draft.headers = "Content-Type: text/plain\r\n".to_owned();
        draft.body = format!("m{number}");
        self.ask(now, Purpose::Message { number }, draft)
    }

    fn ask(&mut self, now: Moment, purpose: Purpose, draft: Draft) -> Vec<Want> {
        self.send(now, purpose, draft, "")
    }

    fn send(&mut self, now: Moment, purpose: Purpose, draft: Draft, row: &str) -> Vec<Want> {
        self.cseq += 1;
        self.branches += 1;
        let branch = format!("z9hG4bK-{}-{}", self.index, self.branches);
        let octets = draft.octets(self.cseq, &branch, row);
        let transaction = Transaction {
            purpose,
            draft,
            octets: octets.clone(),
            challenged: !row.is_empty(),
            begun: now,
            finals: None,
            repeat: 0,
        };
        self.open.insert(branch.clone(), transaction);
        let wake = if self.udp { Duration::from_millis(500) } else { PATIENCE };
        vec![Want::Send(octets), Want::Wake(wake, Timer::Request(branch))]
    }

    /// Time has come for something.
    pub fn woken(&mut self, now: Moment, timer: &Timer, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        match timer {
            Timer::Refresh(start) if *start == self.starts && self.registered => self.register(now, 600),
            Timer::Refresh(_) => Vec::new(),
            Timer::Resubscribe(call_id) if self.registered && self.watches.get(call_id).is_some_and(Watch::goes_on) => {
                self.subscribe_in(now, call_id, LIFETIME)
            }
            // Signing in again is under way, or nobody asks any more.
            Timer::Resubscribe(call_id) if self.watches.contains_key(call_id) => {
                vec![Want::Wake(Duration::from_secs(20), timer.clone())]
            }
            Timer::Resubscribe(_) => Vec::new(),
            Timer::Act => {
                let mut wants =
                    vec![Want::Wake(rng.between(Duration::from_millis(500), Duration::from_secs(6)), Timer::Act)];
                if self.active && self.registered {
                    wants.extend(self.act(now, rng, check));
                }
                wants
            }
            Timer::Request(branch) => self.request_due(now, branch, check),
        }
    }

    fn act(&mut self, now: Moment, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        match rng.below(10) {
            0..=4 => self.write(now, rng, check),
            5..=6 => self.publish(now, rng, check),
            7 if self.watches.len() < 3 => match rng.choose(&self.others).cloned() {
                Some(user) if self.watches.values().all(|w| w.user != user) => self.watch(now, &user),
                _ => Vec::new(),
            },
            8 => {
                let known: Vec<String> =
                    self.watches.iter().filter(|(_, w)| w.to_tag.is_some()).map(|(id, _)| id.clone()).collect();
                rng.choose(&known).cloned().map(|id| self.subscribe_in(now, &id, LIFETIME)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    fn request_due(&mut self, now: Moment, branch: &str, check: &mut Check) -> Vec<Want> {
        let Some(open) = self.open.get_mut(branch) else { return Vec::new() };
        if open.finals.is_some() {
            return Vec::new();
        }
        let since = now.since(open.begun);
        if since >= PATIENCE || !self.udp {
            let purpose = self.open.remove(branch).map(|t| t.purpose);
            return self.given_up(purpose, check);
        }
        open.repeat += 1;
        let next = REPEATS.get(open.repeat).map_or(PATIENCE, |ms| Duration::from_millis(*ms)).saturating_sub(since);
        vec![Want::Send(open.octets.clone()), Want::Wake(next, Timer::Request(branch.to_owned()))]
    }

    fn given_up(&mut self, purpose: Option<Purpose>, check: &mut Check) -> Vec<Want> {
        if let Some(Purpose::Message { number }) = purpose {
            check.message_unanswered(number);
        }
        // Whoever gets no answer at all has no connection.
        vec![Want::Reconnect]
    }

    /// Something came in.
    pub fn received(&mut self, now: Moment, message: &Message, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        if message.is_request() { self.request(now, message, rng, check) } else { self.answer(now, message, check) }
    }

    fn answer(&mut self, now: Moment, message: &Message, check: &mut Check) -> Vec<Want> {
        let Some(status) = message.status().filter(|s| *s >= 200) else { return Vec::new() };
        let branch = message.top_via().ok().and_then(|v| v.branch().map(str::to_owned)).unwrap_or_default();
        let Some(open) = self.open.get_mut(&branch) else { return Vec::new() };
        check.final_answer(now, self.index, &branch, open.finals, status, self.udp);
        if open.finals.is_some() {
            return Vec::new();
        }
        open.finals = Some(status);
        let open = open.clone();
        if matches!(status, 401 | 407) && !open.challenged {
            let row = credentials(message, &open.draft).unwrap_or_default();
            return self.send(now, open.purpose, open.draft, &row);
        }
        self.concluded(now, open, status, message, check)
    }

    fn concluded(
        &mut self,
        now: Moment,
        open: Transaction,
        status: u16,
        message: &Message,
        check: &mut Check,
    ) -> Vec<Want> {
        let good = status / 100 == 2;
        match open.purpose {
            Purpose::Register { out } => {
                self.registered = good && !out;
                check.registered(now, self.index, &self.user, self.registered, out && good);
                if !good || out {
                    // Refused: like real clients, it tries again later.
                    return if out { Vec::new() } else { vec![Want::Reconnect] };
                }
                let refresh = if self.udp { 60 } else { 300 };
                let mut wants = vec![Want::Wake(Duration::from_secs(refresh), Timer::Refresh(self.starts))];
                let fresh = std::mem::replace(&mut self.signed_in_as, self.starts) != self.starts;
                if self.starts == 1 {
                    wants.push(Want::Wake(Duration::from_millis(200), Timer::Act));
                }
                if fresh && (!self.outbound() || self.watches.is_empty()) {
                    self.watches.clear();
                    for user in self.others.clone().into_iter().take(2) {
                        wants.extend(self.watch(now, &user));
                    }
                }
                wants
            }
            Purpose::Subscribe { call_id } => {
                let tag = message.to().ok().and_then(|to| to.tag().map(str::to_owned));
                match self.watches.get_mut(&call_id) {
                    Some(watch) if good => watch.to_tag = watch.to_tag.take().or(tag),
                    Some(_) if matches!(status, 404 | 481) => drop(self.watches.remove(&call_id)),
                    _ => {}
                }
                check.subscribe_answered(now, self.index, &call_id, status);
                let granted = message.expires().ok().flatten().unwrap_or(0);
                let again = Duration::from_secs((granted / 2).max(20).into());
                if status / 100 == 5 {
                    // Not now, says the server; the subscription lives on.
                    return vec![Want::Wake(Duration::from_secs(10), Timer::Resubscribe(call_id))];
                }
                if good && granted > 0 { vec![Want::Wake(again, Timer::Resubscribe(call_id))] } else { Vec::new() }
            }
            Purpose::Publish { number } => {
                if good {
                    self.etag = message.text(HeaderName::SipEtag).map(|t| t.into_owned());
                    check.published(self.index, &self.user, number);
                } else if status == 412 {
                    self.etag = None;
                }
                Vec::new()
            }
            Purpose::Message { number } => {
                check.message_answered(now, number, status);
                Vec::new()
            }
        }
    }

    fn request(&mut self, now: Moment, message: &Message, rng: &mut Rng, check: &mut Check) -> Vec<Want> {
        let status = match message.method() {
            Method::Message => {
                check.delivered(now, self.index, message);
                match rng.below(30) {
                    0 => return Vec::new(),
                    1 => 486,
                    _ => 200,
                }
            }
            Method::Notify => self.notified(now, message, check),
            _ => 405,
        };
        let octets = Response::to(message, status).to_tag(&format!("d{}", self.index)).build();
        vec![Want::Send(octets)]
    }

    /// What a careful client does with a NOTIFY: unknown dialog 481, old number 500, otherwise it believes it.
    fn notified(&mut self, now: Moment, message: &Message, check: &mut Check) -> u16 {
        let call_id = message.call_id().unwrap_or_default().to_owned();
        let Ok((cseq, _)) = message.cseq() else { return 400 };
        let tag = message.from().ok().and_then(|f| f.tag().map(str::to_owned));
        let Some(watch) = self.watches.get_mut(&call_id).filter(|w| !w.ended) else { return 481 };
        if watch.to_tag.is_some() && tag != watch.to_tag {
            return 481;
        }
        if cseq <= watch.notify {
            check.notify_refused(now, self.index, &call_id);
            return 500;
        }
        watch.notify = cseq;
        check.notify_taken(now, self.index, &call_id, message);
        let state = message.text(HeaderName::SubscriptionState).unwrap_or_default().into_owned();
        if let Ok(document) = pidf::parse(&message.body()) {
            let first = document.tuples.first();
            let note = first.and_then(|t| t.notes.first()).and_then(|n| n.text.strip_prefix('n')?.parse().ok());
            let open = first.is_some_and(|t| t.basic == Some(Basic::Open));
            let view = View { open, note, pending: state.starts_with("pending") };
            check.seen(now, self.index, &call_id, &watch.user, view);
        }
        if state.starts_with("terminated") {
            watch.ended = true;
        }
        200
    }
}
