//! Asks the server of Standard Edition what its last run over the directory came to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::directory::{MAX_OUTCOME, Outcome};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where the server answers.
const PATH: &str = "/directory";
/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most octets of an answer.
const LIMIT: usize = 2 * MAX_OUTCOME;

/// Asks a server at its management port; `None`: it has not run yet.
pub type Ask = Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, Result<Option<Outcome>, AskError>> + Send + Sync>;

/// Why a server does not say what its last run came to; in words that do not change from try to try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It does not answer in time.
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// It cannot be reached, or breaks off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answers with another status.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It answers with something else.
    #[error("its answer is too long or no outcome")]
    Form,
}

/// Asks over the network.
pub fn over_network() -> Ask {
    Arc::new(|address| fetch(address).boxed())
}

/// Asks the server at `address`.
///
/// # Errors
/// If it does not say what it should in time.
pub async fn fetch(address: SocketAddr) -> Result<Option<Outcome>, AskError> {
    tokio::time::timeout(PATIENCE, exchange(address)).await.unwrap_or(Err(AskError::Late))
}

async fn exchange(address: SocketAddr) -> Result<Option<Outcome>, AskError> {
    let stream = TcpStream::connect(address).await.map_err(|error| AskError::Unreachable(error.kind().to_string()))?;
    let broken = |_| AskError::Unreachable("it breaks off".into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get(PATH)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| AskError::Form)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(None),
            other => return Err(AskError::Status(other.as_u16())),
        }
        let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|_| AskError::Form)?;
        serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|_| AskError::Form)
    };
    // the connection moves while the answer is awaited, and ends with it
    let connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answered => answer,
        () = connection => Err(AskError::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commpool_model::directory::{Counts, RunResult};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What is made of an answer; `None`: the server never gives one.
    async fn answered(answer: Option<String>) -> Result<Option<Outcome>, AskError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /directory HTTP/1.1\r\n"));
            match answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => std::future::pending().await,
            }
        };
        let asked = fetch(address);
        tokio::pin!(asked, server);
        tokio::select! {
            answer = &mut asked => answer,
            () = &mut server => asked.await,
        }
    }

    fn with_body(body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    #[tokio::test]
    async fn an_outcome_is_read() {
        let outcome = Outcome {
            result: RunResult::Synced,
            message: "done".into(),
            started: "2026-11-24T10:00:00Z".into(),
            finished: "2026-11-24T10:00:01Z".into(),
            found: 7,
            counts: Counts::default(),
            conflicts: Vec::new(),
            plan_digest: String::new(),
        };
        let body = serde_json::to_string(&outcome).unwrap();
        assert_eq!(answered(with_body(&body)).await, Ok(Some(outcome)));
        assert_eq!(answered(Some("HTTP/1.1 204 No Content\r\n\r\n".into())).await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_no_outcome_is_an_error_of_few_words() {
        assert_eq!(answered(with_body("{}")).await, Err(AskError::Form));
        assert_eq!(answered(with_body(&" ".repeat(10_000))).await, Err(AskError::Form));
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answered(Some(gone.into())).await, Err(AskError::Status(404)));
        assert!(matches!(answered(Some("no HTTP at all\r\n\r\n".into())).await, Err(AskError::Unreachable(_))));
        assert_eq!(answered(None).await, Err(AskError::Late));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(fetch(closed).await, Err(AskError::Unreachable(_))));
    }
}
