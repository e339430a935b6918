//! Links: connections to every other front end, mutual TLS, bounded queues, silence noticed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use commpool_model::ids::Incarnation;
use commpool_store::ops::front_ends::FrontEnd;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::frame::{Class, Frame, Hello, LONGEST, PROTOCOL};
use super::identity::CurrentPeer;
use crate::engine::Input;
use crate::metrics::Metrics;

/// A connection to a peer must stand within this: a dead address does not answer.
const CONNECT: Duration = Duration::from_secs(1);
/// The first frame must come within this.
const HELLO: Duration = Duration::from_secs(2);
/// A peer that has said nothing for so long is gone; it pings each second.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two attempts to reach a peer.
const AGAIN: Duration = Duration::from_millis(500);
/// Most octets that wait for one connection.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// Most connections from peers.
const MAX_INCOMING: usize = 512;

/// What links need to know of their own side.
#[derive(Clone)]
pub struct Own {
    /// Name of the pool.
    pub pool: String,
    /// This incarnation.
    pub fe: Incarnation,
    /// Version and commit.
    pub build: String,
    /// Certificate, key and authority between front ends, and the one name they go by; each
    /// handshake takes what is current.
    pub identity: CurrentPeer,
    /// Where frames go.
    pub engine: mpsc::Sender<Input>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Links from here to the others. Dropping it ends them.
pub struct Links {
    own: Own,
    peers: HashMap<Incarnation, Peer>,
    known: watch::Sender<Vec<Incarnation>>,
}

struct Peer {
    queues: [Queue; 2],
    tasks: Vec<JoinHandle<()>>,
}

struct Queue {
    frames: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
}

impl Links {
    /// No links yet.
    pub fn new(own: Own) -> Self {
        Self { own, peers: HashMap::new(), known: watch::channel(Vec::new()).0 }
    }

    /// Whom connections are accepted from.
    pub fn known(&self) -> watch::Receiver<Vec<Incarnation>> {
        self.known.subscribe()
    }

    /// Keeps links to exactly these.
    pub fn set(&mut self, directory: &[FrontEnd]) {
        self.known.send_replace(directory.iter().map(|f| f.fe).collect());
        self.peers.retain(|fe, peer| {
            let stays = directory.iter().any(|f| f.fe == *fe);
            if !stays {
                peer.tasks.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        for front_end in directory {
            if !self.peers.contains_key(&front_end.fe) {
                let peer = self.open(front_end);
                self.peers.insert(front_end.fe, peer);
            }
        }
    }

    fn open(&self, to: &FrontEnd) -> Peer {
        let mut tasks = Vec::new();
        let queues = [Class::Calls, Class::Bulk].map(|class| {
            let (frames, outgoing) = mpsc::unbounded_channel();
            let queued = Arc::new(AtomicUsize::new(0));
            let link = Link { own: self.own.clone(), to: to.clone(), class, queued: Arc::clone(&queued) };
            tasks.push(tokio::spawn(link.run(outgoing)));
            Queue { frames, queued }
        });
        Peer { queues, tasks }
    }

    /// Queues a frame. It comes back if there is no room.
    pub fn send(&self, fe: Incarnation, frame: Frame) -> Result<(), Frame> {
        let Some(peer) = self.peers.get(&fe) else { return Err(frame) };
        let [calls, bulk] = &peer.queues;
        let queue = if frame.class() == Class::Calls { calls } else { bulk };
        let octets = frame.encode();
        if queue.queued.load(Ordering::Relaxed) + octets.len() > MAX_QUEUED {
            return Err(frame);
        }
        queue.queued.fetch_add(octets.len(), Ordering::Relaxed);
        queue.frames.send(octets).map_err(|_| frame)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.peers.values().flat_map(|peer| &peer.tasks).for_each(JoinHandle::abort);
    }
}

/// One outgoing connection, made again when it breaks.
struct Link {
    own: Own,
    to: FrontEnd,
    class: Class,
    queued: Arc<AtomicUsize>,
}

impl Link {
    async fn run(self, mut outgoing: mpsc::UnboundedReceiver<Bytes>) {
        loop {
            match self.connect().await {
                Ok(stream) => {
                    self.up(true).await;
                    let ended = self.carry(stream, &mut outgoing).await;
                    tracing::debug!(fe = self.to.fe.0, ?ended, "link ended");
                    self.up(false).await;
                }
                Err(error) => tracing::debug!(fe = self.to.fe.0, address = self.to.address, %error, "no link"),
            }
            // What was queued was for that connection: its senders have been told that the link ended.
            while let Ok(lost) = outgoing.try_recv() {
                self.queued.fetch_sub(lost.len(), Ordering::Relaxed);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The link counts as working when its connection for calls does.
    async fn up(&self, up: bool) {
        if self.class == Class::Calls {
            let _ = self.own.engine.send(Input::Link { fe: self.to.fe, up }).await;
        }
    }

    async fn connect(&self) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let identity = self.own.identity.load_full();
        let name = ServerName::try_from(identity.name().to_owned()).map_err(io::Error::other)?;
        let connected = timeout(CONNECT, async {
            let socket = TcpStream::connect(&self.to.address).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(identity.client()).connect(name, socket).await
        });
        let mut stream = connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let hello = Frame::Hello(Hello {
            pool: self.own.pool.clone(),
            from: self.own.fe,
            to: self.to.fe,
            build: self.own.build.clone(),
            protocol: PROTOCOL,
            class: self.class,
        });
        stream.write_all(&hello.encode()).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// Writes what is queued until the connection breaks; the other side writes nothing.
    async fn carry(
        &self,
        stream: tokio_rustls::client::TlsStream<TcpStream>,
        outgoing: &mut mpsc::UnboundedReceiver<Bytes>,
    ) -> io::Result<()> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut nothing = [0; 16];
        loop {
            tokio::select! {
                frame = outgoing.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    let mut octets = BytesMut::from(frame.as_ref());
                    while octets.len() < 64 * 1024 && let Ok(next) = outgoing.try_recv() {
                        octets.extend_from_slice(&next);
                    }
                    self.queued.fetch_sub(octets.len(), Ordering::Relaxed);
                    timeout(SILENCE, async { write.write_all(&octets).await?; write.flush().await })
                        .await
                        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                }
                ended = read.read(&mut nothing) => {
                    ended?;
                    return Ok(());
                }
            }
        }
    }
}

/// Accepts connections of other front ends.
pub struct Incoming {
    /// This side.
    pub own: Own,
    /// Whom connections are accepted from.
    pub known: watch::Receiver<Vec<Incarnation>>,
    /// Ends accepting, and all connections.
    pub stop: CancellationToken,
}

impl Incoming {
    /// Accepts until told to stop.
    pub async fn run(self: Arc<Self>, listener: Arc<TcpListener>) {
        let room = Arc::new(Semaphore::new(MAX_INCOMING));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let Ok((socket, remote)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                tokio::select! {
                    ended = this.connection(socket) => if let Err(refused) = ended {
                        tracing::warn!(%remote, refused, "connection of a front end refused");
                        this.own.metrics.peer_refused();
                    },
                    () = this.stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    async fn connection(&self, socket: TcpStream) -> Result<(), &'static str> {
        let acceptor = TlsAcceptor::from(self.own.identity.load().server());
        let stream = timeout(HELLO, acceptor.accept(socket)).await.map_err(|_| "no handshake in time")?;
        let mut stream = stream.map_err(|_| "its certificate is not of this pool")?;
        let mut buffer = BytesMut::new();
        let first = timeout(HELLO, next(&mut stream, &mut buffer)).await.map_err(|_| "no hello in time")?;
        let Some(Frame::Hello(hello)) = first? else { return Err("the first frame is no hello") };
        self.check(&hello).await?;
        let from = hello.from;
        loop {
            let frame = match timeout(SILENCE, next(&mut stream, &mut buffer)).await {
                Ok(frame) => frame,
                // The bulk connection may be quiet as long as it likes; calls carry pings.
                Err(_) if hello.class == Class::Bulk => continue,
                Err(_) => {
                    let _ = self.own.engine.send(Input::Link { fe: from, up: false }).await;
                    return Ok(());
                }
            };
            match frame {
                Ok(Some(Frame::Hello(_))) => return Err("a second hello"),
                Ok(Some(frame)) => {
                    if self.own.engine.send(Input::Frame { from, frame }).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => {}
                Err(END) => return Ok(()),
                Err(refused) => return Err(refused),
            }
        }
    }

    async fn check(&self, hello: &Hello) -> Result<(), &'static str> {
        if hello.pool != self.own.pool {
            return Err("it is of another pool");
        }
        if hello.to != self.own.fe {
            return Err("it looks for another incarnation");
        }
        if hello.protocol.1 > PROTOCOL.0 || hello.protocol.0 < PROTOCOL.1 {
            return Err("it speaks another protocol");
        }
        // A front end that has just started is ahead of our directory by one renewal.
        let mut known = self.known.clone();
        if !known.borrow().contains(&hello.from) {
            let _ = self.own.engine.send(Input::Newcomer).await;
        }
        let listed = timeout(Duration::from_secs(6), known.wait_for(|all| all.contains(&hello.from))).await;
        if matches!(listed, Ok(Ok(_))) { Ok(()) } else { Err("it is not in the directory") }
    }
}

const END: &str = "the connection ended";

/// The next frame; `None`: of a kind that is not known.
async fn next<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Option<Frame>, &'static str> {
    loop {
        if let Some(length) = buffer.first_chunk::<4>().map(|l| u32::from_be_bytes(*l) as usize) {
            if length == 0 || length > LONGEST {
                return Err("a frame of an impossible length");
            }
            if buffer.len() >= 4 + length {
                buffer.advance(4);
                let octets = buffer.split_to(length).freeze();
                return Frame::decode(octets).map_err(|_| "a frame that cannot be read");
            }
        }
        if stream.read_buf(buffer).await.map_err(|_| END)? == 0 {
            return Err(END);
        }
    }
}
