//! One client of the load: a socket, a buffer, and messages made by filling in a few words. No parser, no copies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::digest::{Algorithm, Challenge};
use crate::link::{Target, Transport, client_config};

/// A server that has not answered for so long has lost the request.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

enum Socket {
    Datagrams(UdpSocket),
    Stream(Box<dyn Stream>),
}

/// A client's socket with what it received and did not use yet.
pub struct Wire {
    socket: Socket,
    local: SocketAddr,
    transport: Transport,
    pending: Vec<u8>,
}

impl Wire {
    /// Opens a path to a server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn open(target: &Target) -> Result<Self> {
        let (socket, local) = match target.transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
                socket.connect(target.address).await?;
                let local = socket.local_addr()?;
                (Socket::Datagrams(socket), local)
            }
            Transport::Tcp => {
                let stream = tcp(target).await?;
                let local = stream.local_addr()?;
                (Socket::Stream(Box::new(stream)), local)
            }
            Transport::Tls => {
                let stream = tcp(target).await?;
                let local = stream.local_addr()?;
                let name = ServerName::try_from(target.server_name.clone())?;
                let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(target)?));
                (Socket::Stream(Box::new(connector.connect(name, stream).await?)), local)
            }
        };
        Ok(Self { socket, local, transport: target.transport, pending: Vec::new() })
    }

    /// Our own address.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// How it is carried.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        match &mut self.socket {
            Socket::Datagrams(socket) => drop(socket.send(text.as_bytes()).await?),
            Socket::Stream(stream) => {
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    /// Receives one message into `into`; keep-alives are passed over.
    ///
    /// # Errors
    /// When none comes in time, or the connection ends.
    pub async fn receive(&mut self, into: &mut Vec<u8>) -> Result<()> {
        let received = match &mut self.socket {
            Socket::Datagrams(socket) => tokio::time::timeout(PATIENCE, datagram(socket, into)).await,
            Socket::Stream(stream) => tokio::time::timeout(PATIENCE, piece(stream, &mut self.pending, into)).await,
        };
        received.context("no message in time")?
    }
}

async fn tcp(target: &Target) -> Result<TcpStream> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn datagram(socket: &UdpSocket, into: &mut Vec<u8>) -> Result<()> {
    loop {
        into.clear();
        into.reserve(4096);
        socket.recv_buf(into).await?;
        if into.len() > 4 {
            return Ok(());
        }
    }
}

async fn piece(stream: &mut Box<dyn Stream>, pending: &mut Vec<u8>, into: &mut Vec<u8>) -> Result<()> {
    loop {
        let blank = pending.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        pending.drain(..blank);
        if let Some(length) = whole(pending)? {
            into.clear();
            into.extend(pending.drain(..length));
            return Ok(());
        }
        if stream.read_buf(pending).await? == 0 {
            bail!("the server closed the connection");
        }
    }
}

/// Octets of the first message of a stream, once it is whole.
fn whole(stream: &[u8]) -> Result<Option<usize>> {
    let Some(head) = find(stream, b"\r\n\r\n") else { return Ok(None) };
    let length = row(stream, "content-length:").context("no Content-Length")?;
    let total = head + 4 + length.parse::<usize>()?;
    Ok((stream.len() >= total).then_some(total))
}

/// Where a needle begins.
#[must_use]
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// Value of the first row of a name, given in lower case with its colon.
#[must_use]
pub fn row<'a>(message: &'a [u8], name: &str) -> Option<&'a str> {
    message.split(|octet| *octet == b'\n').find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let ours = key.eq_ignore_ascii_case(name.as_bytes());
        if ours { std::str::from_utf8(value).ok().map(str::trim) } else { None }
    })
}

/// Status of a response, 0 of a request.
#[must_use]
pub fn status(message: &[u8]) -> u16 {
    let digits = message.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// Credentials for the challenge in a 401 or 407, with a password's hash kept by the caller. Only MD5 is offered to
/// either server, so that both do the same work.
///
/// # Errors
/// When the response holds no challenge.
pub fn answer(response: &[u8], user: &str, password: &str, method: &str, uri: &str) -> Result<String> {
    let (challenge, name) = match row(response, "www-authenticate:") {
        Some(value) => (value, "Authorization"),
        None => (row(response, "proxy-authenticate:").context("no challenge")?, "Proxy-Authorization"),
    };
    let challenge = Challenge::parse(challenge)?;
    if challenge.algorithm != Algorithm::Md5 {
        bail!("another algorithm than MD5 is offered");
    }
    let credentials = crate::digest::Credentials::new(&challenge, user, password, uri, 1);
    Ok(format!("{name}: {}\r\n", credentials.header(method)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_and_read() {
        let message = b"SIP/2.0 200 OK\r\nVia: a\r\nContent-Length: 2\r\n\r\nhiSIP";
        assert_eq!(whole(message).unwrap(), Some(message.len() - 3));
        assert_eq!((status(message), row(message, "via:")), (200, Some("a")));
        assert_eq!(whole(&message[..30]).unwrap(), None);
    }
}
