//! Watching somebody: the subscriber's side of RFC 6665, as strict as the strictest client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::{Client, PIDF, expect};
use crate::link::Arrival;
use crate::packet::{Packet, parameter};
use crate::presence::Document;

impl Client {
    /// A SUBSCRIBE for somebody's presence.
    #[must_use]
    pub fn subscription(&self, friend: &str, expires: u32) -> Packet {
        self.request("SUBSCRIBE", friend)
            .with("Contact", format!("<{}>", self.contact_uri()))
            .with("Event", "presence")
            .with("Accept", PIDF)
            .with("Expires", expires.to_string())
    }

    /// Begins to watch somebody.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn watch(&self, friend: &str) -> Result<Watch> {
        let (request, answer) = self.exchange_kept(self.subscription(friend, 600)).await?;
        Watch::new(&request, &expect(answer.packet, 200)?)
    }

    /// A SUBSCRIBE inside the dialog of a watch; 0 seconds end it.
    ///
    /// # Errors
    /// When the server's Contact cannot be read.
    pub fn resubscription(&self, watch: &Watch, expires: u32) -> Result<Packet> {
        let request = self.subscription(&watch.target, expires).set("Call-ID", watch.call_id.clone());
        let request = request.set("From", watch.local.clone());
        Ok(request.set("To", watch.remote.clone()))
    }

    /// Refreshes a watch or ends it, and demands success.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn rewatch(&self, watch: &Watch, expires: u32) -> Result<Packet> {
        expect(self.exchange(self.resubscription(watch, expires)?).await?, 200)
    }

    /// Takes the NOTIFYs of a watch in their order until one is as wanted; checks each on its way.
    ///
    /// # Errors
    /// When none comes in time, or one is malformed or out of order.
    pub async fn notice(
        &self,
        watch: &mut Watch,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Notice) -> bool,
    ) -> Result<Notice> {
        let end = tokio::time::Instant::now() + limit;
        let mut passed = Vec::new();
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            let taken = self.link().take(what, left, |a| watch.owns(&a.packet)).await;
            let arrival = taken.with_context(|| format!("NOTIFYs passed by: {passed:?}"))?;
            let notice = watch.check(&arrival)?;
            if wanted(&notice) {
                return Ok(notice);
            }
            passed.push(notice.summary());
        }
    }

    /// Watches that no NOTIFY of a watch comes for a time.
    ///
    /// # Errors
    /// When one comes.
    pub async fn no_notice(&self, watch: &Watch, time: Duration) -> Result<()> {
        self.link().none("a NOTIFY", time, |a| watch.owns(&a.packet)).await
    }
}

/// One subscription as its watcher keeps it.
#[derive(Debug)]
pub struct Watch {
    call_id: String,
    local: String,
    remote: String,
    local_tag: String,
    target: String,
    last: u32,
    /// Seconds granted by the last answer.
    pub granted: u32,
    /// Octets of the longest NOTIFY so far.
    pub longest: usize,
    /// Notices so far that said that the friend is gone: `closed`, or the end of the subscription.
    pub ends: usize,
    /// How much of a roamer's history has been looked at.
    pub(crate) looked: usize,
}

impl Watch {
    /// The dialog that a SUBSCRIBE and its 200 made.
    ///
    /// # Errors
    /// When the 200 lacks a tag, a Contact or an Expires.
    pub fn new(request: &Packet, answer: &Packet) -> Result<Self> {
        answer.tag("To").with_context(|| format!("no tag in To of\n{answer}"))?;
        let contact = answer.need("Contact")?;
        let target = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(contact, |(uri, _)| uri);
        Ok(Self {
            call_id: request.need("Call-ID")?.to_owned(),
            local: request.need("From")?.to_owned(),
            remote: answer.need("To")?.to_owned(),
            local_tag: request.tag("From").context("no tag in our own From")?.to_owned(),
            target: target.to_owned(),
            last: 0,
            granted: answer.need("Expires")?.parse().context("Expires of the 200")?,
            longest: 0,
            ends: 0,
            looked: 0,
        })
    }

    /// Whether a NOTIFY belongs to it.
    pub(crate) fn owns(&self, packet: &Packet) -> bool {
        packet.method() == Some("NOTIFY")
            && packet.header("Call-ID") == Some(&self.call_id)
            && packet.tag("To") == Some(&self.local_tag)
    }

    /// Checks a NOTIFY as a strict client does (RFC 6665 §4.1.3, RFC 3261 §12.2.2).
    ///
    /// # Errors
    /// When one of them would refuse it.
    pub(crate) fn check(&mut self, arrival: &Arrival) -> Result<Notice> {
        let packet = &arrival.packet;
        let (number, _) = packet.cseq()?;
        ensure!(number > self.last, "CSeq {number} after {}", self.last);
        self.last = number;
        self.longest = self.longest.max(arrival.octets.len());
        ensure!(packet.need("Event")?.split(';').next() == Some("presence"), "Event of\n{packet}");
        ensure!(packet.tag("From") == parameter(&self.remote, "tag"), "From of\n{packet}");
        let state = packet.need("Subscription-State")?;
        let document = if packet.body().is_empty() { None } else { Some(Document::parse(packet.body())?) };
        ensure!(document.is_none() || packet.need("Content-Type")?.starts_with(PIDF), "Content-Type of\n{packet}");
        let notice = Notice {
            at: arrival.at,
            state: state.split(';').next().unwrap_or_default().trim().to_owned(),
            reason: parameter(state, "reason").map(str::to_owned),
            expires: parameter(state, "expires").and_then(|text| text.parse().ok()),
            document,
        };
        self.ends += usize::from(notice.is_closed() || notice.state == "terminated");
        Ok(notice)
    }
}

/// What one NOTIFY said.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it came.
    pub at: std::time::Instant,
    /// State of the subscription.
    pub state: String,
    /// Why it ended.
    pub reason: Option<String>,
    /// Seconds it has left.
    pub expires: Option<u32>,
    /// The document.
    pub document: Option<Document>,
}

impl Notice {
    /// Whether a client that looks at the first tuple shows the friend as reachable.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.document.as_ref().is_some_and(Document::is_open)
    }

    /// Whether the document says `closed`; a NOTIFY without document says nothing.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.document.as_ref().is_some_and(|document| document.first_basic() == Some("closed"))
    }

    /// Whether it says that the friend is reachable and does just this.
    #[must_use]
    pub fn is_doing(&self, activity: &str) -> bool {
        self.is_open() && self.document.as_ref().is_some_and(|document| document.doing() == [activity])
    }

    /// Whether it says that the friend is reachable and nothing more.
    #[must_use]
    pub fn is_plainly_open(&self) -> bool {
        self.is_open() && self.document.as_ref().is_some_and(|document| document.doing().is_empty())
    }

    fn summary(&self) -> String {
        let document = self.document.as_ref();
        format!("{} {:?} {:?}", self.state, document.and_then(Document::first_basic), document.map(Document::doing))
    }
}
