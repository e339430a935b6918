//! UDP sockets: datagrams in batches, answers from the address they were sent to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;
use commpool_sip::frame::is_keep_alive;
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use commpool_sip::stun::BindingRequest;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::net::UdpSocket;

use crate::engine::Input;
use crate::engine::flow::Flow;

/// Room for one received datagram (or several, where the kernel joins them), octets.
const SLOT: usize = 64 * 1024;
/// Most batches taken in before something else has its turn.
const MAX_BATCHES: usize = 8;

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

/// All UDP sockets of a front end, polled by the engine's own task.
pub struct UdpSockets {
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
    limits: Limits,
}

impl UdpSockets {
    /// Takes over bound sockets.
    pub fn new(bound: Vec<std::net::UdpSocket>, limits: Limits) -> io::Result<Self> {
        let sockets = bound.into_iter().map(Self::socket).collect::<io::Result<Vec<_>>>()?;
        let buffer = if sockets.is_empty() { Vec::new() } else { vec![0; BATCH_SIZE * SLOT] };
        Ok(Self { sockets, buffer, limits })
    }

    fn socket(bound: std::net::UdpSocket) -> io::Result<Socket> {
        bound.set_nonblocking(true)?;
        let local = bound.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&bound))?;
        Ok(Socket { io: UdpSocket::from_std(bound)?, state, local })
    }

    /// Takes in what has arrived; ready if there was anything.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, inputs: &mut Vec<Input>) -> Poll<()> {
        let before = inputs.len();
        for (index, socket) in self.sockets.iter().enumerate() {
            for _ in 0..MAX_BATCHES {
                if socket.io.poll_recv_ready(cx).is_pending() {
                    break;
                }
                if !receive(socket, index as u16, &mut self.buffer, &self.limits, inputs) {
                    // Either nothing was there, and the readiness is cleared, or an error of a datagram sent before.
                    if socket.io.poll_recv_ready(cx).is_pending() {
                        break;
                    }
                }
            }
        }
        if inputs.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Throws away what waits in the sockets.
    pub fn discard(&mut self) {
        let mut octet = [0; 1];
        for socket in &self.sockets {
            while socket.io.try_recv(&mut octet).is_ok() {}
        }
    }

    /// Sends on a UDP flow. A full socket buffer drops the datagram, as the network may.
    pub fn send(&self, flow: Flow, octets: &[u8]) {
        let Flow::Udp { socket, local, remote } = flow else { return };
        let Some(socket) = self.sockets.get(usize::from(socket)) else { return };
        let src_ip = socket.local.ip().is_unspecified().then(|| local.ip());
        let transmit = Transmit { destination: remote, ecn: None, contents: octets, segment_size: None, src_ip };
        let sent = socket
            .io
            .try_io(tokio::io::Interest::WRITABLE, || socket.state.try_send(UdpSockRef::from(&socket.io), &transmit));
        if let Err(error) = sent {
            tracing::debug!(%remote, %error, "datagram not sent");
        }
    }
}

/// One system call's worth of datagrams. False: nothing more is there now.
fn receive(socket: &Socket, index: u16, buffer: &mut [u8], limits: &Limits, inputs: &mut Vec<Input>) -> bool {
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let mut slots: Vec<IoSliceMut<'_>> = buffer.chunks_mut(SLOT).map(IoSliceMut::new).collect();
    let received = socket.io.try_io(tokio::io::Interest::READABLE, || {
        socket.state.recv(UdpSockRef::from(&socket.io), &mut slots, &mut metas)
    });
    let Ok(count) = received else { return false };
    drop(slots);
    for (slot, meta) in buffer.chunks(SLOT).zip(&metas).take(count) {
        let local_ip = meta.dst_ip.filter(|ip| usable(*ip)).unwrap_or(socket.local.ip());
        let local = SocketAddr::new(local_ip, socket.local.port());
        let flow = Flow::Udp { socket: index, local, remote: meta.addr };
        for datagram in slot.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
            inputs.extend(input(flow, datagram, limits));
        }
    }
    true
}

const fn usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// A datagram as the engine sees it. Keep-alives shorter than CRLFCRLF, and what cannot be SIP at all, are nothing.
fn input(flow: Flow, datagram: &[u8], limits: &Limits) -> Option<Input> {
    if is_keep_alive(datagram) {
        return Some(Input::Ping { flow });
    }
    if let Some(request) = BindingRequest::parse(datagram) {
        return Some(Input::Stun { flow, request });
    }
    // Other STUN begins with two zero bits; NUL octets and the like are keep-alives of some clients.
    if datagram.len() < 16 || datagram.first().is_some_and(|octet| *octet < b'\n') {
        return None;
    }
    match Message::parse_datagram(Bytes::copy_from_slice(datagram), limits) {
        Ok(message) => Some(Input::Message { flow, message }),
        Err(malformed) => Some(Input::Malformed { flow, malformed }),
    }
}
