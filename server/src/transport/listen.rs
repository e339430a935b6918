//! Listening: sockets bound before anything is served, connections accepted and handed to tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use commpool_model::config::Listeners;
use commpool_sip::limits::Limits;
use commpool_store::ops::Transport;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stream::{self, Event};
use super::tls::Current;
use crate::engine::flow::FlowInfo;

/// Most connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 60_000;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// A TLS handshake takes at most so long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Octets unacknowledged for so long end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which the kernel asks whether the other side is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Receive buffer asked of the kernel for UDP: a burst waits there.
const UDP_BUFFER: usize = 4 * 1024 * 1024;

/// A socket that could not be bound.
#[derive(Debug, Error)]
#[error("{transport} {address}: {error}")]
pub struct BindError {
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// Address asked for.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

/// Sockets bound, not served yet.
#[derive(Debug, Default)]
pub struct Bound {
    /// UDP sockets.
    pub udp: Vec<std::net::UdpSocket>,
    /// TCP listeners.
    pub tcp: Vec<std::net::TcpListener>,
    /// TLS listeners.
    pub tls: Vec<std::net::TcpListener>,
}

impl Bound {
    /// Binds all listeners, or none.
    pub fn bind(listeners: &Listeners) -> Result<Self, BindError> {
        let mut bound = Self::default();
        for address in &listeners.udp {
            let socket = udp(*address, listeners.shared).map_err(|error| BindError {
                transport: "udp",
                address: *address,
                error,
            })?;
            bound.udp.push(socket);
        }
        for (transport, addresses, list) in
            [("tcp", &listeners.tcp, &mut bound.tcp), ("tls", &listeners.tls, &mut bound.tls)]
        {
            for address in addresses {
                let socket = tcp(*address, listeners.shared).map_err(|error| BindError {
                    transport,
                    address: *address,
                    error,
                })?;
                list.push(socket);
            }
        }
        Ok(bound)
    }

    /// Addresses really bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|s| s.local_addr().ok());
        let streams = self.tcp.iter().chain(&self.tls).filter_map(|s| s.local_addr().ok());
        udp.chain(streams).collect()
    }
}

fn udp(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections of one listener until cancelled.
#[derive(Clone)]
pub struct Acceptor {
    /// Where events go.
    pub engine: mpsc::Sender<Event>,
    /// Serial numbers, shared by all listeners.
    pub serials: Arc<AtomicU32>,
    /// Room for connections, shared by all listeners.
    pub room: Arc<Semaphore>,
    /// Tasks of connections.
    pub tasks: TaskTracker,
    /// Ends accepting.
    pub stop: CancellationToken,
    /// Message limits.
    pub limits: Limits,
}

impl Acceptor {
    /// Room for the most connections there may be.
    pub fn room() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_CONNECTIONS))
    }

    /// Serves a listener; `tls`: with a handshake first.
    pub async fn run(self, listener: std::net::TcpListener, tls: Option<Current>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return Ok(()),
            };
            let Ok((socket, remote)) = accepted else {
                // Out of descriptors, most likely: leave the kernel time to get some back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (this, tls) = (self.clone(), tls.clone());
            self.tasks.spawn(async move {
                this.connection(socket, remote, tls).await;
                drop(permit);
            });
        }
    }

    async fn connection(self, socket: TcpStream, remote: SocketAddr, tls: Option<Current>) {
        let Ok(local) = socket.local_addr().and_then(|local| tune(&socket).map(|()| local)) else { return };
        let serial = self.serials.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1);
        let Some(identity) = tls else {
            let info = FlowInfo { transport: Transport::Tcp, local, remote, server_name: None };
            return stream::run(socket, serial, info, self.engine, self.limits).await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.load().config));
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
            Ok(Ok(tls)) => {
                let server_name = tls.get_ref().1.server_name().map(str::to_ascii_lowercase);
                let info = FlowInfo { transport: Transport::Tls, local, remote, server_name };
                stream::run(tls, serial, info, self.engine, self.limits).await;
            }
            Ok(Err(error)) => tracing::info!(%remote, %error, "TLS handshake failed"),
            Err(_) => tracing::info!(%remote, "TLS handshake not finished in time"),
        }
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let reference = SockRef::from(socket);
    reference.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    reference.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(10)))
}
