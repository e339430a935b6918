//! The hot operations against a store of any backend, with some requests under way at any time.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use commpool_model::ids::{Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::{Availability, State};
use commpool_store::ops::accounts::{self, PutReply};
use commpool_store::ops::presence::{Action, Publish, Published};
use commpool_store::ops::register::{Binding, Contacts, Reply as Registered, Request};
use commpool_store::ops::{FlowRef, Operation, Outcome, Transport, front_ends, route};
use commpool_store::{Reply, Store, StoreError};
use rustix::time::{ClockId, clock_gettime};

const USERS: u64 = 20_000;
/// Devices of each user.
const DEVICES: u64 = 2;

/// What a request comes to.
pub(crate) type Answer = Result<Outcome, StoreError>;

/// A store with users who are signed in.
pub(crate) struct Bench {
    store: Store,
    fe: Incarnation,
    users: Vec<UserRef>,
    answer: Sender<Answer>,
    answers: Receiver<Answer>,
    /// Counts requests: makes each its own transaction.
    serial: u64,
}

impl Bench {
    /// Fills an empty store.
    pub(crate) fn new(store: Store) -> Self {
        let (answer, answers) = mpsc::channel();
        let mut bench = Self { store, fe: Incarnation(0), users: vec![], answer, answers, serial: 0 };
        let start = front_ends::Start {
            pod: "bench".to_owned(),
            start_id: [1; 16],
            address: String::new(),
            build: String::new(),
            alone: true,
        };
        bench.closed_loop(
            1,
            1,
            |_, _| start.clone().into(),
            |bench, answer| match answer {
                Ok(Outcome::FrontEndStart(started)) => bench.fe = started.fe,
                other => panic!("{other:?}"),
            },
        );
        let add = |_: &Self, n| accounts::Put::Add { address: address(n), display_name: String::new() }.into();
        bench.closed_loop(128, USERS, add, |bench, answer| match answer {
            Ok(Outcome::AccountPut(PutReply::Done(user))) => bench.users.push(user),
            other => panic!("{other:?}"),
        });
        bench.closed_loop(128, USERS * DEVICES, Self::register, Self::registered);
        bench
    }

    /// Keeps `clients` requests under way until `count` are answered.
    pub(crate) fn closed_loop(
        &mut self,
        clients: usize,
        count: u64,
        mut make: impl FnMut(&Self, u64) -> Operation,
        mut check: impl FnMut(&mut Self, Answer),
    ) {
        let mut sent = 0;
        let mut answered = 0;
        let mut free = clients;
        while answered < count {
            let mut batch: Vec<(Operation, Reply)> = Vec::with_capacity(free);
            while free > 0 && sent < count {
                self.serial += 1;
                let answer = self.answer.clone();
                let operation = make(self, self.serial);
                batch.push((operation, Box::new(move |outcome| answer.send(outcome).unwrap())));
                sent += 1;
                free -= 1;
            }
            if !batch.is_empty() {
                self.store.submit_many(batch);
            }
            let mut next = Some(self.answers.recv().unwrap());
            while let Some(answer) = next {
                check(self, answer);
                answered += 1;
                free += 1;
                next = self.answers.try_recv().ok();
            }
        }
    }

    fn user(&self, n: u64) -> UserRef {
        self.users[usize::try_from(n % USERS).unwrap()]
    }

    /// The next REGISTER of one of the user's devices, which rises in CSeq: every one but the first is a refresh.
    pub(crate) fn register(&self, serial: u64) -> Operation {
        let n = scattered(serial);
        let device = u8::try_from(n / USERS % DEVICES).unwrap();
        let user = self.user(n);
        let mut key = [device + 1; 16];
        key[8..].copy_from_slice(&user.id.0.to_be_bytes());
        let contact = format!("sip:user-{}@192.0.2.{device}:50{device}60;transport=tls", user.id.0);
        let binding = Binding {
            key: Key128(key),
            contact_value: format!(
                "<{contact}>;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-{:012}>\"",
                user.id.0
            ),
            contact,
            q: 1000,
            path: vec![],
            instance: Some(format!("urn:uuid:00000000-0000-0000-{device:04}-{:012}", user.id.0)),
            reg_id: None,
            expires: 1800,
        };
        Request {
            user,
            origin: Origin(u128::from(serial).to_be_bytes()),
            call_id: format!("{:032x}", user.id.0 * DEVICES + u64::from(device)),
            cseq: u32::try_from(serial).unwrap(),
            flow: FlowRef {
                fe: self.fe,
                serial: u32::try_from(n).unwrap(),
                transport: Transport::Tls,
                remote: format!("192.0.2.{device}:40000"),
            },
            agent: "Linphone/5.2.0 (belle-sip/5.2.0)".to_owned(),
            contacts: Contacts::Each(vec![binding]),
            unreachable: Vec::new(),
        }
        .into()
    }

    pub(crate) fn registered(&mut self, answer: Answer) {
        match answer {
            Ok(Outcome::Register(Registered::Done(done))) => assert!(!done.replay),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn route(&self, serial: u64) -> Operation {
        let name = |n: u64| address(USERS_BEGIN + scattered(n) % USERS);
        route::Request { target: name(serial), sender: name(serial + 1) }.into()
    }

    pub(crate) fn routed(&mut self, answer: Answer) {
        match answer {
            Ok(Outcome::Route(reply)) => assert_eq!(reply.found.unwrap().endpoints.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&self, serial: u64) -> Operation {
        let n = scattered(serial);
        let state = State { availability: Availability::Busy, note: Some(serial.to_string()), ..State::default() };
        Publish {
            user: self.user(n),
            origin: Origin(u128::from(serial).to_be_bytes()),
            flow: FlowRef {
                fe: self.fe,
                serial: u32::try_from(n).unwrap(),
                transport: Transport::Tls,
                remote: "192.0.2.1:40000".to_owned(),
            },
            endpoint: None,
            if_match: None,
            tag: Key128(u128::from(serial).to_be_bytes()),
            action: Action::Set { expires: 3600, state: Box::new(state), document: vec![b'x'; 900] },
        }
        .into()
    }

    pub(crate) fn published(&mut self, answer: Answer) {
        assert!(matches!(answer, Ok(Outcome::Publish(Published::Done { replay: false, .. }))), "{answer:?}");
    }
}

/// Number of the first request that added a user.
const USERS_BEGIN: u64 = 2;

fn address(n: u64) -> String {
    format!("user-{n}@example.com")
}

/// Spreads consecutive numbers over all devices: a permutation of them.
const fn scattered(n: u64) -> u64 {
    n.wrapping_mul(15_485_863) % (USERS * DEVICES)
}

/// Makes a request with a number.
pub(crate) type Make = fn(&Bench, u64) -> Operation;
/// Looks at the answer.
pub(crate) type Check = fn(&mut Bench, Answer);

/// What is measured.
pub(crate) const OPERATIONS: [(&str, Make, Check); 3] = [
    ("register", Bench::register, Bench::registered),
    ("route", Bench::route, Bench::routed),
    ("publish", Bench::publish, Bench::published),
];

/// Processor time of this process so far, user and system.
pub(crate) fn own_processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}
