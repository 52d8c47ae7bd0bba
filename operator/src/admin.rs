//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// A leader that has not planned for this long is stuck (a tick comes every 10 s at the latest).
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// A client that does not finish its request head, or stays idle, makes room for the kubelet's probes after this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
/// After an accept that failed for want of descriptors, trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the probes look at.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    synced: AtomicBool,
    leading: AtomicBool,
    /// Milliseconds after `started` of the last tick, or of taking the lead.
    last_tick: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            synced: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            last_tick: AtomicU64::new(0),
        }
    }
}

impl Health {
    pub fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    pub fn leads(&self) {
        self.tick();
        self.leading.store(true, Ordering::Relaxed);
    }

    pub fn tick(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_tick.store(elapsed, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let last = Duration::from_millis(self.last_tick.load(Ordering::Relaxed));
        self.leading.load(Ordering::Relaxed) && self.started.elapsed().saturating_sub(last) > STUCK_AFTER
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(listen: SocketAddr, metrics: Arc<Metrics>, health: Arc<Health>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Shared { metrics, health });
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &shared.metrics.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.health.is_stuck() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no plan for 120 s");
    }
    (StatusCode::OK, "ok")
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.health.synced.load(Ordering::Relaxed) {
        return (StatusCode::OK, "ok");
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the cluster's objects are not listed yet",
    )
}
