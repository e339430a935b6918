//! A connection to an LDAP server: secured before anything is said, every wait bounded.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use commpool_model::config::LdapServer;
use futures::FutureExt;
use ldap3::asn1::{PL, StructureTag};
use ldap3::controls::{Control, ControlType, PagedResults};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchStream, StdStream};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::ber::{Reader, SEQUENCE};
use crate::entry::Entry;
use crate::fault::{Fault, Kind, LdapResult};
use crate::guard::{self, Messages, Verdict};
use crate::tls::{self, Certificate};

/// StartTLS (RFC 4511 §4.14) as message 1.
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As configured.
    pub url: String,
    at: LdapServer,
}

impl Server {
    /// From `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is none of the two.
    pub fn parse(url: &str) -> Result<Self, Fault> {
        let refused = |problem| Fault::new(Kind::Configuration, format!("ldap.urls: `{url}` {problem}"));
        Ok(Self { url: url.to_owned(), at: LdapServer::parse(url).map_err(refused)? })
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Unreachable, format!("{}: {why}", self.url))
    }
}

/// A search, to be asked page by page.
#[derive(Clone, Debug)]
pub struct Search {
    /// Distinguished name where it begins.
    pub base: String,
    /// How deep it goes.
    pub scope: Scope,
    /// Filter (RFC 4515).
    pub filter: String,
    /// Attributes wanted.
    pub attributes: Vec<String>,
    /// Entries wanted at once.
    pub page_size: u32,
}

/// A connection on which TLS is good.
pub struct Connection {
    ldap: Ldap,
    tasks: [JoinHandle<()>; 2],
    verdict: Verdict,
    url: String,
    timeout: Duration,
    /// Certificate of the server, if it can be read.
    pub certificate: Option<Certificate>,
}

/// What comes next of a page.
#[derive(Debug)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// The page is over; the cookie of the next one, empty at the last.
    End(Vec<u8>),
}

/// A page that was asked for.
pub struct Page {
    stream: SearchStream<'static, String, Vec<String>>,
    base: String,
}

impl Connection {
    /// Reaches a server and secures the connection. `timeout`: for each step.
    ///
    /// # Errors
    /// The server is not there or does not prove who it is.
    pub async fn open(server: &Server, tls: Arc<ClientConfig>, timeout: Duration) -> Result<Self, Fault> {
        let name = ServerName::try_from(server.at.host.clone())
            .map_err(|_| server.unreachable("its host is no name that a certificate can be for"))?;
        let tcp = within(timeout, TcpStream::connect((server.at.host.as_str(), server.at.port))).await;
        let tcp = tcp.map_err(|error| server.unreachable(format!("cannot be reached: {}", plain(&error))))?;
        // Requests are small and each waits for the answer to the one before.
        let _ = tcp.set_nodelay(true);
        let tcp = if server.at.start_tls { start_tls(server, tcp, timeout).await? } else { tcp };
        let secured = within(timeout, TlsConnector::from(tls).connect(name, tcp)).await;
        let stream = secured.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => server.unreachable("is silent when TLS begins"),
            _ => server.unreachable(tls::explain(&error, &server.at.host)),
        })?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.and_then(|leaf| Certificate::read(leaf));
        let internal = |why: String| Fault::new(Kind::Internal, format!("no socket pair: {why}"));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| internal(error.to_string()))?;
        ours.set_nonblocking(true).map_err(|error| internal(error.to_string()))?;
        let ours = UnixStream::from_std(ours).map_err(|error| internal(error.to_string()))?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
        // The name is not looked at: the stream is given.
        let (driver, ldap) = LdapConnAsync::with_settings(settings, "ldapi://guarded")
            .await
            .map_err(|error| internal(error.to_string()))?;
        let verdict = Verdict::default();
        let guarding = tokio::spawn(guard::pass(stream, ours, verdict.clone()));
        // It ends when its stream does, and says why to those who wait for it.
        let driving = tokio::spawn(async move { drop(driver.drive().await) });
        Ok(Self { ldap, tasks: [guarding, driving], verdict, url: server.url.clone(), timeout, certificate })
    }

    /// Proves who we are.
    ///
    /// # Errors
    /// The server refuses, or is lost.
    pub async fn bind(&mut self, name: &str, password: &str) -> Result<(), Fault> {
        self.ldap.with_timeout(self.timeout);
        let bound = contained(self.ldap.simple_bind(name, password)).await;
        let result = bound.map_err(|error| self.lost(error).before_reading())?;
        if result.rc == 0 { Ok(()) } else { Err(self.named(result_of(&result).bind_fault())) }
    }

    /// Asks for a page of a search. `cookie`: that of the page before, empty for the first.
    ///
    /// # Errors
    /// The server is lost, or the filter is none.
    pub async fn ask(&mut self, search: &Search, cookie: Vec<u8>) -> Result<Page, Fault> {
        let size = i32::try_from(search.page_size).unwrap_or(i32::MAX);
        self.ldap.with_timeout(self.timeout).with_controls(PagedResults { size, cookie });
        let asked = self.ldap.streaming_search(&search.base, search.scope, &search.filter, search.attributes.clone());
        let stream = contained(asked).await.map_err(|error| self.lost(error))?;
        Ok(Page { stream, base: search.base.clone() })
    }

    /// What comes next of a page.
    ///
    /// # Errors
    /// The server is lost or refuses.
    pub async fn next(&mut self, page: &mut Page) -> Result<Item, Fault> {
        loop {
            match contained(page.stream.next()).await.map_err(|error| self.lost(error))? {
                Some(other) if other.is_ref() || other.is_intermediate() => {}
                Some(found) => match entry(found.0) {
                    Some(entry) => return Ok(Item::Entry(entry)),
                    None => return Err(self.broken("it does not speak LDAP: an entry is none")),
                },
                None => break,
            }
        }
        let finished = contained(async { Ok(page.stream.finish().await) }).await;
        let result = finished.map_err(|error| self.lost(error))?;
        if result.rc != 0 {
            return Err(self.named(result_of(&result).search_fault(&page.base)));
        }
        Ok(Item::End(cookie(result.ctrls)))
    }

    /// Says goodbye; whether that arrives does not matter.
    pub async fn close(mut self) {
        let _ = contained(self.ldap.with_timeout(self.timeout).unbind()).await;
    }

    fn named(&self, fault: Fault) -> Fault {
        Fault { text: format!("{}: {}", self.url, fault.text), ..fault }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Broken, format!("{}: {why}", self.url))
    }

    fn lost(&self, error: Lost) -> Fault {
        match (error, self.verdict.get()) {
            (_, Some(verdict)) => self.broken(verdict),
            (Lost::Error(LdapError::Timeout { .. }), None) => {
                self.broken(format!("it has been silent for {} s (timeoutSeconds)", self.timeout.as_secs()))
            }
            (Lost::Error(LdapError::FilterParsing), None) => {
                Fault::new(Kind::Configuration, "ldap.filter is no filter (RFC 4515)")
            }
            (Lost::Error(error), None) => self.broken(format!("the connection was lost: {error}")),
            (Lost::Panic, None) => self.broken("it does not speak LDAP: its answer is not understood"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let [_, driving] = &self.tasks;
        // The guard ends with it, after what is still to be sent.
        driving.abort();
    }
}

/// Why a call of the crate came to nothing.
enum Lost {
    Error(LdapError),
    Panic,
}

/// Carries out a call of the crate, which panics where it meets what it does not expect.
async fn contained<T>(call: impl Future<Output = ldap3::result::Result<T>>) -> Result<T, Lost> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(done) => done.map_err(Lost::Error),
        Err(_) => Err(Lost::Panic),
    }
}

fn result_of(result: &ldap3::LdapResult) -> LdapResult {
    LdapResult { code: result.rc, diagnostic: result.text.clone() }
}

/// An entry as it came, all values as octets: the crate's own form sorts attributes by what their values look like.
fn entry(tag: StructureTag) -> Option<Entry> {
    let mut parts = constructed(tag)?.into_iter();
    let dn = String::from_utf8_lossy(&primitive(parts.next()?)?).into_owned();
    let mut entry = Entry { dn, attributes: Vec::new() };
    for attribute in constructed(parts.next()?)? {
        let mut parts = constructed(attribute)?.into_iter();
        let name = primitive(parts.next()?)?;
        let values = constructed(parts.next()?)?.into_iter().map(primitive).collect::<Option<Vec<_>>>()?;
        entry.add(&String::from_utf8_lossy(&name), values);
    }
    Some(entry)
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn primitive(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(octets) => Some(octets),
        PL::C(_) => None,
    }
}

/// The cookie among the controls of an answer; empty where the server knows no pages.
fn cookie(controls: Vec<Control>) -> Vec<u8> {
    let pages = |Control(kind, raw)| match kind {
        // The guard let only a well-formed one through.
        Some(ControlType::PagedResults) if raw.val.is_some() => Some(raw.parse::<PagedResults>().cookie),
        _ => None,
    };
    controls.into_iter().find_map(pages).unwrap_or_default()
}

/// StartTLS: nothing else is said before, and nothing that came before TLS is kept.
async fn start_tls(server: &Server, mut tcp: TcpStream, timeout: Duration) -> Result<TcpStream, Fault> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => server.unreachable("is silent when asked for StartTLS"),
        io::ErrorKind::InvalidData => server.unreachable(format!("does not speak LDAP: {error}")),
        _ => server.unreachable(format!("the connection was lost before TLS: {}", plain(&error))),
    };
    within(timeout, tcp.write_all(START_TLS)).await.map_err(lost)?;
    let mut messages = Messages::new(tcp);
    let answer = within(timeout, messages.next()).await.map_err(lost)?;
    match answer_to_start_tls(answer) {
        Some(LdapResult { code: 0, .. }) => {}
        Some(result) => return Err(server.unreachable(format!("refuses StartTLS ({result}); use ldaps://"))),
        None => return Err(server.unreachable("answers StartTLS with something else")),
    }
    messages.into_inner().ok_or_else(|| server.unreachable("says more than it should before TLS"))
}

fn answer_to_start_tls(message: &[u8]) -> Option<LdapResult> {
    let mut message = Reader::new(Reader::new(message).expect(SEQUENCE).ok()?);
    let (_, (tag, body)) = (message.any().ok()?, message.any().ok()?);
    (tag == 0x78).then(|| guard::result(&mut Reader::new(body)).ok())?
}

async fn within<T>(limit: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, done).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()))),
    }
}

/// An error of the operating system without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    crate::text::shown(text, 200)
}
