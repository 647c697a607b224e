//! HTTP servers of the daemon: health endpoints on one port, metrics and diagnostics on another.
//!
//! ```text
//! main loop ── updates ──► Health, Metrics ◄── read by ── 10256 /healthz /livez
//!     ▲                                    ◄── read by ── 10249 /metrics /proxyMode /configz …
//!     └── TrafficRequest ── ServiceTraffic ◄── used by ── 10249 /metrics/services
//! ```
//! Paths, bodies, content types and status codes are those of kube-proxy v1.36; the criteria of `/healthz` are
//! stricter, see [`health`](super::health).

mod connection;
mod connection_limits;
pub(crate) mod connection_pool;
mod diagnostic_endpoints;
mod health_endpoints;
pub(crate) mod peer;
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

pub use connection_limits::ConnectionLimits;
pub use diagnostic_endpoints::Diagnostics;
pub use serve::Stop;
pub use service_metrics::{ServiceTraffic, TrafficRequest, TrafficResponse};

use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::source::{EventRecorder, EventType, START};
use connection_pool::ConnectionPool;
use serve::{serve, stopped};

/// Time between two attempts to listen, as upstream.
const RETRY: Duration = Duration::from_secs(5);

/// Listening addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Address of the health server. `None`: disabled.
    pub healthz: Option<SocketAddr>,
    /// Address of the metrics and diagnostics server. `None`: disabled.
    pub metrics: Option<SocketAddr>,
    /// Fail if an address cannot be bound, instead of retrying.
    pub hard_fail: bool,
}

/// A listening address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {purpose}: {source}; set another address with --{flag}, or remove --bind-address-hard-fail to keep retrying"
)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Purpose of the server.
    pub purpose: &'static str,
    /// The flag that sets the address.
    pub flag: &'static str,
    /// The I/O error.
    pub source: io::Error,
}

/// Purpose of a server, with its flag and Event.
#[derive(Clone, Copy)]
struct Purpose {
    name: &'static str,
    /// Value of the metrics' label `server`.
    label: &'static str,
    flag: &'static str,
    /// Reason of the Event if the address cannot be bound, as upstream.
    event: &'static str,
}

const HEALTHZ: Purpose = Purpose {
    name: "health checks",
    label: "healthz",
    flag: "healthz-bind-address",
    event: "FailedToStartProxierHealthcheck",
};
const METRICS: Purpose = Purpose {
    name: "metrics",
    label: "metrics",
    flag: "metrics-bind-address",
    event: "FailedToStartMetricServer",
};

/// The running servers. Dropping it stops them immediately.
#[derive(Debug)]
pub struct Servers {
    tasks: JoinSet<()>,
    healthz: Arc<OnceLock<SocketAddr>>,
    metrics: Arc<OnceLock<SocketAddr>>,
}

impl Servers {
    /// With `hard_fail`, checks that the addresses can be bound. Serves nothing yet.
    ///
    /// # Errors
    /// Returns an error if an address cannot be bound.
    pub async fn check(addresses: Addresses, recorder: &EventRecorder) -> Result<(), BindError> {
        let all = [(addresses.healthz, HEALTHZ), (addresses.metrics, METRICS)];
        for (address, purpose) in all.into_iter().filter(|_| addresses.hard_fail) {
            let Some(address) = address else { continue };
            if let Err(error) = listen(address, purpose).await {
                recorder.node_event(EventType::Warning, [purpose.event, START], &error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts the servers, which run until the stop signal, each with its limit of connections. If an address is in use, logs an error and retries
    /// every few seconds.
    ///
    /// # Errors
    /// With `hard_fail`, returns an error if an address cannot be bound.
    pub async fn start(
        addresses: Addresses,
        limits: ConnectionLimits,
        health: Arc<Health>,
        metrics: Metrics,
        diagnostics: Diagnostics,
        stop: Stop,
        recorder: &EventRecorder,
    ) -> Result<Self, BindError> {
        let mut servers = Servers { tasks: JoinSet::new(), healthz: Arc::default(), metrics: Arc::default() };
        let pool = |purpose: Purpose, limit| {
            ConnectionPool::new(purpose.name, limit, metrics.http_connections(purpose.label))
        };
        let pools = [pool(HEALTHZ, limits.health), pool(METRICS, limits.metrics)];
        let routes = [
            (addresses.healthz, HEALTHZ, health_endpoints::router(health, metrics.clone())),
            (addresses.metrics, METRICS, diagnostic_endpoints::router(diagnostics, metrics)),
        ];
        let all_bound = [servers.healthz.clone(), servers.metrics.clone()];
        for (((address, purpose, router), bound), pool) in routes.into_iter().zip(all_bound).zip(pools) {
            let Some(address) = address else { continue };
            let listener = listen(address, purpose).await;
            if let Err(error) = &listener {
                recorder.node_event(EventType::Warning, [purpose.event, START], &error.to_string());
            }
            let listener = match listener {
                Ok(listener) => Some(listener),
                Err(error) if addresses.hard_fail => return Err(error),
                Err(error) => {
                    log_retry(&error);
                    None
                }
            };
            servers.tasks.spawn(run(listener, address, purpose, router, pool, bound, stop.clone()));
        }
        Ok(servers)
    }

    /// Returns the bound address of the health server, once it listens.
    pub fn healthz_address(&self) -> Option<SocketAddr> {
        self.healthz.get().copied()
    }

    /// Returns the bound address of the metrics server, once it listens.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.get().copied()
    }

    /// Waits until the servers have stopped, after finishing the requests in progress.
    pub async fn stopped(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn run(
    listener: Option<TcpListener>,
    address: SocketAddr,
    purpose: Purpose,
    router: Router,
    pool: Arc<ConnectionPool>,
    bound: Arc<OnceLock<SocketAddr>>,
    mut stop: Stop,
) {
    let listener = match listener {
        Some(listener) => listener,
        None => tokio::select! {
            listener = retry_listen(address, purpose) => listener,
            () = stopped(&mut stop) => return,
        },
    };
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "serving {}", purpose.name);
    // This is the only place that sets it.
    let _ = bound.set(address);
    serve(listener, router, pool, stop).await;
}

async fn retry_listen(address: SocketAddr, purpose: Purpose) -> TcpListener {
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
    tracing::error!(%address, "cannot listen on {address} for {purpose}: {source}; retrying in {} s", RETRY.as_secs());
}
