//! SIPp signs in, sends and receives.

use anyhow::Result;
use commpool_tests::link::Transport;
use commpool_tests::server::{Server, Setup};
use commpool_tests::sipp::Run;

/// A server for SIPp, which takes up MD5 only, and only if nothing else is offered.
fn server() -> Result<Server> {
    Server::with(Setup { digest: Some("MD5".to_owned()), ..Setup::default() })
}

async fn by(transport: Transport) -> Result<()> {
    let server = server()?;
    let run = |scenario, user: &str, calls| -> Result<Run> {
        Ok(Run {
            scenario,
            server: server.target(transport)?.address,
            transport,
            identity: server.identity(user)?,
            to: "bob".to_owned(),
            calls,
        })
    };
    run("register", "alice", 5)?.start(server.folder())?.finish()?;
    let bob = run("stay", "bob", 1)?.start(server.folder())?;
    bob.wait_for("SIP/2.0 200 OK")?;
    let beside = server.signed_in("bob", Transport::Tls).await?;
    run("message", "alice", 3)?.start(server.folder())?.finish()?;
    bob.wait_for("\nMESSAGE sip:")?;
    // SIPp ends a body with a line end.
    beside.hears("text number 3\r\n").await?;
    drop(bob);
    server.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_udp() -> Result<()> {
    by(Transport::Udp).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_tcp() -> Result<()> {
    by(Transport::Tcp).await
}
