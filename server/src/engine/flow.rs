//! Flows: the only way out. A flow is a connection, or a remote UDP address as one of our sockets sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use commpool_model::ids::{EndpointId, Incarnation, UserRef};
use commpool_sip::time::Moment;
use commpool_store::ops::Transport;

/// Handle of a flow. Made by the transport that received something on it, never from an address read in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// A connection, by its serial number.
    Stream(u32),
    /// A remote address as seen by one of our UDP sockets.
    Udp {
        /// Index of the receiving socket.
        socket: u16,
        /// Address the datagram was sent to; answers leave from it.
        local: SocketAddr,
        /// Where it came from.
        remote: SocketAddr,
    },
}

impl Flow {
    /// Whether the transport delivers in order or fails (timers of RFC 3261 §17).
    pub const fn reliable(self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// What is known of a flow from the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Transport.
    pub transport: Transport,
    /// Our address on it.
    pub local: SocketAddr,
    /// The client's address as we see it.
    pub remote: SocketAddr,
    /// Name the client asked for in TLS (SNI), where our certificate has it.
    pub server_name: Option<String>,
}

/// State of a flow inside one incarnation.
#[derive(Clone, Debug)]
pub struct FlowState {
    /// Serial number: names the flow in the store.
    pub serial: u32,
    /// What is known of it from the outside.
    pub info: FlowInfo,
    /// Who authenticated on it, with the stamp of his account then; at most [`MAX_USERS`].
    pub users: BTreeMap<UserRef, u64>,
    /// Endpoints registered on it; at most ten of each user.
    pub endpoints: BTreeSet<EndpointId>,
    /// Subscription dialogs whose NOTIFYs leave on it.
    pub dialogs: u32,
    /// Last octet either way.
    pub last_traffic: Moment,
    /// Another front end saw this UDP address last: only it can reach it now.
    pub through: Option<Incarnation>,
    /// We are closing it because we leave.
    pub shed: bool,
}

/// Most users of one flow: a gateway may carry some, a connection is no trunk.
pub const MAX_USERS: usize = 1000;

/// Serial numbers of UDP flows have this bit, those of connections do not.
const UDP_SERIAL: u32 = 1 << 31;

/// All flows of this incarnation. Connections enter when they open; UDP addresses when somebody authenticates on one,
/// so that strangers cost no memory.
#[derive(Debug, Default)]
pub struct Flows {
    states: HashMap<Flow, FlowState>,
    by_serial: HashMap<u32, Flow>,
    by_user: HashMap<UserRef, BTreeSet<Flow>>,
    by_remote: HashMap<SocketAddr, Flow>,
    next_udp: u32,
}

impl Flows {
    /// A connection opened.
    pub fn open(&mut self, serial: u32, info: FlowInfo, now: Moment) {
        self.insert(Flow::Stream(serial), serial, info, now);
    }

    /// The state of a UDP flow on which somebody authenticated, made if it is new; or that of an open connection.
    pub fn adopt(&mut self, flow: Flow, now: Moment) -> Option<&mut FlowState> {
        if let Flow::Udp { local, remote, .. } = flow
            && !self.states.contains_key(&flow)
        {
            let serial = self.free_udp_serial();
            let info = FlowInfo { transport: Transport::Udp, local, remote, server_name: None };
            self.insert(flow, serial, info, now);
        }
        self.states.get_mut(&flow)
    }

    fn free_udp_serial(&mut self) -> u32 {
        loop {
            self.next_udp = self.next_udp.wrapping_add(1) & !UDP_SERIAL;
            let serial = self.next_udp | UDP_SERIAL;
            if !self.by_serial.contains_key(&serial) {
                return serial;
            }
        }
    }

    fn insert(&mut self, flow: Flow, serial: u32, info: FlowInfo, now: Moment) {
        let state = FlowState {
            serial,
            info,
            users: BTreeMap::new(),
            endpoints: BTreeSet::new(),
            dialogs: 0,
            last_traffic: now,
            through: None,
            shed: false,
        };
        if let Flow::Udp { remote, .. } = flow {
            self.by_remote.insert(remote, flow);
        }
        self.states.insert(flow, state);
        self.by_serial.insert(serial, flow);
    }

    /// A flow's state.
    pub fn get(&self, flow: Flow) -> Option<&FlowState> {
        self.states.get(&flow)
    }

    /// A flow's state, to change.
    pub fn get_mut(&mut self, flow: Flow) -> Option<&mut FlowState> {
        self.states.get_mut(&flow)
    }

    /// The UDP flow of a remote address.
    pub fn udp_of(&self, remote: SocketAddr) -> Option<Flow> {
        self.by_remote.get(&remote).copied()
    }

    /// Whether we are closing a flow because we leave.
    pub fn is_shed(&self, flow: Flow) -> bool {
        self.states.get(&flow).is_some_and(|state| state.shed)
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Every flow.
    pub fn iter(&self) -> impl Iterator<Item = (Flow, &FlowState)> {
        self.states.iter().map(|(flow, state)| (*flow, state))
    }

    /// The flow of a serial number.
    pub fn by_serial(&self, serial: u32) -> Option<Flow> {
        self.by_serial.get(&serial).copied()
    }

    /// Notes who authenticated on a flow. False: too many users are on it.
    pub fn sign_in(&mut self, flow: Flow, user: UserRef, stamp: u64) -> bool {
        let Some(state) = self.states.get_mut(&flow) else { return true };
        if !state.users.contains_key(&user) {
            if state.users.len() >= MAX_USERS {
                return false;
            }
            self.by_user.entry(user).or_default().insert(flow);
        }
        state.users.insert(user, stamp);
        true
    }

    /// A user is no longer known on a flow. True: nobody else is either.
    pub fn sign_out(&mut self, flow: Flow, user: UserRef) -> bool {
        self.unlink(user, flow);
        self.states.get_mut(&flow).is_none_or(|state| {
            state.users.remove(&user);
            state.users.is_empty()
        })
    }

    fn unlink(&mut self, user: UserRef, flow: Flow) {
        if let Some(flows) = self.by_user.get_mut(&user) {
            flows.remove(&flow);
            if flows.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }

    /// Flows on which a user authenticated.
    pub fn of_user(&self, user: UserRef) -> Vec<Flow> {
        self.by_user.get(&user).map(|flows| flows.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets a flow; its last state.
    pub fn close(&mut self, flow: Flow) -> Option<FlowState> {
        let state = self.states.remove(&flow)?;
        self.by_serial.remove(&state.serial);
        if let Flow::Udp { remote, .. } = flow
            && self.by_remote.get(&remote) == Some(&flow)
        {
            self.by_remote.remove(&remote);
        }
        for user in state.users.keys() {
            self.unlink(*user, flow);
        }
        Some(state)
    }

    /// Number of connections, and of UDP flows with somebody signed in.
    pub fn counts(&self) -> (usize, usize) {
        let streams = self.states.keys().filter(|f| f.reliable()).count();
        (streams, self.states.len() - streams)
    }
}
