//! Links between front ends over real connections: what is let in, and what is refused and counted.

mod identity;
mod refused;
mod renewal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use commpool_model::ids::Incarnation;
use commpool_server::engine::Input;
use commpool_server::metrics::Metrics;
use commpool_server::peers::frame::{Class, Frame, Hello, PROTOCOL, Ping};
use commpool_server::peers::identity::CurrentPeer;
use commpool_server::peers::links::{Incoming, Links, Own};
use commpool_store::ops::front_ends::{FrontEnd, State};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use identity::{Authority, fixed};

const POOL: &str = "example.com";
const NAME: &str = "pool-peers.ns.svc";
/// Long enough for any machine; nothing waits so long unless the test fails.
const LONG: Duration = Duration::from_secs(20);

/// A front end's side: it accepts, and what it lets in can be read.
struct Here {
    address: SocketAddr,
    inputs: mpsc::Receiver<Input>,
    known: watch::Sender<Vec<Incarnation>>,
    registry: Registry,
    stop: CancellationToken,
}

fn own(fe: u32, identity: CurrentPeer, engine: mpsc::Sender<Input>, metrics: Arc<Metrics>) -> Own {
    let (pool, build) = (POOL.to_owned(), "test".to_owned());
    Own { pool, fe: Incarnation(fe), build, identity, engine, metrics }
}

impl Here {
    async fn start(authority: &Authority, fe: u32, knows: &[u32]) -> Self {
        Self::with(fixed(authority.identity(NAME)), fe, knows).await
    }

    async fn with(identity: CurrentPeer, fe: u32, knows: &[u32]) -> Self {
        let (engine, inputs) = mpsc::channel(64);
        let (metrics, mut registry) = (Arc::new(Metrics::default()), Registry::default());
        metrics.register(&mut registry);
        let (known, others) = watch::channel(knows.iter().copied().map(Incarnation).collect());
        let stop = CancellationToken::new();
        let own = own(fe, identity, engine, metrics);
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let incoming = Arc::new(Incoming { own, known: others, stop: stop.clone() });
        tokio::spawn(incoming.run(listener));
        Self { address, inputs, known, registry, stop }
    }

    /// What came in next, links going up and down left out.
    async fn next(&mut self) -> (Incarnation, Frame) {
        loop {
            match timeout(LONG, self.inputs.recv()).await.expect("a frame in time") {
                Some(Input::Frame { from, frame }) => return (from, frame),
                Some(_) => {}
                None => panic!("the front end has ended"),
            }
        }
    }

    /// Connections refused so far.
    fn refused(&self) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("peers_refused_total ")).unwrap();
        line.parse().unwrap()
    }

    /// Waits until a connection has been refused, and sees that it brought nothing in.
    async fn refuses(&mut self) {
        timeout(LONG, async {
            while self.refused() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("a refusal in time");
        while let Ok(input) = self.inputs.try_recv() {
            assert!(!matches!(input, Input::Frame { .. }), "{input:?} was let in");
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn ping() -> Frame {
    Frame::Ping(Ping { renewed: 7 })
}

fn hello(from: u32, to: u32) -> Hello {
    let (pool, build) = (POOL.to_owned(), "test".to_owned());
    let (from, to) = (Incarnation(from), Incarnation(to));
    Hello { pool, from, to, build, protocol: PROTOCOL, class: Class::Calls }
}

fn front_end(fe: u32, address: SocketAddr) -> FrontEnd {
    let fe = Incarnation(fe);
    FrontEnd { fe, address: address.to_string(), build: "test".to_owned(), state: State::Serving }
}

#[tokio::test]
async fn frames_of_a_front_end_of_the_pool_come_in_under_its_incarnation() {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[2]).await;
    let (engine, mut there) = mpsc::channel(64);
    let mut links = Links::new(own(2, fixed(authority.identity(NAME)), engine, Arc::default()));
    links.set(&[front_end(1, here.address)]);
    let up = timeout(LONG, there.recv()).await.unwrap();
    assert!(matches!(up, Some(Input::Link { fe: Incarnation(1), up: true })), "{up:?}");
    links.send(Incarnation(1), ping()).unwrap();
    assert_eq!(here.next().await, (Incarnation(2), ping()));
    assert_eq!(here.refused(), 0);
    assert!(links.send(Incarnation(3), ping()).is_err(), "nobody knows the third");
}

#[tokio::test]
async fn a_front_end_that_has_just_started_is_let_in_when_the_directory_names_it() {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[]).await;
    let (engine, _there) = mpsc::channel(64);
    let mut links = Links::new(own(2, fixed(authority.identity(NAME)), engine, Arc::default()));
    links.set(&[front_end(1, here.address)]);
    links.send(Incarnation(1), ping()).unwrap();
    here.known.send_replace(vec![Incarnation(2)]);
    assert_eq!(here.next().await, (Incarnation(2), ping()));
}

/// Every frame sent is either taken or given back: 5 MiB do not fit a queue of 4.
#[tokio::test]
async fn a_queue_that_is_full_gives_the_frame_back() {
    let authority = Authority::new();
    let (engine, _there) = mpsc::channel(64);
    let mut links = Links::new(own(2, fixed(authority.identity(NAME)), engine, Arc::default()));
    // Nobody listens there: what is queued stays until the first attempt has failed.
    links.set(&[front_end(1, "127.0.0.1:9".parse().unwrap())]);
    let large = || Frame::Emit { remote: "192.0.2.1:5060".parse().unwrap(), octets: vec![0; 200 * 1024].into() };
    let mut taken = BTreeMap::new();
    for _ in 0..25 {
        *taken.entry(links.send(Incarnation(1), large()).is_ok()).or_insert(0) += 1;
    }
    assert_eq!(taken, BTreeMap::from([(true, 20), (false, 5)]));
}
