//! The operator's process: flags, logs, management server, controller.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use commpool_operator::controller::{Context, World};
use commpool_operator::management;
use commpool_operator::metrics::Metrics;
use commpool_operator::report;
use commpool_operator::validate::Environment;
use commpool_operator::version;
use commpool_operator::watch::{Scope, run, until_listed};
use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Makes running pools of CommunicationsPool resources.
#[derive(Debug, Parser)]
#[command(name = "commpool-operator", version = version::LONG)]
struct Flags {
    /// Namespace whose pools are served; all if absent
    #[arg(long)]
    namespace: Option<String>,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:9090")]
    management: SocketAddr,
    /// Form of a log line
    #[arg(long, value_enum, default_value = "json")]
    log_format: LogFormat,
    /// What is logged, such as info or commpool_operator=debug
    #[arg(long, default_value = "info")]
    log_level: String,
    /// Name of this process in events; the host name if absent
    #[arg(long)]
    instance: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match start(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(flags: Flags) -> anyhow::Result<()> {
    logs(&flags);
    // one provider for all TLS of the process; kube would otherwise have to guess
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    .boxed()
    .shared();

    let environment = Environment::default();
    let metrics = Arc::new(Metrics::new(&environment.version));
    let ready = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(flags.management)
        .await
        .with_context(|| format!("cannot listen on {}; set --management", flags.management))?;
    let served = tokio::spawn(management::serve(listener, metrics.clone(), ready.clone(), ended.clone()));

    let client = kube::Client::try_default()
        .await
        .context("cannot find the API server: neither a service account nor a kubeconfig is there")?;
    tracing::info!(version = version::LONG, namespace = flags.namespace, "operator starts");
    let clock = Arc::new(Timestamp::now);
    let world = World { environment, clock, ask: report::over_network() };
    let context = Arc::new(Context::new(client.clone(), world, metrics, flags.instance));
    let scope = Scope { namespace: flags.namespace };
    let (asking, asked) = (client.clone(), scope.clone());
    tokio::spawn(async move {
        until_listed(&asking, &asked).await;
        ready.store(true, Ordering::Relaxed);
    });
    run(client, scope, context, ended).await;
    served.await.context("the management server broke off")??;
    tracing::info!("operator ends");
    Ok(())
}

fn logs(flags: &Flags) {
    let filter = EnvFilter::try_new(&flags.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match flags.log_format {
        LogFormat::Json => builder.json().with_span_list(false).init(),
        LogFormat::Text => builder.init(),
    }
}
