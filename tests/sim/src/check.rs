//! What must hold, whatever happens: broken promises are collected with their time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use commpool_model::ids::{Incarnation, Key128};
use commpool_sip::message::Message;
use commpool_sip::otid::Branch;
use commpool_sip::time::Moment;
use commpool_store::ops::front_ends::State;
use commpool_store::ops::{Class, Outcome};

/// A user who lost his last device is seen offline no earlier than this.
const GRACE: Duration = Duration::from_millis(14_500);
/// A sender has his final answer within this.
const ANSWERED: Duration = Duration::from_millis(8_600);

/// A dialog may have two owners for so long.
const TWO_OWNERS: Duration = Duration::from_secs(15);

/// What a watcher was shown last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Reachable.
    pub open: bool,
    /// Number in the note.
    pub note: Option<u64>,
    /// Not decided yet.
    pub pending: bool,
}

#[derive(Debug)]
struct Sent {
    at: Moment,
    /// Sent over UDP: the first copies may have met a front end that stood still.
    udp: bool,
    /// Branches by device.
    delivered: BTreeMap<usize, BTreeSet<String>>,
    status: Option<u16>,
}

#[derive(Debug, Default)]
struct Presence {
    /// Devices that are signed in and connected.
    devices: BTreeSet<usize>,
    /// When the last of them went, unless it signed out.
    lost: Option<Moment>,
    signed_out: bool,
    /// Whether it ever was there.
    ever: bool,
    /// Has a device over UDP, whose silence nobody can time.
    udp: bool,
    /// How many devices it has: of several, now one counts, now another.
    owned: u32,
}

/// Everything that was promised and seen.
#[derive(Debug, Default)]
pub struct Check {
    messages: BTreeMap<u64, Sent>,
    numbers: u64,
    notes: u64,
    users: HashMap<String, Presence>,
    /// What each watcher saw last, by dialog.
    pub views: BTreeMap<(usize, String), (String, View)>,
    /// The highest note each dialog was shown.
    newest: BTreeMap<(usize, String), u64>,
    /// Front ends that died.
    pub dead: BTreeSet<u32>,
    /// When front ends were declared dead.
    reaped: BTreeMap<Incarnation, Moment>,
    /// Since when a dialog has two owners.
    twice: BTreeMap<Key128, Moment>,
    /// Everybody signs out: nobody is missed.
    pub leaving: bool,
    /// Broken promises.
    pub broken: Vec<String>,
    /// What happened, for a look at a failing run.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Check {
    /// Notes a broken promise.
    pub fn broke(&mut self, now: Moment, invariant: &str, what: impl Into<String>) {
        let at = now.as_micros() / 1000;
        self.broken.push(format!("{invariant} at {at} ms: {}", what.into()));
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A user has a device, over UDP perhaps.
    pub fn has_device(&mut self, user: &str, udp: bool) {
        let presence = self.users.entry(user.to_owned()).or_default();
        presence.owned += 1;
        presence.udp |= udp;
    }

    /// Number of the next note.
    pub fn next_note(&mut self) -> u64 {
        self.notes += 1;
        self.notes
    }

    /// A message goes out; its number.
    pub fn message_sent(&mut self, now: Moment, udp: bool) -> u64 {
        self.count("messages");
        self.numbers += 1;
        self.messages.insert(self.numbers, Sent { at: now, udp, delivered: BTreeMap::new(), status: None });
        self.numbers
    }

    /// A device got a message: I1, I12.
    pub fn delivered(&mut self, now: Moment, device: usize, message: &Message) {
        let body = message.body();
        let text = String::from_utf8_lossy(&body);
        let Some(number) = text.strip_prefix('m').and_then(|n| n.parse::<u64>().ok()) else { return };
        let (vias, hops) = (message.vias().count(), message.max_forwards().ok().flatten());
        if vias != 2 || hops != Some(69) || message.header_named("Record-Route").is_some() {
            self.broke(now, "I12", format!("message {number} came with {vias} Via, Max-Forwards {hops:?}"));
        }
        let branch = message.top_via().ok().and_then(|v| v.branch().map(str::to_owned)).unwrap_or_default();
        let Some(sent) = self.messages.get_mut(&number) else { return };
        let branches = sent.delivered.entry(device).or_default();
        // What a holder had shown is known to it alone: a copy sent again after its death is shown again.
        branches.retain(|before| Branch::parse(before).is_some_and(|b| !self.dead.contains(&b.incarnation)));
        branches.insert(branch);
        if branches.len() > 1 {
            let branches = format!("{branches:?}");
            self.broke(now, "I1", format!("message {number} reached device {device} twice: {branches}"));
        }
    }

    /// A sender has his final answer: P2.
    pub fn message_answered(&mut self, now: Moment, number: u64, status: u16) {
        let Some(sent) = self.messages.get_mut(&number) else { return };
        sent.status = Some(status);
        let (delivered, took, udp) = (!sent.delivered.is_empty(), now.since(sent.at), sent.udp);
        if status / 100 == 2 {
            self.count("messages accepted");
            if !delivered {
                self.broke(now, "P2", format!("message {number} was answered {status} and reached nobody"));
            }
        }
        if took > ANSWERED + Duration::from_secs(4) && !udp {
            self.broke(now, "I14", format!("message {number} was answered after {took:?}"));
        }
    }

    /// A sender gave up: only where its front end died or stood still.
    pub fn message_unanswered(&mut self, _number: u64) {
        self.count("messages unanswered");
    }

    /// A final answer came in: I2.
    pub fn final_answer(
        &mut self,
        now: Moment,
        client: usize,
        branch: &str,
        before: Option<u16>,
        status: u16,
        udp: bool,
    ) {
        if matches!(status, 408 | 430) {
            self.broke(now, "I2", format!("device {client} got {status} for {branch}"));
        }
        match before {
            // Over UDP a copy may come in where the store is back; its client has long taken the first answer.
            Some(before) if udp && before / 100 == 5 => {}
            Some(before) if before != status => {
                self.broke(now, "I2", format!("device {client} got {before} and {status} for {branch}"));
            }
            Some(_) if !udp => self.broke(now, "I2", format!("device {client} got two finals for {branch}")),
            _ => {}
        }
    }

    /// A SUBSCRIBE was answered: never 481 while its watcher may watch.
    pub fn subscribe_answered(&mut self, now: Moment, client: usize, call_id: &str, status: u16) {
        if status == 481 {
            self.broke(now, "pool-flows 4", format!("device {client} got 481 for its dialog {call_id}"));
        }
    }

    /// A store call was carried out: I8.
    pub fn stored(&mut self, now: Moment, fe: Incarnation, class: Class, outcome: &Outcome) {
        if let Outcome::FrontEnds(listed) = outcome {
            for dead in listed.front_ends.iter().filter(|f| f.state == State::Dead) {
                self.reaped.entry(dead.fe).or_insert(now);
            }
        }
        let refused = || format!("{outcome:?}").to_ascii_lowercase().contains("gone");
        if class != Class::Read && self.reaped.contains_key(&fe) && !refused() {
            self.broke(now, "I8", format!("{fe:?} is dead and its write was taken: {outcome:?}"));
        }
    }

    /// Front ends could not tell each other anything until now.
    pub fn may_tell_again(&mut self) {
        self.twice.clear();
    }

    /// Who carries which dialog now: I5.
    pub fn owners(&mut self, now: Moment, carried: impl Iterator<Item = Key128>) {
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for id in carried {
            if !once.insert(id) {
                twice.insert(id);
            }
        }
        self.twice.retain(|id, _| twice.contains(id));
        for id in twice {
            let since = *self.twice.entry(id).or_insert(now);
            if now.since(since) > TWO_OWNERS {
                self.twice.remove(&id);
                self.broke(now, "I5", format!("two front ends have carried {id:?} for {TWO_OWNERS:?}"));
            }
        }
    }

    /// A NOTIFY was taken for true: I4. That its number rises is what makes its client take it.
    pub fn notify_taken(&mut self, now: Moment, client: usize, call_id: &str, message: &Message) {
        let branch = message.top_via().ok().and_then(|v| v.branch()).and_then(Branch::parse);
        let Some(fe) = branch.map(|b| Incarnation(b.incarnation)) else { return };
        if self.reaped.get(&fe).is_some_and(|at| now.since(*at) > Duration::from_secs(1)) {
            self.broke(now, "I4", format!("device {client} believed {fe:?}, long dead, in {call_id}"));
        }
    }

    /// A NOTIFY had an old number: the client's fence did its work.
    pub fn notify_refused(&mut self, _now: Moment, _client: usize, _call_id: &str) {
        self.count("notify refused");
    }

    /// A PUBLISH was accepted.
    pub fn published(&mut self, _client: usize, _user: &str, _number: u64) {
        self.count("publications");
    }

    /// A device signed in or out.
    pub fn registered(&mut self, now: Moment, device: usize, user: &str, signed_in: bool, out: bool) {
        let presence = self.users.entry(user.to_owned()).or_default();
        if signed_in {
            presence.devices.insert(device);
            (presence.ever, presence.signed_out) = (true, false);
        } else if presence.devices.remove(&device) && presence.devices.is_empty() {
            presence.lost = Some(now);
        }
        if out && presence.devices.is_empty() {
            presence.signed_out = true;
        }
    }

    /// A device lost its connection.
    pub fn disconnected(&mut self, now: Moment, device: usize, user: &str) {
        let presence = self.users.entry(user.to_owned()).or_default();
        if presence.devices.remove(&device) && presence.devices.is_empty() {
            presence.lost = Some(now);
        }
    }

    /// A watcher was shown something: I7.
    pub fn seen(&mut self, now: Moment, watcher: usize, call_id: &str, user: &str, view: View) {
        self.count("notifies");
        let before = self.views.insert((watcher, call_id.to_owned()), (user.to_owned(), view));
        self.versions_rise(now, watcher, call_id, user, view);
        let Some(presence) = self.users.get(user) else { return };
        // A published `closed` carries its note; a bare one says that nobody is there.
        let gone = !view.open && view.note.is_none() && !view.pending;
        let was_there = before.is_some_and(|(_, b)| b.open || b.note.is_some());
        if !gone || self.leaving || !was_there || presence.udp || presence.signed_out || !presence.ever {
            return;
        }
        let absent =
            if presence.devices.is_empty() { presence.lost.map(|at| now.since(at)) } else { Some(Duration::ZERO) };
        if absent.is_some_and(|absent| absent < GRACE) {
            let what = format!("device {watcher} was told that {user} is offline, {absent:?} after his last device");
            self.broke(now, "I7", what);
        }
    }

    /// What a dialog is shown never falls back to what was published before: I4.
    fn versions_rise(&mut self, now: Moment, watcher: usize, call_id: &str, user: &str, view: View) {
        let Some(note) = view.note.filter(|_| self.users.get(user).is_some_and(|presence| presence.owned == 1)) else {
            return;
        };
        let newest = self.newest.entry((watcher, call_id.to_owned())).or_default();
        let before = std::mem::replace(newest, note.max(*newest));
        if note < before {
            self.broke(
                now,
                "I4",
                format!("device {watcher} was shown {user}'s note {note} after {before} in {call_id}"),
            );
        }
    }

    /// At the end every message has an answer, unless its sender lost its connection.
    pub fn messages(&self) -> (usize, usize) {
        let answered = self.messages.values().filter(|m| m.status.is_some()).count();
        (self.messages.len(), answered)
    }
}
