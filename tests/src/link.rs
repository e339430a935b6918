//! One path to a server (UDP, TCP or TLS): what is sent is sent as given, what arrives is kept for tests to look at.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::task::JoinHandle;

use crate::packet::{Packet, Piece, cut};

/// How SIP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// An encrypted stream.
    Tls,
}

impl Transport {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Name in URIs, lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// The name as Via has it.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        })
    }
}

/// Where a server is, and how its certificate is checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// How SIP is carried.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
    /// Name the certificate must carry.
    pub server_name: String,
    /// PEM file of the only authority trusted; needed for TLS.
    pub ca: Option<PathBuf>,
    /// File of the network namespace from which streams are opened, which needs root; `None`: our own.
    pub network: Option<PathBuf>,
}

/// What is done by itself with a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answered at once.
    Status(u16),
    /// Answered after a while.
    Late(Duration, u16),
    /// Left unanswered.
    Silence,
}

/// How long a connection from another network may take to open.
const CONNECT: Duration = Duration::from_secs(3);

/// Messages shown when something did not come.
const SHOWN: usize = 6;

/// One message that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Its octets.
    pub octets: Vec<u8>,
    /// What they say.
    pub packet: Packet,
}

/// What arrived and was not taken yet.
#[derive(Debug, Default)]
struct State {
    arrivals: Vec<Arrival>,
    pongs: usize,
    pings: usize,
    stun: Vec<Vec<u8>>,
    closed: Option<Instant>,
    faults: Vec<String>,
    replies: HashMap<String, Reply>,
}

/// The receiving side of a link, shared with its reader.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Notify,
}

impl Inbox {
    fn change<R>(&self, with: impl FnOnce(&mut State) -> R) -> R {
        let result = with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }

    /// Looks after every change until `look` finds something.
    async fn until<R>(&self, what: &str, limit: Duration, mut look: impl FnMut(&mut State) -> Option<R>) -> Result<R> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(fault) = state.faults.first() {
                    bail!("{fault}");
                }
                if let Some(found) = look(&mut state) {
                    return Ok(found);
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let (count, last): (usize, Vec<String>) = self.change(|state| {
                    let last = state.arrivals.iter().rev().take(SHOWN).map(|a| a.packet.to_string());
                    (state.arrivals.len(), last.collect())
                });
                bail!("waited {limit:?} in vain for {what}; not taken: {count}, the last\n{}", last.join("\n"));
            }
        }
    }
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The sending side.
#[derive(Clone)]
enum Sender {
    Datagrams(Arc<UdpSocket>, SocketAddr),
    Stream(Arc<AsyncMutex<WriteHalf<Box<dyn Stream>>>>),
}

impl Sender {
    async fn send(&self, octets: &[u8]) -> Result<()> {
        match self {
            Self::Datagrams(socket, to) => {
                socket.send_to(octets, to).await.context("datagram not sent")?;
            }
            Self::Stream(half) => {
                let mut half = half.lock().await;
                half.write_all(octets).await.context("stream not written")?;
                half.flush().await.context("stream not flushed")?;
            }
        }
        Ok(())
    }
}

/// An open path to a server. Dropping it closes it.
pub struct Link {
    sender: Sender,
    inbox: Arc<Inbox>,
    local: SocketAddr,
    reader: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// Opens the path from an address of the system's choice.
    ///
    /// # Errors
    /// When the server cannot be reached, or its certificate is not accepted.
    pub async fn open(target: &Target) -> Result<Self> {
        match target.transport {
            Transport::Udp => {
                ensure!(target.network.is_none(), "datagrams are sent from our own network only");
                Self::datagrams(target.address).await
            }
            Transport::Tcp => Self::over(tcp(target).await?).await,
            Transport::Tls => Self::encrypted(target).await,
        }
    }

    async fn datagrams(server: SocketAddr) -> Result<Self> {
        let any: SocketAddr = if server.is_ipv6() { ([0; 8], 0).into() } else { ([127, 0, 0, 1], 0).into() };
        let socket = Arc::new(UdpSocket::bind(any).await.context("no UDP socket")?);
        let local = socket.local_addr()?;
        let inbox = Arc::new(Inbox::default());
        let sender = Sender::Datagrams(Arc::clone(&socket), server);
        let reader = tokio::spawn(read_datagrams(socket, server, Arc::clone(&inbox), sender.clone()));
        Ok(Self { sender, inbox, local, reader })
    }

    async fn over(stream: TcpStream) -> Result<Self> {
        let local = stream.local_addr()?;
        Ok(Self::stream(Box::new(stream), local))
    }

    async fn encrypted(target: &Target) -> Result<Self> {
        let stream = tcp(target).await?;
        let local = stream.local_addr()?;
        let name = ServerName::try_from(target.server_name.clone()).context("server name")?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(target)?));
        let stream = connector.connect(name, stream).await.context("TLS handshake failed")?;
        Ok(Self::stream(Box::new(stream), local))
    }

    fn stream(stream: Box<dyn Stream>, local: SocketAddr) -> Self {
        let (read, write) = split(stream);
        let inbox = Arc::new(Inbox::default());
        let sender = Sender::Stream(Arc::new(AsyncMutex::new(write)));
        let reader = tokio::spawn(read_stream(read, Arc::clone(&inbox), sender.clone()));
        Self { sender, inbox, local, reader }
    }

    /// Our own address.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends octets as they are: one datagram, or a part of the stream.
    ///
    /// # Errors
    /// When the system refuses them.
    pub async fn send(&self, octets: &[u8]) -> Result<()> {
        self.sender.send(octets).await
    }

    /// Ends the connection, as a client does that goes away without a word.
    pub async fn close(&self) {
        self.reader.abort();
        if let Sender::Stream(half) = &self.sender {
            // A connection that is gone already cannot be ended once more.
            let _ = half.lock().await.shutdown().await;
        }
    }

    /// What is done by itself with requests of a method from now on; otherwise they are answered 200.
    pub fn reply(&self, method: &str, reply: Reply) {
        self.inbox.change(|state| state.replies.insert(method.to_owned(), reply));
    }

    /// Waits for a message that `wanted` accepts and takes it out.
    ///
    /// # Errors
    /// When none came within `limit`, the path was closed, or something came that must not (a datagram from an address
    /// we did not send to, octets that are no SIP).
    pub async fn take(&self, what: &str, limit: Duration, wanted: impl Fn(&Arrival) -> bool) -> Result<Arrival> {
        let look = |state: &mut State| match state.arrivals.iter().position(&wanted) {
            Some(place) => Some(Ok(state.arrivals.remove(place))),
            None => state.closed.map(|_| Err(anyhow::anyhow!("connection closed while waiting for {what}"))),
        };
        self.inbox.until(what, limit, look).await?
    }

    /// Watches for a time that no message comes which `unwanted` accepts.
    ///
    /// # Errors
    /// When one comes, or came before and was not taken.
    pub async fn none(&self, what: &str, time: Duration, unwanted: impl Fn(&Arrival) -> bool) -> Result<()> {
        let seen = tokio::time::timeout(
            time,
            self.inbox.until(what, time * 2, |state| state.arrivals.iter().find(|arrival| unwanted(arrival)).cloned()),
        );
        match seen.await {
            Err(_elapsed) => Ok(()),
            Ok(Ok(arrival)) => bail!("{what} came although it must not:\n{}", arrival.packet),
            Ok(Err(fault)) => Err(fault),
        }
    }

    /// Waits for CRLF, the answer to a ping.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn pong(&self, limit: Duration) -> Result<()> {
        self.inbox.until("a pong", limit, |state| state.pongs.checked_sub(1).map(|left| state.pongs = left)).await
    }

    /// Waits for CRLFCRLF, a ping of the server's.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn ping(&self, limit: Duration) -> Result<()> {
        self.inbox.until("a ping", limit, |state| state.pings.checked_sub(1).map(|left| state.pings = left)).await
    }

    /// Waits until the server closes the connection and tells when it did.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn closed(&self, limit: Duration) -> Result<Instant> {
        self.inbox.until("the end of the connection", limit, |state| state.closed).await
    }

    /// Waits for a datagram of STUN, and takes it.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub async fn stun(&self, limit: Duration) -> Result<Vec<u8>> {
        self.inbox.until("an answer of STUN", limit, |state| state.stun.pop()).await
    }

    /// Whether the server has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox.change(|state| state.closed.is_some())
    }

    /// Takes everything that arrived and was not taken.
    #[must_use]
    pub fn take_all(&self) -> Vec<Arrival> {
        self.inbox.change(|state| std::mem::take(&mut state.arrivals))
    }

    /// Everything that arrived and was not taken.
    #[must_use]
    pub fn left(&self) -> Vec<Arrival> {
        self.inbox.change(|state| state.arrivals.clone())
    }
}

async fn tcp(target: &Target) -> Result<TcpStream> {
    let address = target.address;
    let stream = match &target.network {
        None => TcpStream::connect(address).await.map_err(anyhow::Error::from),
        Some(network) => tcp_from(network, address).await,
    };
    let stream = stream.with_context(|| format!("no connection to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects from another network: a socket stays in the network of the thread that made it.
async fn tcp_from(network: &Path, address: SocketAddr) -> Result<TcpStream> {
    let network = File::open(network).with_context(|| format!("no network {}", network.display()))?;
    let (done, outcome) = oneshot::channel();
    let connect = move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        std::net::TcpStream::connect_timeout(&address, CONNECT)
    };
    // A thread of its own, which ends with that network; whoever waited may have given up by then.
    std::thread::spawn(move || drop(done.send(connect())));
    let stream = outcome.await.context("the thread that connects has ended")??;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// TLS that trusts one authority only.
///
/// # Errors
/// When the target names none, or its file holds no certificate.
pub fn client_config(target: &Target) -> Result<rustls::ClientConfig> {
    let file = target.ca.as_ref().context("TLS needs the CA file")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {}", file.display()))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn read_datagrams(socket: Arc<UdpSocket>, server: SocketAddr, inbox: Arc<Inbox>, sender: Sender) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, from)) if from != server => {
                let fault = format!("a datagram came from {from}, but {server} was the address sent to");
                inbox.change(|state| state.faults.push(fault));
            }
            Ok((length, _)) => match &buffer[..length] {
                b"\r\n" => inbox.change(|state| state.pongs += 1),
                b"\r\n\r\n" => inbox.change(|state| state.pings += 1),
                octets if octets.first().is_some_and(|first| *first < 4) => {
                    inbox.change(|state| state.stun.push(octets.to_vec()));
                }
                octets => arrived(octets, &inbox, &sender),
            },
            // An ICMP error of an earlier datagram: the server is away for a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn read_stream(mut half: ReadHalf<Box<dyn Stream>>, inbox: Arc<Inbox>, sender: Sender) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 1 << 14];
    loop {
        match half.read(&mut chunk).await {
            Ok(0) | Err(_) => return inbox.change(|state| state.closed = Some(Instant::now())),
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        }
        loop {
            match cut(&mut buffer) {
                Ok(Some(Piece::Message(octets))) => arrived(&octets, &inbox, &sender),
                Ok(Some(Piece::Ping)) => inbox.change(|state| state.pings += 1),
                Ok(Some(Piece::Pong)) => inbox.change(|state| state.pongs += 1),
                Ok(None) => break,
                Err(error) => {
                    return inbox.change(|state| state.faults.push(format!("the server's stream: {error:#}")));
                }
            }
        }
    }
}

/// Keeps a message and gives the answer that is set for it.
fn arrived(octets: &[u8], inbox: &Arc<Inbox>, sender: &Sender) {
    let packet = match Packet::parse(octets) {
        Ok(packet) => packet,
        Err(error) => {
            let text = String::from_utf8_lossy(octets);
            return inbox.change(|state| state.faults.push(format!("not SIP ({error:#}):\n{text}")));
        }
    };
    let reply = packet.method().map(str::to_owned).and_then(|method| {
        let set = inbox.change(|state| state.replies.get(&method).copied());
        (method != "ACK").then(|| set.unwrap_or(Reply::Status(200)))
    });
    let arrival = Arrival { at: Instant::now(), octets: octets.to_vec(), packet: packet.clone() };
    inbox.change(|state| state.arrivals.push(arrival));
    let (delay, status) = match reply {
        None | Some(Reply::Silence) => return,
        Some(Reply::Status(status)) => (Duration::ZERO, status),
        Some(Reply::Late(delay, status)) => (delay, status),
    };
    let (sender, answer) = (sender.clone(), Packet::answer(&packet, status, "testtag").octets());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // The path may be gone by now; a test that cares waits for what follows from the answer.
        let _ = sender.send(&answer).await;
    });
}
