//! HTTP servers on `healthCheckNodePort`s: by them, load balancers find the nodes with local endpoints of a Service with
//! `externalTrafficPolicy: Local`.
//!
//! ```text
//! main loop ── DesiredPorts ──► task that opens and closes listeners ──► GET / ◄── load balancers
//!                                     └─ Health: are the rules in sync?
//! ```
//! A port is open on the node addresses that serve NodePorts, in the IP families of the Service.
//! Body, headers and status codes are those of kube-proxy v1.36. A port that is in use is retried
//! periodically; upstream retries only at the next change of the Service.

mod desired_ports;
mod listener;
mod response;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_cluster::NamespacedName;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use desired_ports::{DesiredPorts, ServiceHealthCheck};

use crate::observe::health::Health;
use crate::observe::http::connection_pool::ConnectionPool;
use crate::observe::http::serve::stopped;
use crate::observe::http::{ConnectionLimits, Stop};
use crate::observe::metrics::Metrics;
use crate::source::EventRecorder;
use listener::Listener;

/// Time between two attempts to open a port.
const RETRY: Duration = Duration::from_secs(5);

/// Reasons why ports of Services are not open.
type Failures = BTreeMap<NamespacedName, String>;

/// Server of the health check ports of all Services. Dropping it closes them.
#[derive(Debug)]
pub struct ServiceHealthServer {
    desired_ports: watch::Sender<DesiredPorts>,
    failures: Arc<Mutex<Failures>>,
    task: JoinHandle<()>,
}

impl ServiceHealthServer {
    /// Starts the server without any port. It runs until the stop signal.
    pub fn start(
        health: Arc<Health>,
        limits: ConnectionLimits,
        metrics: &Metrics,
        stop: Stop,
        recorder: EventRecorder,
    ) -> Self {
        let (desired_ports, changes) = watch::channel(DesiredPorts::default());
        let failures = Arc::default();
        let pool = ConnectionPool::new(
            "health check node ports",
            limits.health_check_node_ports,
            metrics.http_connections("health_check_node_port"),
        );
        let manager = Manager {
            health,
            pool,
            max_listeners: limits.listeners,
            open: BTreeMap::new(),
            failures: Arc::clone(&failures),
            recorder,
        };
        ServiceHealthServer { desired_ports, failures, task: tokio::spawn(manager.run(changes, stop)) }
    }

    /// Sets the ports to serve and their endpoint counts.
    pub fn set(&self, desired_ports: DesiredPorts) {
        self.desired_ports.send_if_modified(|known| {
            let differs = *known != desired_ports;
            *known = desired_ports;
            differs
        });
    }

    /// Returns the Services whose ports are not open, with the reasons.
    pub fn failures(&self) -> BTreeMap<NamespacedName, String> {
        lock(&self.failures).clone()
    }
}

impl Drop for ServiceHealthServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Manager {
    health: Arc<Health>,
    /// Connections to the ports of all Services.
    pool: Arc<ConnectionPool>,
    /// Largest number of sockets that listen.
    max_listeners: usize,
    open: BTreeMap<NamespacedName, Listener>,
    failures: Arc<Mutex<Failures>>,
    recorder: EventRecorder,
}

impl Manager {
    async fn run(mut self, mut changes: watch::Receiver<DesiredPorts>, mut stop: Stop) {
        loop {
            let desired_ports = changes.borrow_and_update().clone();
            self.apply(&desired_ports).await;
            let incomplete = !lock(&self.failures).is_empty();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                () = sleep(RETRY), if incomplete => {}
                () = stopped(&mut stop) => break,
            }
        }
        self.apply(&DesiredPorts::default()).await;
    }

    /// Closes and opens ports. Ports are closed first, because a port may move from one Service to
    /// another.
    async fn apply(&mut self, desired_ports: &DesiredPorts) {
        for (service, listener) in std::mem::take(&mut self.open) {
            match desired_ports.services.get(&service) {
                Some(check) if listener.serves(check, &desired_ports.addresses) => {
                    listener.set_counts(check);
                    self.open.insert(service, listener);
                }
                _ => {
                    tracing::info!(%service, port = listener.port(), "closing the health check port of {service}");
                    listener.close().await;
                }
            }
        }
        let mut failures = Failures::new();
        for (service, check) in &desired_ports.services {
            if !self.open.contains_key(service)
                && let Err(reason) = self.open(service, check, desired_ports)
            {
                failures.insert(service.clone(), reason);
            }
        }
        self.report(failures, desired_ports);
    }

    fn open(
        &mut self,
        service: &NamespacedName,
        check: &ServiceHealthCheck,
        desired_ports: &DesiredPorts,
    ) -> Result<(), String> {
        if let Some(owner) = &check.node_port_of {
            return Err(format!("it is also a node port of Service {owner}, which receives the connections"));
        }
        let holds_port = |(_, listener): &(&NamespacedName, &Listener)| listener.port() == check.port.get();
        if let Some((holder, _)) = self.open.iter().find(holds_port) {
            return Err(format!("Service {holder} has the same healthCheckNodePort"));
        }
        let open: usize = self.open.values().map(Listener::sockets).sum();
        if open + desired_ports.addresses.len() > self.max_listeners {
            return Err(format!(
                "{open} sockets listen for health checks, and the limit of open files (RLIMIT_NOFILE) allows {}; raise it",
                self.max_listeners
            ));
        }
        let listener = Listener::open(service, check, &desired_ports.addresses, &self.health, &self.pool)
            .map_err(|error| error.to_string())?;
        tracing::info!(%service, port = check.port, "serving the health check port of {service}");
        self.open.insert(service.clone(), listener);
        Ok(())
    }

    /// Stores the failures, and logs and reports those that are new.
    fn report(&self, failures: Failures, desired_ports: &DesiredPorts) {
        let mut known = lock(&self.failures);
        for (service, reason) in &failures {
            let port = desired_ports.services[service].port;
            if known.get(service) != Some(reason) {
                let message = format!(
                    "healthCheckNodePort {port} of Service {service} is not served, so load balancers send no traffic \
                     for it to this node: {reason}; retrying every {} s",
                    RETRY.as_secs()
                );
                tracing::error!(%service, port, "{message}");
                self.recorder.service_event(service, ["FailedToStartServiceHealthcheck", "Listen"], &message);
            }
        }
        *known = failures;
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("open", &self.open.keys()).finish_non_exhaustive()
    }
}

fn lock(failures: &Mutex<Failures>) -> std::sync::MutexGuard<'_, Failures> {
    // It is only replaced as a whole, so it is consistent after a panic.
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}
