//! Connections that are not let in: each is counted, and nothing of it reaches the engine.

use bytes::{BufMut, Bytes, BytesMut};
use commpool_model::ids::{EndpointId, Incarnation};
use commpool_server::peers::frame::{Frame, Hello};
use commpool_server::peers::identity::PeerIdentity;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Here, NAME, hello, ping};
use crate::identity::Authority;

/// Connects as somebody and says something, whatever the other side thinks of it.
async fn says(here: &Here, identity: &PeerIdentity, octets: &[u8]) {
    let socket = TcpStream::connect(here.address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    // In TLS 1.3 the client is through before the server has looked at its certificate.
    if let Ok(mut stream) = TlsConnector::from(identity.client()).connect(name, socket).await {
        let _ = stream.write_all(octets).await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut [0; 64]).await;
    }
}

fn all(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.encode().to_vec()).collect()
}

async fn refused_after(first: &[Frame], then: &[u8]) {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[2]).await;
    says(&here, &authority.identity(NAME), &[all(first), then.to_vec()].concat()).await;
    here.refuses().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let mut here = Here::start(&authority, 1, &[2]).await;
    let identity = authority.identity_of(&foreign, NAME);
    says(&here, &identity, &all(&[Frame::Hello(hello(2, 1)), ping()])).await;
    here.refuses().await;
}

#[tokio::test]
async fn another_name_from_the_same_authority() {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[2]).await;
    says(&here, &authority.identity("alice.example.com"), &all(&[Frame::Hello(hello(2, 1)), ping()])).await;
    here.refuses().await;
}

#[tokio::test]
async fn no_certificate_and_no_tls_at_all() {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[2]).await;
    let mut socket = TcpStream::connect(here.address).await.unwrap();
    socket.write_all(&all(&[Frame::Hello(hello(2, 1)), ping()])).await.unwrap();
    let _ = socket.read(&mut [0; 64]).await;
    here.refuses().await;
}

#[tokio::test]
async fn a_hello_for_another_incarnation() {
    // So too all that was recorded from a connection to the one before.
    refused_after(&[Frame::Hello(hello(2, 9)), ping()], &[]).await;
}

#[tokio::test]
async fn a_hello_of_another_pool() {
    refused_after(&[Frame::Hello(Hello { pool: "example.net".to_owned(), ..hello(2, 1) }), ping()], &[]).await;
}

#[tokio::test]
async fn a_hello_with_a_protocol_from_the_far_future() {
    refused_after(&[Frame::Hello(Hello { protocol: (90, 80), ..hello(2, 1) }), ping()], &[]).await;
}

#[tokio::test]
async fn a_front_end_that_the_directory_does_not_name() {
    refused_after(&[Frame::Hello(hello(3, 1)), ping()], &[]).await;
}

#[tokio::test]
async fn frames_before_any_hello() {
    refused_after(&[ping(), Frame::Hello(hello(2, 1))], &[]).await;
}

#[tokio::test]
async fn a_second_hello() {
    refused_after(&[Frame::Hello(hello(2, 1)), Frame::Hello(hello(3, 1)), ping()], &[]).await;
}

#[tokio::test]
async fn a_frame_of_an_impossible_length() {
    refused_after(&[Frame::Hello(hello(2, 1))], &[0xff; 64]).await;
    refused_after(&[Frame::Hello(hello(2, 1))], &[0; 64]).await;
}

/// A frame whose contents make no sense.
fn forged() -> Bytes {
    let unbound = Frame::Unbound(EndpointId(5)).encode();
    let mut forged = BytesMut::from(unbound.as_ref());
    // One octet of the field's length.
    if let Some(octet) = forged.get_mut(9) {
        *octet = octet.wrapping_add(1);
    }
    forged.put_slice(&ping().encode());
    forged.freeze()
}

#[tokio::test]
async fn a_forged_frame() {
    refused_after(&[Frame::Hello(hello(2, 1))], &forged()).await;
}

#[tokio::test]
async fn and_those_before_it_have_come_in() {
    let authority = Authority::new();
    let mut here = Here::start(&authority, 1, &[2]).await;
    let octets = [all(&[Frame::Hello(hello(2, 1)), ping()]), forged().to_vec()].concat();
    says(&here, &authority.identity(NAME), &octets).await;
    assert_eq!(here.next().await, (Incarnation(2), ping()));
    here.refuses().await;
}
