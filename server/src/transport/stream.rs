//! Connections: one task each, framing on the way in, a bounded queue on the way out.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commpool_sip::frame::{Frame, StreamFramer};
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::engine::Input;
use crate::engine::flow::{Flow, FlowInfo};

/// Most octets that wait to be written to one client: a reader slower than that is cut off.
const MAX_QUEUED: usize = 256 * 1024;
/// First octet to last of one message.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest write that makes no progress.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Octets read at once; the buffer is shared by all connections of a thread, so an idle one holds none.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// What a connection tells the engine's task.
#[derive(Debug)]
pub enum Event {
    /// It is open; this is the way out.
    Opened {
        /// Its serial number.
        serial: u32,
        /// What is known of it.
        info: FlowInfo,
        /// The way out.
        sender: Sender,
    },
    /// Something came in, or it closed.
    Input(Input),
}

/// The way out of a connection: bounded by octets. Dropping it closes the connection after what was queued.
#[derive(Debug)]
pub struct Sender {
    queue: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
}

/// The client does not read what it is sent, or is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct NotSent;

impl Sender {
    /// Queues octets.
    pub fn send(&self, octets: Bytes) -> Result<(), NotSent> {
        let length = octets.len();
        if self.queued.fetch_add(length, Ordering::Relaxed) + length > MAX_QUEUED {
            return Err(NotSent);
        }
        self.queue.send(octets).map_err(|_| NotSent)
    }
}

/// Runs one connection until it ends, from either side.
pub async fn run<S>(mut stream: S, serial: u32, info: FlowInfo, engine: mpsc::Sender<Event>, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (queue, mut outgoing) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let sender = Sender { queue, queued: Arc::clone(&queued) };
    if engine.send(Event::Opened { serial, info, sender }).await.is_err() {
        return;
    }
    let flow = Flow::Stream(serial);
    let mut reader =
        Reader { framer: StreamFramer::new(limits), buffer: BytesMut::new(), broken: false, begun: None, limits };
    loop {
        let deadline = reader.begun.map(|at| at + MESSAGE_DEADLINE);
        tokio::select! {
            octets = outgoing.recv() => {
                let Some(octets) = octets else { break };
                if write(&mut stream, octets, &mut outgoing, &queued).await.is_err() {
                    break;
                }
            }
            read = reader.read(&mut stream) => {
                if read.is_err() || !reader.hand_over(flow, &engine).await {
                    break;
                }
            }
            () = until(deadline) => {
                tracing::debug!(serial, "message not complete in time");
                break;
            }
        }
    }
    // What was queued before the engine closed this flow still goes out; a client that does not read ends it.
    let _ = timeout(Duration::from_secs(1), finish(&mut stream, outgoing)).await;
    let _ = engine.send(Event::Input(Input::Closed { flow })).await;
}

async fn finish<S: AsyncWrite + Unpin>(stream: &mut S, mut outgoing: mpsc::UnboundedReceiver<Bytes>) -> io::Result<()> {
    outgoing.close();
    while let Some(octets) = outgoing.recv().await {
        stream.write_all(&octets).await?;
    }
    stream.shutdown().await
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Writes one message, and with it what else waits, as one piece.
async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    first: Bytes,
    outgoing: &mut mpsc::UnboundedReceiver<Bytes>,
    queued: &AtomicUsize,
) -> io::Result<()> {
    let mut written = first.len();
    let octets = match outgoing.try_recv() {
        Err(_) => first,
        Ok(second) => {
            let mut joined = BytesMut::with_capacity(written + second.len() + 4096);
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&second);
            while joined.len() < 64 * 1024
                && let Ok(next) = outgoing.try_recv()
            {
                joined.extend_from_slice(&next);
            }
            written = joined.len();
            joined.freeze()
        }
    };
    let done = timeout(WRITE_DEADLINE, async {
        stream.write_all(&octets).await?;
        stream.flush().await
    })
    .await;
    queued.fetch_sub(written, Ordering::Relaxed);
    done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

struct Reader {
    framer: StreamFramer,
    buffer: BytesMut,
    /// After a framing error the rest of the stream means nothing; the engine answers and closes.
    broken: bool,
    /// When the message that is not complete yet began.
    begun: Option<Instant>,
    limits: Limits,
}

impl Reader {
    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.broken {
            return std::future::pending().await;
        }
        let buffer = &mut self.buffer;
        std::future::poll_fn(|cx| poll_read(stream, cx, buffer)).await
    }

    /// Gives complete frames to the engine. False: the connection is to end.
    async fn hand_over(&mut self, flow: Flow, engine: &mpsc::Sender<Event>) -> bool {
        loop {
            let input = match self.framer.next(&mut self.buffer) {
                Ok(Some(Frame::Message(octets))) => {
                    self.begun = None;
                    match Message::parse_framed(octets, &self.limits) {
                        Ok(message) => Input::Message { flow, message },
                        Err(malformed) => Input::Malformed { flow, malformed },
                    }
                }
                Ok(Some(Frame::Ping)) => Input::Ping { flow },
                Ok(Some(Frame::Pong)) => continue,
                Ok(None) => break,
                Err(error) => {
                    self.broken = true;
                    self.buffer = BytesMut::new();
                    self.begun = Some(Instant::now());
                    return engine.send(Event::Input(Input::Broken { flow, error })).await.is_ok();
                }
            };
            if engine.send(Event::Input(input)).await.is_err() {
                return false;
            }
        }
        if !self.framer.has_partial() {
            self.begun = None;
            self.buffer = BytesMut::new();
        } else if self.begun.is_none() {
            self.begun = Some(Instant::now());
        }
        true
    }
}

fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<()>> {
    SCRATCH_BUFFER.with_borrow_mut(|scratch| {
        let mut room = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        if room.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.extend_from_slice(room.filled());
        Poll::Ready(Ok(()))
    })
}
