//! The closed loop: 200 clients, 32 operations under way at any time, one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::subject::{FRONT_ENDS, Subject, USERS, domain, password, user};
use super::wire::{Wire, answer, find, row, status};
use super::{Sample, subject};
use crate::cpu;
use crate::link::Transport;

/// Operations under way at any time.
const UNDER_WAY: usize = 32;

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// REGISTER, 401, REGISTER with credentials, 200.
    Register,
    /// MESSAGE, 407, MESSAGE with credentials, delivered, 200 back.
    Message,
    /// The same to somebody on another front end.
    MessageElsewhere,
}

impl Operation {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Message => "MESSAGE",
            Self::MessageElsewhere => "MESSAGE to another front end",
        }
    }

    /// Which front end a client is on: as many on each, partners together unless they shall not be.
    const fn place(self, number: usize) -> usize {
        match self {
            Self::Register | Self::Message => number % FRONT_ENDS,
            Self::MessageElsewhere => (number + number / (USERS / 2)) % FRONT_ENDS,
        }
    }
}

/// One user's client.
struct Client {
    wire: Wire,
    number: usize,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Client {
    async fn open(subject: &Subject, transport: Transport, number: usize, front_end: usize) -> Result<Self> {
        let wire = Wire::open(&subject.target(transport, front_end)?).await?;
        Ok(Self { wire, number, sequence: 0, buffer: Vec::new() })
    }

    /// Header rows that every request begins with, and the branch that its answers will carry.
    fn head(&mut self, method: &str, uri: &str, to: &str, call: &str) -> (String, String) {
        self.sequence += 1;
        let (sequence, local, transport) = (self.sequence, self.wire.local(), self.wire.transport());
        let (name, domain) = (user(self.number), domain());
        let branch = format!("z9hG4bK{}x{sequence}x{}", local.port(), self.number);
        let head = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:{name}@{domain}>;tag={}\r\nTo: <{to}>\r\nCall-ID: {call}\r\nCSeq: {sequence} {method}\r\n",
            local.port()
        );
        (head, branch)
    }

    /// Receives until the final answer to a branch is there.
    async fn answered(&mut self, branch: &str) -> Result<u16> {
        loop {
            self.wire.receive(&mut self.buffer).await?;
            let status = status(&self.buffer);
            if status >= 200 && row(&self.buffer, "via:").is_some_and(|via| via.contains(branch)) {
                return Ok(status);
            }
        }
    }

    fn credentials(&self, method: &str, uri: &str) -> Result<String> {
        answer(&self.buffer, &user(self.number), &password(self.number), method, uri)
    }

    async fn register(&mut self) -> Result<()> {
        let (name, domain, local) = (user(self.number), domain(), self.wire.local());
        let (uri, to) = (format!("sip:{domain}"), format!("sip:{name}@{domain}"));
        let transport = self.wire.transport().name();
        let rest =
            format!("Contact: <sip:{name}@{local};transport={transport}>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n");
        let call = format!("register-{}@{local}", self.number);
        let (head, branch) = self.head("REGISTER", &uri, &to, &call);
        self.wire.send(&format!("{head}{rest}")).await?;
        ensure!(self.answered(&branch).await? == 401, "no challenge: {}", String::from_utf8_lossy(&self.buffer));
        let credentials = self.credentials("REGISTER", &uri)?;
        let (head, branch) = self.head("REGISTER", &uri, &to, &call);
        self.wire.send(&format!("{head}{credentials}{rest}")).await?;
        ensure!(self.answered(&branch).await? == 200, "refused: {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    async fn message(&mut self, peer: &mut Self) -> Result<()> {
        let to = format!("sip:{}@{}", user(peer.number), domain());
        let call = format!("message-{}-{}@{}", self.number, self.sequence, self.wire.local());
        let body = format!("This is text number {:08} of a conversation that goes on and on.", self.sequence);
        let rest = format!("Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (head, branch) = self.head("MESSAGE", &to, &to, &call);
        self.wire.send(&format!("{head}{rest}")).await?;
        ensure!(self.answered(&branch).await? == 407, "no challenge: {}", String::from_utf8_lossy(&self.buffer));
        let credentials = self.credentials("MESSAGE", &to)?;
        let (head, branch) = self.head("MESSAGE", &to, &to, &call);
        self.wire.send(&format!("{head}{credentials}{rest}")).await?;
        peer.delivered(&call).await?;
        ensure!(self.answered(&branch).await? == 200, "not delivered: {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    /// Receives and answers requests until the one of a call is among them: a server may retransmit an older one.
    async fn delivered(&mut self, call: &str) -> Result<()> {
        loop {
            self.wire.receive(&mut self.buffer).await?;
            if status(&self.buffer) != 0 {
                continue;
            }
            let (reply, ours) = (self.reply()?, find(&self.buffer, call.as_bytes()).is_some());
            self.wire.send(&reply).await?;
            if ours {
                return Ok(());
            }
        }
    }

    /// 200 to the request in the buffer.
    fn reply(&self) -> Result<String> {
        let text = std::str::from_utf8(&self.buffer)?;
        let head = text.split_once("\r\n\r\n").context("no end of header")?.0;
        let mut out = String::with_capacity(512);
        out.push_str("SIP/2.0 200 OK\r\n");
        for line in head.lines().skip(1) {
            let name = line.split(':').next().unwrap_or_default();
            match name {
                "Via" | "From" | "Call-ID" | "CSeq" => out.extend([line, "\r\n"]),
                "To" => out.extend([line, ";tag=r\r\n"]),
                _ => {}
            }
        }
        out.push_str("Content-Length: 0\r\n\r\n");
        Ok(out)
    }
}

/// A party of one or two clients that does operations by itself.
enum Party {
    One(Client),
    Two(Client, Client),
}

impl Party {
    async fn operate(&mut self) -> Result<()> {
        match self {
            Self::One(client) => client.register().await,
            Self::Two(sender, receiver) => sender.message(receiver).await,
        }
    }
}

/// What the tasks of a run share.
struct Loop {
    idle: VecDeque<Party>,
    left: u64,
    failed: u64,
    first_failure: Option<String>,
    latencies: Vec<Duration>,
}

/// Opens all clients of a workload and signs them in.
async fn parties(subject: &Subject, operation: Operation, transport: Transport) -> Result<VecDeque<Party>> {
    let mut clients = Vec::with_capacity(USERS);
    for number in 0..USERS {
        let mut client = Client::open(subject, transport, number, operation.place(number)).await?;
        client.register().await.with_context(|| format!("user {number} cannot sign in"))?;
        clients.push(client);
    }
    let mut parties = VecDeque::new();
    match operation {
        Operation::Register => parties.extend(clients.into_iter().map(Party::One)),
        Operation::Message | Operation::MessageElsewhere => {
            let receivers = clients.split_off(USERS / 2);
            parties.extend(clients.into_iter().zip(receivers).map(|(sender, receiver)| Party::Two(sender, receiver)));
        }
    }
    Ok(parties)
}

/// Does `count` operations with all clients in turn, [`UNDER_WAY`] at a time, and gives the clients back.
async fn turn(idle: VecDeque<Party>, count: u64) -> Result<(VecDeque<Party>, Vec<Duration>, u64)> {
    let shared = Rc::new(RefCell::new(Loop {
        idle,
        left: count,
        failed: 0,
        first_failure: None,
        latencies: Vec::with_capacity(usize::try_from(count).unwrap_or(0)),
    }));
    let tasks: Vec<_> = (0..UNDER_WAY).map(|_| tokio::task::spawn_local(work(Rc::clone(&shared)))).collect();
    for task in tasks {
        task.await?;
    }
    let done = Rc::try_unwrap(shared).ok().context("a task is still at work")?.into_inner();
    if let Some(failure) = &done.first_failure
        && done.failed > count / 20
    {
        bail!("{} of {count} operations failed, the first: {failure}", done.failed);
    }
    Ok((done.idle, done.latencies, done.failed))
}

async fn work(shared: Rc<RefCell<Loop>>) {
    loop {
        let mut party = {
            let mut state = shared.borrow_mut();
            if state.left == 0 {
                return;
            }
            state.left -= 1;
            let Some(party) = state.idle.pop_front() else { return };
            party
        };
        let start = Instant::now();
        let result = party.operate().await;
        let mut state = shared.borrow_mut();
        match result {
            Ok(()) => state.latencies.push(start.elapsed()),
            Err(error) => {
                state.failed += 1;
                state.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        state.idle.push_back(party);
    }
}

/// Runs a load against a fresh server: a tenth of the operations to warm up, then the ones that count.
///
/// # Errors
/// When clients cannot sign in, or more than one operation in twenty fails.
pub fn run(subject: &subject::Subject, operation: Operation, transport: Transport, count: u64) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let idle = parties(subject, operation, transport).await?;
        let (idle, _, _) = turn(idle, count / 10).await?;
        let (server, own) = (subject.processor_time()?, cpu::own_time()?);
        let database = subject.database_time();
        let start = Instant::now();
        let (_idle, mut latencies, failed) = turn(idle, count).await?;
        let took = start.elapsed().as_secs_f64();
        let spent = subject.processor_time()?.saturating_sub(server).as_secs_f64();
        let database = subject.database_time().saturating_sub(database).as_secs_f64();
        let generator = cpu::own_time()?.saturating_sub(own).as_secs_f64();
        latencies.sort_unstable();
        let part = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
        let thousands = (count - failed) as f64 / 1000.0;
        Ok(Sample {
            cpu_per_thousand: spent / thousands,
            database: database / thousands,
            rate: (count - failed) as f64 / took,
            median: part(50),
            slow: part(99),
            failed,
            generator: generator / thousands,
        })
    }))
}
