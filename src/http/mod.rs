//! The HTTP servers of the proxy itself: health on one port, metrics and diagnostics on another.
//!
//! ```text
//! the loop ── reports to ──► Health, Metrics ◄── ask ── 10256 /healthz /livez
//!     ▲                                      ◄── asks ─ 10249 /metrics /proxyMode /configz …
//!     └─ what Services have served? ── ServiceTraffic ◄───── 10249 /metrics/services
//! ```
//! Paths, bodies, types and statuses are those of kube-proxy v1.36; what `/healthz` takes for healthy is
//! stricter, see [`health`].

mod diagnostic_endpoints;
pub mod health;
mod health_endpoints;
mod moment;
mod problem;
mod progress;
pub(crate) mod response;
pub(crate) mod serve;
mod service_metrics;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use diagnostic_endpoints::Diagnostics;
pub use health::{FirstSyncsHeld, Health, HealthStatus, Limits};
pub use moment::Moment;
pub use problem::{FailedChecks, HealthProblem};
pub use progress::{ITERATION_LIMIT, Job};
pub use serve::Stop;
pub use service_metrics::{ServiceTraffic, TrafficRequest, TrafficResponse};

use crate::metrics::Metrics;
use crate::source::{Recorder, START, Severity};
use serve::{serve, stopped};

/// Between two attempts to listen, as upstream.
const RETRY: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For health. `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// For metrics and diagnostics. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Fail if an address cannot be listened on, rather than trying again until it can.
    pub hard_fail: bool,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {purpose}: {source}; choose another address with --{flag}, or leave out --bind-address-hard-fail to keep trying"
)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What is served there.
    pub purpose: &'static str,
    /// The flag that sets it.
    pub flag: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// What is served on an address.
#[derive(Clone, Copy)]
struct Purpose {
    name: &'static str,
    flag: &'static str,
    /// The Event of one that cannot be served, as upstream names it.
    event: &'static str,
}

const HEALTHZ: Purpose =
    Purpose { name: "health checks", flag: "healthz-bind-address", event: "FailedToStartProxierHealthcheck" };
const METRICS: Purpose =
    Purpose { name: "metrics", flag: "metrics-bind-address", event: "FailedToStartMetricServer" };

/// The running servers. Dropping it ends them at once.
#[derive(Debug)]
pub struct Servers {
    tasks: JoinSet<()>,
    healthz: Arc<OnceLock<SocketAddr>>,
    metrics: Arc<OnceLock<SocketAddr>>,
}

impl Servers {
    /// Whether the addresses can be listened on, where it is to fail if not. Nothing answers yet.
    ///
    /// # Errors
    /// As [`Servers::start`].
    pub async fn check(addresses: Addresses, recorder: &Recorder) -> Result<(), BindError> {
        let all = [(addresses.healthz, HEALTHZ), (addresses.metrics, METRICS)];
        for (address, purpose) in all.into_iter().filter(|_| addresses.hard_fail) {
            let Some(address) = address else { continue };
            if let Err(error) = listen(address, purpose).await {
                recorder.of_node(Severity::Warning, [purpose.event, START], &error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts listening and answering, until it is time to stop. An address that is taken is told of, and tried again
    /// every few seconds.
    ///
    /// # Errors
    /// With `hard_fail`, if an address cannot be listened on.
    pub async fn start(
        addresses: Addresses,
        health: Arc<Health>,
        metrics: Metrics,
        diagnostics: Diagnostics,
        stop: Stop,
        recorder: &Recorder,
    ) -> Result<Self, BindError> {
        let mut servers = Servers { tasks: JoinSet::new(), healthz: Arc::default(), metrics: Arc::default() };
        let routes = [
            (addresses.healthz, HEALTHZ, health_endpoints::router(health, metrics.clone())),
            (addresses.metrics, METRICS, diagnostic_endpoints::router(diagnostics, metrics)),
        ];
        let all_bound = [servers.healthz.clone(), servers.metrics.clone()];
        for ((address, purpose, router), bound) in routes.into_iter().zip(all_bound) {
            let Some(address) = address else { continue };
            let listener = listen(address, purpose).await;
            if let Err(error) = &listener {
                recorder.of_node(Severity::Warning, [purpose.event, START], &error.to_string());
            }
            let listener = match listener {
                Ok(listener) => Some(listener),
                Err(error) if addresses.hard_fail => return Err(error),
                Err(error) => {
                    log_retry(&error);
                    None
                }
            };
            servers.tasks.spawn(run(listener, address, purpose, router, bound, stop.clone()));
        }
        Ok(servers)
    }

    /// Where health is served, once it is.
    pub fn healthz_address(&self) -> Option<SocketAddr> {
        self.healthz.get().copied()
    }

    /// Where metrics are served, once they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.get().copied()
    }

    /// Returns when they have stopped, having given the answers that were under way.
    pub async fn stopped(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn run(
    listener: Option<TcpListener>,
    address: SocketAddr,
    purpose: Purpose,
    router: Router,
    bound: Arc<OnceLock<SocketAddr>>,
    mut stop: Stop,
) {
    let listener = match listener {
        Some(listener) => listener,
        None => tokio::select! {
            listener = keep_trying(address, purpose) => listener,
            () = stopped(&mut stop) => return,
        },
    };
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "serving {}", purpose.name);
    // It is set once only: here.
    let _ = bound.set(address);
    serve(listener, router, stop).await;
}

async fn keep_trying(address: SocketAddr, purpose: Purpose) -> TcpListener {
    loop {
        sleep(RETRY).await;
        match listen(address, purpose).await {
            Ok(listener) => return listener,
            Err(error) => log_retry(&error),
        }
    }
}

async fn listen(address: SocketAddr, purpose: Purpose) -> Result<TcpListener, BindError> {
    let Purpose { name, flag, .. } = purpose;
    TcpListener::bind(address).await.map_err(|source| BindError { address, purpose: name, flag, source })
}

fn log_retry(error: &BindError) {
    let BindError { address, purpose, source, .. } = error;
    tracing::error!(%address, "cannot listen on {address} for {purpose}: {source}; trying again in {} s", RETRY.as_secs());
}
