//! Between clients and front ends: connections, datagrams, the VIP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::ids::Incarnation;
use commpool_server::engine::Input;
use commpool_server::engine::flow::{Flow, FlowInfo};
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use commpool_store::ops::Transport;

use super::{Event, Path, World, address, remote};
use crate::client::Want;

/// A path through the VIP to a UDP client lives so long after its last packet.
const PATH: Duration = Duration::from_secs(30);

impl World {
    pub(super) fn connect(&mut self, client: usize) {
        let now = self.now;
        let serving: Vec<usize> = (0..self.places.len())
            .filter(|fe| {
                let place = self.places.get(*fe);
                place.is_some_and(|p| p.frozen.is_some() || p.engine.as_ref().is_some_and(|e| e.ready(now)))
            })
            .collect();
        let Some(fe) = self.rng.choose(&serving).copied() else {
            return self.after(300_000, 1_000_000, Event::Connect { client });
        };
        self.lives += 1;
        let life = self.lives;
        let Some(place) = self.places.get_mut(fe) else { return };
        let inc = place.inc;
        let udp = self.clients.get(client).is_some_and(|c| c.udp);
        let flow = if udp {
            Flow::Udp { socket: 0, local: address(fe), remote: remote(client) }
        } else {
            place.serial += 1;
            place.connections.insert(place.serial, (client, life));
            Flow::Stream(place.serial)
        };
        if let Flow::Stream(serial) = flow {
            let info =
                FlowInfo { transport: Transport::Tcp, local: address(fe), remote: remote(client), server_name: None };
            self.input(fe, inc, Input::Opened { serial, info });
        }
        if let Some(path) = self.paths.get_mut(client) {
            *path = Some(Path { fe, inc, flow, life, last: now });
        }
        let wants = self.clients.get_mut(client).map(|c| c.connected(now)).unwrap_or_default();
        self.fulfil(client, wants);
    }

    pub(super) fn fulfil(&mut self, client: usize, wants: Vec<Want>) {
        for want in wants {
            match want {
                Want::Send(octets) => self.sent(client, octets),
                Want::Wake(wait, timer) => self.at(self.now + wait, Event::Wake { client, timer }),
                Want::Reconnect => self.reconnect(client),
            }
        }
    }

    /// A client gives its connection up.
    pub(super) fn reconnect(&mut self, client: usize) {
        if self.close_path(client) {
            self.gone(client);
        }
    }

    /// A client's connection ends from its side; whether it had one.
    pub(super) fn close_path(&mut self, client: usize) -> bool {
        let Some(path) = self.paths.get_mut(client).and_then(Option::take) else { return false };
        if let Flow::Stream(serial) = path.flow
            && let Some(place) = self.running(path.fe, path.inc)
        {
            place.connections.remove(&serial);
            let input = Box::new(Input::Closed { flow: path.flow });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
        true
    }

    pub(super) fn gone(&mut self, client: usize) {
        let now = self.now;
        if let Some(c) = self.clients.get_mut(client) {
            c.disconnected();
            self.check.disconnected(now, client, &c.user);
        }
        self.after(20_000, 2_000_000, Event::Connect { client });
    }

    pub(super) fn closed(&mut self, client: usize, life: u64) {
        if self.paths.get(client).copied().flatten().is_some_and(|p| p.life == life) {
            if let Some(path) = self.paths.get_mut(client) {
                *path = None;
            }
            self.gone(client);
        }
    }

    pub(super) fn sent(&mut self, client: usize, octets: Bytes) {
        let Some(mut path) = self.paths.get(client).copied().flatten() else { return };
        if matches!(path.flow, Flow::Udp { .. }) {
            if self.rng.one_in(33) {
                return self.check.count("datagrams lost");
            }
            self.choose_path(client, &mut path);
        }
        let copies = 1 + u32::from(matches!(path.flow, Flow::Udp { .. }) && self.rng.one_in(50));
        let Ok(message) = Message::parse_datagram(octets, &Limits::default()) else { return };
        for _ in 0..copies {
            let input = Box::new(Input::Message { flow: path.flow, message: message.clone() });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
    }

    /// The VIP sends a client's datagrams to another front end when the path was silent too long or is broken; and now
    /// and then for no reason at all.
    pub(super) fn choose_path(&mut self, client: usize, path: &mut Path) {
        let now = self.now;
        let alive = self.running(path.fe, path.inc).is_some();
        if !alive || now.since(path.last) > PATH || self.rng.one_in(200) {
            let ready: Vec<usize> = (0..self.places.len())
                .filter(|fe| self.places.get(*fe).and_then(|p| p.engine.as_ref()).is_some_and(|e| e.ready(now)))
                .collect();
            if let Some(fe) = self.rng.choose(&ready).copied() {
                let inc = self.places.get(fe).map_or(path.inc, |p| p.inc);
                *path = Path {
                    fe,
                    inc,
                    flow: Flow::Udp { socket: 0, local: address(fe), remote: remote(client) },
                    ..*path
                };
            }
        }
        path.last = now;
        if let Some(known) = self.paths.get_mut(client) {
            *known = Some(*path);
        }
    }

    /// Only the front end that got a client's last datagram reaches it.
    pub(super) fn datagram(&mut self, fe: usize, inc: Incarnation, to: SocketAddr, octets: Bytes) {
        let Some(client) = (0..self.clients.len()).find(|c| remote(*c) == to) else { return };
        let Some(path) = self.paths.get(client).copied().flatten() else { return };
        let reaches = path.fe == fe && path.inc == inc && self.now.since(path.last) <= PATH;
        if !reaches || self.rng.one_in(33) {
            return self.check.count("datagrams lost");
        }
        if let Some(Some(path)) = self.paths.get_mut(client) {
            path.last = self.now;
        }
        self.after(200, 2_000, Event::ToClient { client, life: path.life, octets });
    }

    pub(super) fn received(&mut self, client: usize, life: u64, octets: Bytes) {
        if self.paths.get(client).copied().flatten().is_none_or(|p| p.life != life) {
            return;
        }
        if octets.iter().all(|o| matches!(o, b'\r' | b'\n')) {
            if octets.len() == 4 {
                self.pong(client);
            }
            return;
        }
        let now = self.now;
        match Message::parse_datagram(octets, &Limits::default()) {
            Ok(message) if message.validate().is_ok() => {
                let (rng, check) = (&mut self.rng, &mut self.check);
                let wants =
                    self.clients.get_mut(client).map(|c| c.received(now, &message, rng, check)).unwrap_or_default();
                self.fulfil(client, wants);
            }
            _ => self.check.broke(now, "syntax", format!("device {client} got something that is no SIP message")),
        }
    }

    /// A client over a connection answers a ping; over UDP real ones are silent.
    pub(super) fn pong(&mut self, client: usize) {
        let Some(path) = self.paths.get(client).copied().flatten() else { return };
        if let Flow::Stream(_) = path.flow {
            let input = Box::new(Input::Ping { flow: path.flow });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
    }
}
