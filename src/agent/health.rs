//! What the kubelet and Prometheus ask over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// A loop that has not come round for so long is stuck: every call in it ends before.
const STUCK_MILLIS: i64 = 15 * 60 * 1000;

/// How the agent is.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    /// When the loop last came round, milliseconds since 1970; 0 before the first time.
    alive: AtomicI64,
}

impl Health {
    /// Settings, sets and repository have been seen once. A bucket that is away later is an alert's matter: nothing is mended by taking the agent
    /// out of service.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The loop comes round.
    pub fn alive(&self, clock: &Clock) {
        self.alive.store(clock.now().timestamp_millis(), Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Shown {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Serves `/livez`, `/readyz` and `/metrics` for as long as it is not dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>, clock: Clock) -> std::io::Result<()> {
    let shown = Shown { health, metrics, clock };
    let router =
        Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(show_metrics)).with_state(shown);
    axum::serve(listener, router).await
}

async fn livez(State(shown): State<Shown>) -> impl IntoResponse {
    let last = shown.health.alive.load(Ordering::Relaxed);
    let stuck = last != 0 && shown.clock.now().timestamp_millis() - last > STUCK_MILLIS;
    if stuck { (StatusCode::SERVICE_UNAVAILABLE, "the loop is stuck\n") } else { (StatusCode::OK, "ok\n") }
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    if shown.health.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "settings, sets and repository have not been seen yet\n")
    }
}

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shown.metrics.text())
}
