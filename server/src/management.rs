//! Health, readiness and metrics by HTTP, on a port of their own. Nothing here changes state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// An engine that has not turned for so long is stuck, µs.
const STUCK: u64 = 30_000_000;

/// What the management port tells.
#[derive(Debug)]
pub struct Management {
    /// Whether new clients are welcome: own state only, never the store's.
    pub ready: AtomicBool,
    /// When the engine's task last turned, µs of the boot-time clock.
    pub heartbeat: Arc<AtomicU64>,
    /// All metrics.
    pub registry: Registry,
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
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
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
