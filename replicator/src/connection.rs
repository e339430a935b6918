//! A connection to an LDAP server: secured before anything is said, every wait bounded, one message in memory at a time.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ber;
use crate::entry::Entry;
use crate::fault::{Fault, Kind, LdapResult};
use crate::message::{self, Answer, Request, Search};
use crate::tls::{self, Certificate};

/// Longest message of a server, octets.
const MAX_MESSAGE: usize = 8 << 20;
/// Octets read at once.
const CHUNK: usize = 16 << 10;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As configured.
    pub url: String,
    host: String,
    port: u16,
    start_tls: bool,
}

impl Server {
    /// From `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is none of the two.
    pub fn parse(url: &str) -> Result<Self, Fault> {
        let refused = || Fault::new(Kind::Configuration, format!("ldap.urls: `{url}` is no LDAP server"));
        let (rest, start_tls) = match (url.strip_prefix("ldaps://"), url.strip_prefix("ldap://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(refused()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refused())?),
            _ => (authority, if start_tls { 389 } else { 636 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { url: url.to_owned(), host: bare.to_owned(), port, start_tls })
    }
}

/// A connection on which TLS is good.
pub struct Connection {
    stream: Framed<TlsStream<TcpStream>>,
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

impl Connection {
    /// Reaches a server and secures the connection. `timeout`: for each step.
    ///
    /// # Errors
    /// The server is not there or does not prove who it is.
    pub async fn open(server: &Server, tls: Arc<ClientConfig>, timeout: Duration) -> Result<Self, Fault> {
        let unreachable = |why: String| Fault::new(Kind::Unreachable, format!("{}: {why}", server.url));
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| unreachable("its host is no name that a certificate can be for".to_owned()))?;
        let tcp = within(timeout, TcpStream::connect((server.host.as_str(), server.port))).await;
        let tcp = tcp.map_err(|error| unreachable(format!("cannot be reached: {}", plain(&error))))?;
        // Requests are small and each waits for the answer to the one before.
        let _ = tcp.set_nodelay(true);
        let tcp = if server.start_tls { start_tls(server, tcp, timeout).await? } else { tcp };
        let secured = within(timeout, TlsConnector::from(tls).connect(name, tcp)).await;
        let stream = secured.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => unreachable("is silent when TLS begins".to_owned()),
            _ => unreachable(tls::explain(&error, &server.host)),
        })?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.and_then(|leaf| Certificate::read(leaf));
        Ok(Self { stream: Framed::new(stream, server.url.clone(), timeout), certificate })
    }

    /// Proves who we are.
    ///
    /// # Errors
    /// The server refuses, or is lost.
    pub async fn bind(&mut self, name: &str, password: &str) -> Result<(), Fault> {
        let answered = async {
            let number = self.stream.send(&Request::Bind(name, password.as_bytes())).await?;
            self.stream.answer(number).await
        };
        match answered.await {
            Ok(Answer::Bound(result)) if result.code == 0 => Ok(()),
            Ok(Answer::Bound(result)) => Err(self.stream.named(result.bind_fault())),
            Ok(_) => Err(self.stream.nonsense("it answers a bind with something else").before_reading()),
            Err(fault) => Err(fault.before_reading()),
        }
    }

    /// Asks for a page of a search. `cookie`: that of the page before, empty for the first.
    ///
    /// # Errors
    /// The server is lost.
    pub async fn ask(&mut self, search: &Search, cookie: &[u8]) -> Result<Page, Fault> {
        let number = self.stream.send(&Request::Search(search, cookie)).await?;
        Ok(Page { number, base: search.base.clone() })
    }

    /// What comes next of a page.
    ///
    /// # Errors
    /// The server is lost or refuses.
    pub async fn next(&mut self, page: &Page) -> Result<Item, Fault> {
        loop {
            match self.stream.answer(page.number).await? {
                Answer::Entry(entry) => return Ok(Item::Entry(entry)),
                Answer::Done(result, cookie) if result.code == 0 => return Ok(Item::End(cookie)),
                Answer::Done(result, _) => return Err(self.stream.named(result.search_fault(&page.base))),
                Answer::Other => {}
                Answer::Bound(_) | Answer::Extended(_) => {
                    return Err(self.stream.nonsense("it answers a search with something else"));
                }
            }
        }
    }

    /// Says goodbye; whether that arrives does not matter.
    pub async fn close(mut self) {
        let _ = self.stream.send(&Request::Unbind).await;
        let _ = within(self.stream.timeout, self.stream.io.shutdown()).await;
    }
}

/// A page that was asked for.
#[derive(Debug)]
pub struct Page {
    number: u32,
    base: String,
}

/// StartTLS (RFC 4511 §4.14): nothing else is said before, and nothing that came before TLS is kept.
async fn start_tls(server: &Server, tcp: TcpStream, timeout: Duration) -> Result<TcpStream, Fault> {
    let unreachable = |why: String| Fault::new(Kind::Unreachable, format!("{}: {why}", server.url));
    let mut plain = Framed::new(tcp, server.url.clone(), timeout);
    let begun = async {
        let number = plain.send(&Request::StartTls).await?;
        plain.answer(number).await
    };
    match begun.await {
        Ok(Answer::Extended(LdapResult { code: 0, .. })) => {}
        Ok(Answer::Extended(result)) => return Err(unreachable(format!("refuses StartTLS ({result}); use ldaps://"))),
        Ok(_) => return Err(unreachable("answers StartTLS with something else".to_owned())),
        Err(fault) => return Err(fault.before_reading()),
    }
    if plain.filled > 0 {
        return Err(unreachable("says more than it should before TLS".to_owned()));
    }
    Ok(plain.io)
}

/// Messages over a stream.
struct Framed<S> {
    io: S,
    /// What was read and not yet taken is `buffer[..filled]`.
    buffer: Vec<u8>,
    filled: usize,
    next: u32,
    name: String,
    timeout: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    fn new(io: S, name: String, timeout: Duration) -> Self {
        Self { io, buffer: Vec::new(), filled: 0, next: 1, name, timeout }
    }

    fn named(&self, fault: Fault) -> Fault {
        Fault { text: format!("{}: {}", self.name, fault.text), ..fault }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Broken, format!("{}: {why}", self.name))
    }

    fn nonsense(&self, why: &str) -> Fault {
        self.broken(format!("it does not speak LDAP: {why}"))
    }

    async fn send(&mut self, request: &Request<'_>) -> Result<u32, Fault> {
        let number = self.next;
        self.next = self.next % 0x7fff_ffff + 1;
        let octets = request.encode(number);
        let sent = within(self.timeout, async {
            self.io.write_all(&octets).await?;
            self.io.flush().await
        });
        match sent.await {
            Ok(()) => Ok(number),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn lost(&self, error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::TimedOut => {
                self.broken(format!("it has been silent for {} s (timeoutSeconds)", self.timeout.as_secs()))
            }
            _ => self.broken(format!("the connection was lost: {}", plain(error))),
        }
    }

    /// The next message with this number.
    async fn answer(&mut self, number: u32) -> Result<Answer, Fault> {
        let timeout = self.timeout;
        let whole = match within(timeout, self.whole()).await {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(self.nonsense(&error.to_string())),
            Err(error) => return Err(self.lost(&error)),
        };
        let decoded = message::decode(self.buffer.get(..whole).unwrap_or_default());
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        match decoded {
            Ok((found, answer)) if found == number => Ok(answer),
            // RFC 4511 §4.4.1: the server says why it hangs up.
            Ok((0, Answer::Extended(result))) => Err(self.broken(format!("it hangs up ({result})"))),
            Ok(_) => Err(self.nonsense("an answer to nothing that was asked")),
            Err(malformed) => Err(self.nonsense(malformed.0)),
        }
    }

    /// Octets of the message at the start of the buffer, once it is there.
    async fn whole(&mut self) -> io::Result<usize> {
        loop {
            let there = self.buffer.get(..self.filled).unwrap_or_default();
            let header =
                ber::header(there).map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.0))?;
            let whole = match header {
                Some(header) if header.tag != ber::SEQUENCE => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a message begins with something else"));
                }
                Some(header) => header.whole().filter(|whole| *whole <= MAX_MESSAGE),
                None => Some(0),
            };
            let Some(whole) = whole else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than 8 MiB"));
            };
            if whole > 0 && whole <= self.filled {
                return Ok(whole);
            }
            self.buffer.resize(self.filled + CHUNK, 0);
            match self.io.read(self.buffer.get_mut(self.filled..).unwrap_or_default()).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")),
                read => self.filled += read,
            }
        }
    }
}

async fn within<T>(limit: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, done).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()))),
    }
}

/// An error of the operating system without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    crate::text::shown(text, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let server = |url: &str| Server::parse(url).map(|server| (server.host, server.port, server.start_tls));
        assert_eq!(server("ldaps://dc1.example"), Ok(("dc1.example".to_owned(), 636, false)));
        assert_eq!(server("ldap://dc1.example:1389/"), Ok(("dc1.example".to_owned(), 1389, true)));
        assert_eq!(server("ldaps://[::1]"), Ok(("::1".to_owned(), 636, false)));
        assert_eq!(server("ldaps://[::1]:7"), Ok(("::1".to_owned(), 7, false)));
        assert!(server("http://x").is_err() && server("ldaps://x:y").is_err());
    }
}
