//! Health, readiness and metrics by HTTP, on a port of their own. Nothing here changes state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::directory::LastRun;

/// An engine that has not turned for so long is stuck, µs.
const STUCK: u64 = 30_000_000;

/// What the management port tells.
#[derive(Debug)]
pub struct Management {
    /// Whether new clients are welcome: own state only, never whether the store is there.
    pub ready: AtomicBool,
    heartbeat: Arc<AtomicU64>,
    registry: Registry,
    waits_for: Mutex<Option<String>>,
    /// What the replicator came to last, in Standard Edition.
    pub directory: LastRun,
}

impl Management {
    /// `heartbeat`: when the engine's task last turned, µs of the boot-time clock.
    pub fn new(heartbeat: Arc<AtomicU64>, registry: Registry) -> Self {
        let ready = AtomicBool::new(false);
        Self { ready, heartbeat, registry, waits_for: Mutex::new(None), directory: LastRun::default() }
    }

    /// Why it does not serve. While it waits for its store its engine does not turn, and it is well all the same.
    pub fn waits_for(&self, reason: Option<String>) {
        self.heartbeat.store(clock::now().as_micros(), Ordering::Relaxed);
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn waiting(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves the management port until cancelled.
pub async fn serve(
    listener: std::net::TcpListener,
    management: Arc<Management>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/directory", get(directory))
        .with_state(management);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds the management port.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

async fn health(State(management): State<Arc<Management>>) -> impl IntoResponse {
    let silent = clock::now().as_micros().saturating_sub(management.heartbeat.load(Ordering::Relaxed));
    if silent < STUCK {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the engine stands still\n")
    }
}

async fn readiness(State(management): State<Arc<Management>>) -> impl IntoResponse {
    if management.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let reason = management.waiting().map_or_else(|| "not ready\n".to_owned(), |why| format!("not ready: {why}\n"));
        (StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

/// What the replicator came to last: 204 where it has not run.
async fn directory(State(management): State<Arc<Management>>) -> impl IntoResponse {
    match management.directory.get().map(|outcome| serde_json::to_string(&outcome)) {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Some(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(management): State<Arc<Management>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &management.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
