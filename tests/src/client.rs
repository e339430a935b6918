//! A SIP client for tests: does what a good client does in one call, and lets every octet be made otherwise.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::digest::{Algorithm, Challenge, Credentials};
use crate::link::{Arrival, Link, Target};
use crate::packet::Packet;
use crate::secrets::Secrets;

/// How long a test waits for what should come at once on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// MIME type of presence documents.
pub const PIDF: &str = "application/pidf+xml";

/// Who signs in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// SIP domain.
    pub domain: String,
}

impl Identity {
    /// Address of record.
    #[must_use]
    pub fn aor(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }
}

/// How a device names itself in its Contact.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// By its address only.
    #[default]
    Plain,
    /// By an instance id (RFC 5626 §4.1) without reg-id.
    Instance(String),
    /// By instance id and reg-id.
    Outbound(String, u32),
}

/// A client with one path to one server.
pub struct Client {
    identity: Identity,
    device: Device,
    target: Target,
    link: Link,
    secrets: Secrets,
    algorithm: Mutex<Option<Algorithm>>,
    sequence: Arc<AtomicU32>,
    registration: String,
    tag: String,
}

impl Client {
    /// Opens a path for a user; nothing is sent yet.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn connect(identity: &Identity, target: &Target, device: Device, secrets: &Secrets) -> Result<Self> {
        let link = Link::open(target).await?;
        secrets.add("password", &identity.password);
        Ok(Self {
            identity: identity.clone(),
            device,
            target: target.clone(),
            link,
            secrets: secrets.clone(),
            algorithm: Mutex::new(None),
            sequence: Arc::default(),
            registration: unique("reg"),
            tag: unique("t"),
        })
    }

    /// Opens a new path in place of the old one, as a client does whose connection broke: same device, same Call-ID of
    /// its registration.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn reconnect(self) -> Result<Self> {
        self.moved(&self.target).await
    }

    /// The same client on a new path, to this address: same device, same Call-ID of its registration, same dialogs; CSeq
    /// goes on over all its paths.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn moved(&self, target: &Target) -> Result<Self> {
        let only = *self.algorithm.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            identity: self.identity.clone(),
            device: self.device.clone(),
            target: target.clone(),
            link: Link::open(target).await?,
            secrets: self.secrets.clone(),
            algorithm: Mutex::new(only),
            sequence: Arc::clone(&self.sequence),
            registration: self.registration.clone(),
            tag: self.tag.clone(),
        })
    }

    /// The path.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Who it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Address of record.
    #[must_use]
    pub fn aor(&self) -> String {
        self.identity.aor()
    }

    /// Answers challenges of one algorithm only, as clients do that know no other.
    pub fn only(&self, algorithm: Algorithm) {
        *self.algorithm.lock().unwrap_or_else(PoisonError::into_inner) = Some(algorithm);
    }

    /// URI at which this device is reached.
    #[must_use]
    pub fn contact_uri(&self) -> String {
        let (user, local, transport) = (&self.identity.user, self.link.local(), self.target.transport.name());
        format!("sip:{user}@{local};transport={transport}")
    }

    /// Value of Contact in a REGISTER.
    #[must_use]
    pub fn contact(&self) -> String {
        let uri = self.contact_uri();
        match &self.device {
            Device::Plain => format!("<{uri}>"),
            Device::Instance(id) => format!("<{uri}>;+sip.instance=\"<{id}>\""),
            Device::Outbound(id, number) => format!("<{uri}>;+sip.instance=\"<{id}>\";reg-id={number}"),
        }
    }

    fn next_sequence(&self) -> u32 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Value of a Via of ours with a branch nobody used yet.
    #[must_use]
    pub fn via(&self) -> String {
        let branch = unique("z9hG4bK");
        format!("SIP/2.0/{} {};branch={branch};rport", self.target.transport, self.link.local())
    }

    /// A request outside dialogs, to a user or resource, as this user.
    #[must_use]
    pub fn request(&self, method: &str, uri: &str) -> Packet {
        Packet::request(method, uri)
            .with("Via", self.via())
            .with("Max-Forwards", "70")
            .with("From", format!("<{}>;tag={}", self.aor(), self.tag))
            .with("To", format!("<{uri}>"))
            .with("Call-ID", unique("call"))
            .with("CSeq", format!("{} {method}", self.next_sequence()))
    }

    /// REGISTER of this device; 0 seconds take it back.
    #[must_use]
    pub fn register(&self, expires: u32) -> Packet {
        let request = self.request("REGISTER", &format!("sip:{}", self.identity.domain));
        let request = request.set("To", format!("<{}>", self.aor())).set("Call-ID", self.registration.clone());
        let outbound = matches!(self.device, Device::Outbound(..));
        let request = if outbound { request.with("Supported", "path, outbound") } else { request };
        request.with("Contact", self.contact()).with("Expires", expires.to_string())
    }

    /// REGISTER that only asks what is registered.
    #[must_use]
    pub fn query(&self) -> Packet {
        self.register(0).without("Contact").without("Expires").set("Call-ID", unique("query"))
    }

    /// Sends a request and waits for its final answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn transact(&self, request: &Packet) -> Result<Packet> {
        self.link.send(&request.octets()).await?;
        Ok(self.final_answer(request, PATIENCE).await?.packet)
    }

    /// Waits for the final answer to a request sent before.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub async fn final_answer(&self, request: &Packet, limit: Duration) -> Result<Arrival> {
        let what = format!("the answer to\n{request}");
        self.link.take(&what, limit, |a| a.packet.answers(request) && a.packet.status() >= Some(200)).await
    }

    /// The same request as a new transaction: new branch, next CSeq.
    ///
    /// # Errors
    /// When it has no CSeq.
    pub fn again(&self, request: Packet) -> Result<Packet> {
        let method = request.cseq()?.1.to_owned();
        let number = self.next_sequence();
        Ok(request.set("Via", self.via()).set("CSeq", format!("{number} {method}")))
    }

    /// The challenge of an answer that this client takes up: the first it knows.
    ///
    /// # Errors
    /// When there is none.
    pub fn challenge(&self, answer: &Packet) -> Result<Challenge> {
        let only = *self.algorithm.lock().unwrap_or_else(PoisonError::into_inner);
        let all = Challenge::all(answer)?;
        all.iter().for_each(|challenge| self.secrets.add("nonce", &challenge.nonce));
        let known = |challenge: &Challenge| only.is_none_or(|algorithm| challenge.algorithm == algorithm);
        all.into_iter().find(known).with_context(|| format!("no challenge for {only:?} in\n{answer}"))
    }

    /// The right credentials of this user for a request.
    ///
    /// # Errors
    /// When the request has no URI.
    pub fn credentials(&self, challenge: &Challenge, request: &Packet, count: u32) -> Result<Credentials> {
        let uri = request.uri().context("not a request")?;
        let credentials = Credentials::new(challenge, &self.identity.user, &self.identity.password, uri, count);
        self.secrets.add("verifier", &credentials.ha1);
        Ok(credentials)
    }

    /// A challenged request as a new transaction with credentials.
    ///
    /// # Errors
    /// When the answer holds no challenge.
    pub fn answered(&self, request: Packet, answer: &Packet) -> Result<Packet> {
        let credentials = self.credentials(&self.challenge(answer)?, &request, 1)?;
        self.with_credentials(request, &credentials, answer.status() == Some(407))
    }

    /// A request as a new transaction with these credentials.
    ///
    /// # Errors
    /// When the request has no CSeq.
    pub fn with_credentials(&self, request: Packet, credentials: &Credentials, proxy: bool) -> Result<Packet> {
        let method = request.cseq()?.1.to_owned();
        self.secrets.add("response", &credentials.response(&method));
        let name = if proxy { "Proxy-Authorization" } else { "Authorization" };
        Ok(self.again(request)?.set(name, credentials.header(&method)))
    }

    /// Sends a request, answers one challenge, gives the final answer.
    ///
    /// # Errors
    /// When an answer does not come, or a challenge cannot be answered.
    pub async fn exchange(&self, request: Packet) -> Result<Packet> {
        let answer = self.transact(&request).await?;
        if !matches!(answer.status(), Some(401 | 407)) {
            return Ok(answer);
        }
        self.transact(&self.answered(request, &answer)?).await
    }

    /// Like [`Self::exchange`], and gives the request as it was accepted too.
    ///
    /// # Errors
    /// When an answer does not come, or a challenge cannot be answered.
    pub async fn exchange_kept(&self, request: Packet) -> Result<(Packet, Arrival)> {
        self.link.send(&request.octets()).await?;
        let answer = self.final_answer(&request, PATIENCE).await?;
        if !matches!(answer.packet.status(), Some(401 | 407)) {
            return Ok((request, answer));
        }
        let request = self.answered(request, &answer.packet)?;
        self.link.send(&request.octets()).await?;
        let answer = self.final_answer(&request, PATIENCE).await?;
        Ok((request, answer))
    }

    /// Signs in and demands success.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sign_in(&self) -> Result<Packet> {
        expect(self.exchange(self.register(3600)).await?, 200)
    }

    /// Signs out and demands success.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sign_out(&self) -> Result<Packet> {
        expect(self.exchange(self.register(0)).await?, 200)
    }

    /// A MESSAGE of plain text.
    #[must_use]
    pub fn message(&self, to: &str, text: &str) -> Packet {
        self.secrets.add("body", text);
        self.request("MESSAGE", to).with_body("text/plain", text)
    }

    /// Sends a text and gives the final answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn say(&self, to: &str, text: &str) -> Result<Packet> {
        self.exchange(self.message(to, text)).await
    }

    /// Waits for a MESSAGE with that text.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn hears(&self, text: &str) -> Result<Packet> {
        let wanted = |a: &Arrival| a.packet.method() == Some("MESSAGE") && a.packet.text() == text;
        Ok(self.link.take(&format!("the message {text:?}"), PATIENCE, wanted).await?.packet)
    }

    /// A PUBLISH of presence; with a tag it changes or refreshes what was published under it.
    #[must_use]
    pub fn publication(&self, document: Option<&str>, tag: Option<&str>, expires: u32) -> Packet {
        let request =
            self.request("PUBLISH", &self.aor()).with("Event", "presence").with("Expires", expires.to_string());
        let request = if let Some(tag) = tag { request.with("SIP-If-Match", tag) } else { request };
        if let Some(document) = document { request.with_body(PIDF, document) } else { request }
    }

    /// Publishes a state and gives the entity tag.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn publish(
        &self,
        basic: &str,
        activity: Option<&str>,
        note: Option<&str>,
        tag: Option<&str>,
    ) -> Result<String> {
        let document = crate::presence::published(&self.aor(), basic, activity, note);
        let answer = expect(self.exchange(self.publication(Some(&document), tag, 600)).await?, 200)?;
        Ok(answer.need("SIP-ETag")?.to_owned())
    }
}

/// Demands a status.
///
/// # Errors
/// When the answer has another one; the message shows the answer.
pub fn expect(answer: Packet, status: u16) -> Result<Packet> {
    ensure!(answer.status() == Some(status), "expected {status}, got\n{answer}");
    Ok(answer)
}

/// A text nobody used before: prefix, number of this run, counter; always of one length.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static RUN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())));
    format!("{prefix}{run:016x}{:08x}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Tries again and again, without pause but for the tries themselves, until it is so.
///
/// # Errors
/// When it is not within [`PATIENCE`], or a try fails.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if so().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("waited {PATIENCE:?} in vain for {what}")
}
