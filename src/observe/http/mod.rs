//! HTTP servers of the daemon: health endpoints on one port, metrics and diagnostics on another, and the status page if it has
//! an address.
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
    /// Address of the status page. `None`: disabled.
    pub page: Option<SocketAddr>,
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
const STATUS_PAGE: Purpose = Purpose {
    name: "the status page",
    label: "status_page",
    flag: "status-page-bind-address",
    event: "FailedToStartStatusPage",
};

/// A server to start.
struct Server {
    address: SocketAddr,
    purpose: Purpose,
    router: Router,
    pool: Arc<ConnectionPool>,
    /// Gets the bound address.
    bound: Arc<OnceLock<SocketAddr>>,
}

/// The running servers. Dropping it stops them immediately.
#[derive(Debug)]
pub struct Servers {
    tasks: JoinSet<()>,
    healthz: Arc<OnceLock<SocketAddr>>,
    metrics: Arc<OnceLock<SocketAddr>>,
    page: Arc<OnceLock<SocketAddr>>,
}

impl Servers {
    /// With `hard_fail`, checks that the addresses can be bound. Serves nothing yet.
    ///
    /// # Errors
    /// Returns an error if an address cannot be bound.
    pub async fn check(addresses: Addresses, recorder: &EventRecorder) -> Result<(), BindError> {
        let all = [(addresses.healthz, HEALTHZ), (addresses.metrics, METRICS), (addresses.page, STATUS_PAGE)];
        for (address, purpose) in all.into_iter().filter(|_| addresses.hard_fail) {
            let Some(address) = address else { continue };
            if let Err(error) = listen(address, purpose).await {
                recorder.node_event(EventType::Warning, [purpose.event, START], &error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts the servers of health and metrics, which run until the stop signal, each with its limit of connections. If an
    /// address is in use, logs an error and retries every few seconds.
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
        let mut servers = Servers {
            tasks: JoinSet::new(),
            healthz: Arc::default(),
            metrics: Arc::default(),
            page: Arc::default(),
        };
        let server = |address, purpose: Purpose, limit, router, bound: &Arc<_>| Server {
            address,
            purpose,
            router,
            pool: ConnectionPool::new(purpose.name, limit, metrics.http_connections(purpose.label)),
            bound: Arc::clone(bound),
        };
        if let Some(address) = addresses.healthz {
            let router = health_endpoints::router(health, metrics.clone());
            let healthz = server(address, HEALTHZ, limits.health, router, &servers.healthz);
            servers.add(healthz, addresses.hard_fail, stop.clone(), recorder).await?;
        }
        if let Some(address) = addresses.metrics {
            let router = diagnostic_endpoints::router(diagnostics, metrics.clone());
            let metrics = server(address, METRICS, limits.metrics, router, &servers.metrics);
            servers.add(metrics, addresses.hard_fail, stop, recorder).await?;
        }
        Ok(servers)
    }

    /// Starts the server of the status page, if it has an address, in the same way. `router` returns its routes for the address
    /// on which it listens.
    ///
    /// # Errors
    /// With `hard_fail`, returns an error if the address cannot be bound.
    pub async fn start_page(
        &mut self,
        addresses: Addresses,
        limits: ConnectionLimits,
        router: impl FnOnce(SocketAddr) -> Router,
        metrics: &Metrics,
        stop: Stop,
        recorder: &EventRecorder,
    ) -> Result<(), BindError> {
        let Some(address) = addresses.page else { return Ok(()) };
        if !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "the status page listens on {address}, which is not a loopback address: every host that reaches it can \
                 read names, addresses and policies of the cluster (--{})",
                STATUS_PAGE.flag
            );
        }
        let page = Server {
            address,
            purpose: STATUS_PAGE,
            router: router(address),
            pool: ConnectionPool::new(
                STATUS_PAGE.name,
                limits.page,
                metrics.http_connections(STATUS_PAGE.label),
            ),
            bound: Arc::clone(&self.page),
        };
        self.add(page, addresses.hard_fail, stop, recorder).await
    }

    async fn add(
        &mut self,
        server: Server,
        hard_fail: bool,
        stop: Stop,
        recorder: &EventRecorder,
    ) -> Result<(), BindError> {
        let listener = listen(server.address, server.purpose).await;
        if let Err(error) = &listener {
            recorder.node_event(EventType::Warning, [server.purpose.event, START], &error.to_string());
        }
        let listener = match listener {
            Ok(listener) => Some(listener),
            Err(error) if hard_fail => return Err(error),
            Err(error) => {
                log_retry(&error);
                None
            }
        };
        self.tasks.spawn(run(listener, server, stop));
        Ok(())
    }

    /// Returns the bound address of the health server, once it listens.
    pub fn healthz_address(&self) -> Option<SocketAddr> {
        self.healthz.get().copied()
    }

    /// Returns the bound address of the metrics server, once it listens.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.get().copied()
    }

    /// Returns the bound address of the status page, once it listens.
    pub fn page_address(&self) -> Option<SocketAddr> {
        self.page.get().copied()
    }

    /// Waits until the servers have stopped, after finishing the requests in progress.
    pub async fn stopped(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn run(listener: Option<TcpListener>, server: Server, mut stop: Stop) {
    let Server { address, purpose, router, pool, bound } = server;
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
