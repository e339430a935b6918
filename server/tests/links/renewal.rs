//! Certificates that are replaced while front ends run: the next handshake shows the new one, and goes by the new
//! authorities.

use std::sync::Arc;

use commpool_server::metrics::Metrics;
use commpool_server::peers::frame::Frame;
use commpool_server::peers::identity::{CurrentPeer, PeerIdentityError};
use commpool_server::peers::links::Links;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::identity::{Authority, Files, fixed};
use super::{Here, LONG, NAME, front_end, hello, own, ping};

type Leaf = CertificateDer<'static>;

/// What the server's process does every few seconds.
fn reload(current: &CurrentPeer) -> Result<bool, PeerIdentityError> {
    let read = current.load().reload(UnixTime::now())?;
    Ok(read.map(|identity| current.store(Arc::new(identity))).is_some())
}

fn leaf(current: &CurrentPeer) -> Leaf {
    current.load().leaf().clone()
}

/// The next connection that comes, and what it shows.
async fn comes(listener: &TcpListener, identity: &CurrentPeer) -> (TlsStream<TcpStream>, Leaf) {
    let accepted = async {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            if let Ok(stream) = TlsAcceptor::from(identity.load().server()).accept(socket).await {
                return stream;
            }
        }
    };
    let stream = timeout(LONG, accepted).await.expect("a link in time");
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    (stream, shown)
}

#[tokio::test]
async fn a_link_comes_back_with_the_new_certificate_and_then_with_the_new_authority() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    files.write(&old, NAME, &[&old]);
    let current = fixed(files.load());
    let (engine, _inputs) = mpsc::channel(64);
    let mut links = Links::new(own(2, Arc::clone(&current), engine, Arc::<Metrics>::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = fixed(old.identity(NAME));
    links.set(&[front_end(1, listener.local_addr().unwrap())]);
    // Calls and bulk.
    let mut standing = Vec::new();
    let first = leaf(&current);
    assert!(!reload(&current).unwrap(), "nothing has changed");
    for _ in 0..2 {
        let (stream, shown) = comes(&listener, &there).await;
        assert_eq!(shown, first);
        standing.push(stream);
    }

    files.write(&old, NAME, &[&old]);
    assert!(reload(&current).unwrap());
    let second = leaf(&current);
    assert_ne!(first, second);
    standing.clear();
    for _ in 0..2 {
        let (stream, shown) = comes(&listener, &there).await;
        assert_eq!(shown, second);
        standing.push(stream);
    }

    // The authority changes: both are trusted for a while, and leaves come from the new one.
    files.write(&new, NAME, &[&old, &new]);
    assert!(reload(&current).unwrap());
    let bundle = Files::new();
    bundle.write(&old, NAME, &[&old, &new]);
    there.store(Arc::new(bundle.load()));
    standing.clear();
    for _ in 0..2 {
        let (stream, shown) = comes(&listener, &there).await;
        assert_eq!(shown, leaf(&current));
        standing.push(stream);
    }
    // Those who are on the new authority alone are dialled as well.
    there.store(Arc::new(new.identity(NAME)));
    standing.clear();
    comes(&listener, &there).await;
}

/// What a front end shows to somebody who connects and speaks; whether it listens is seen by what comes in.
async fn dials(here: &Here, identity: &CurrentPeer) -> Option<(tokio_rustls::client::TlsStream<TcpStream>, Leaf)> {
    let socket = TcpStream::connect(here.address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = TlsConnector::from(identity.load().client()).connect(name, socket).await.ok()?;
    let octets = [Frame::Hello(hello(2, 1)).encode(), ping().encode()].concat();
    stream.write_all(&octets).await.ok()?;
    stream.flush().await.ok()?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    Some((stream, shown))
}

#[tokio::test]
async fn whoever_connects_is_shown_the_new_certificate_and_judged_by_the_new_authorities() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    files.write(&old, NAME, &[&old]);
    let current = fixed(files.load());
    let mut here = Here::with(Arc::clone(&current), 1, &[2]).await;
    let (of_old, of_new) = (fixed(old.identity(NAME)), Files::new());
    of_new.write(&new, NAME, &[&old, &new]);
    let of_new = fixed(of_new.load());

    let (mut standing, shown) = dials(&here, &of_old).await.unwrap();
    assert_eq!(shown, leaf(&current));
    here.next().await;
    // The client is through before it is judged.
    if let Some((mut stream, _)) = dials(&here, &of_new).await {
        let _ = stream.read(&mut [0; 64]).await;
    }
    here.refuses().await;

    files.write(&old, NAME, &[&old, &new]);
    assert!(reload(&current).unwrap());
    for identity in [&of_old, &of_new] {
        let (_stream, shown) = dials(&here, identity).await.unwrap();
        assert_eq!(shown, leaf(&current));
        here.next().await;
    }
    // What stood before stands.
    standing.write_all(&ping().encode()).await.unwrap();
    standing.flush().await.unwrap();
    here.next().await;
}

#[test]
fn files_that_do_not_fit_leave_the_old_certificate_in_use() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    files.write(&old, NAME, &[&old]);
    let current = fixed(files.load());
    let first = leaf(&current);
    let keeps = |why: &str| {
        let error = reload(&current).expect_err(why);
        assert_eq!(leaf(&current), first, "{why}");
        error.to_string()
    };
    files.put("tls.crt", "nothing");
    assert!(keeps("no certificate").contains("no certificate"));
    files.write(&old, NAME, &[&old]);
    files.put("tls.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    keeps("another's key");
    files.write(&new, NAME, &[&old]);
    keeps("a leaf that nobody who trusts the same would let in");
    files.write(&old, "alice.example.com", &[&old]);
    keeps("another name");
    files.write(&old, NAME, &[]);
    keeps("no authority");
    files.write(&old, NAME, &[&old]);
    assert!(reload(&current).unwrap(), "put right");
    assert_ne!(leaf(&current), first);
}
