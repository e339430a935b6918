//! A slow way to the database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commpool_harness::postgres::Settings;
use commpool_store::ops::register::Reply;
use commpool_store::postgres::Caller;
use commpool_store::{Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::database::as_server;
use crate::pool::{ANSWER, NAME, add, register, route_to, start, until, with_cluster};

/// Passes connections on and holds everything that comes back for a while.
struct Detour {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
}

impl Detour {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let delay = Arc::new(AtomicU64::new(0));
        let of_each = Arc::clone(&delay);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, Arc::new(AtomicU64::new(0))));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&of_each)));
            }
        });
        Self { address, delay }
    }

    fn slow(&self, delay: Duration) {
        self.delay.store(delay.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Arc<AtomicU64>,
) {
    let mut octets = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut octets).await {
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
        if to.write_all(&octets[..count]).await.is_err() {
            return;
        }
    }
}

#[test]
fn what_is_slow_is_waited_for_and_what_is_too_slow_is_not() {
    with_cluster("a slow database", &Settings::default(), |cluster| async move {
        let detour = Detour::to(cluster.port()).await;
        let mut options = as_server(&cluster, NAME);
        options.port = detour.address.port();
        let store = Store::open_postgres(options).unwrap();
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        assert!(store.ask(register(alice, fe, 1, 1)).await.is_ok());

        detour.slow(Duration::from_millis(200));
        for cseq in 2..6 {
            let asked = Instant::now();
            assert!(matches!(store.ask(register(alice, fe, 1, cseq)).await, Ok(Reply::Done(_))));
            assert!((200..1500).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
        }
        // A little more than is waited for.
        detour.slow(Duration::from_millis(2300));
        let asked = Instant::now();
        let answer = store.ask(register(alice, fe, 1, 6)).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "it was carried out and nobody heard of it: {answer:?}");
        assert!(asked.elapsed() < ANSWER);
        let refused = until(&store, Duration::from_secs(10), || route_to("alice"), Result::is_err).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "a read has changed nothing: {refused:?}");
        detour.slow(Duration::ZERO);
        until(&store, Duration::from_secs(10), || route_to("alice"), Result::is_ok).await.unwrap();
        let again = until(&store, Duration::from_secs(10), || register(alice, fe, 1, 6), Result::is_ok).await;
        let Ok(Reply::Done(done)) = again else { panic!("{again:?}") };
        assert!(done.replay, "the same transaction is known");
        store.close();
    });
}

#[test]
fn an_administrator_waits_where_a_client_cannot() {
    with_cluster("a slow beginning", &Settings::default(), |cluster| async move {
        let detour = Detour::to(cluster.port()).await;
        let mut options = as_server(&cluster, NAME);
        options.port = detour.address.port();
        // Nobody has greeted whom by the time a client must be answered.
        detour.slow(Duration::from_millis(700));
        let store = Store::open_postgres(options.clone()).unwrap();
        let answer = store.ask(route_to("nobody")).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        store.close();
        options.caller = Caller::Administrator;
        let store = Store::open_postgres(options).unwrap();
        assert!(store.ask(route_to("nobody")).await.unwrap().found.is_none());
        store.close();
    });
}
