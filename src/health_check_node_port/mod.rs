//! What load balancers ask of a Service with `externalTrafficPolicy: Local`: how many endpoints this node
//! has for it, on its `healthCheckNodePort`.
//!
//! ```text
//! the loop ── DesiredPorts ──► a task that opens and closes listeners ──► GET / ◄── load balancers
//!                                     └─ Health: are the rules what they should be?
//! ```
//! A port is answered on the node's addresses of the families in which the Service is served, as far as
//! NodePorts are. Body, headers and statuses are those of kube-proxy v1.36. A port that is taken is tried
//! again until it can be had, which upstream leaves to the next change.

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

use crate::http::serve::stopped;
use crate::http::{Health, Stop};
use crate::source::Recorder;
use listener::Listener;

/// Between two attempts to open a port.
const RETRY: Duration = Duration::from_secs(5);

/// Why the ports of some Services are not answered.
type Failures = BTreeMap<NamespacedName, String>;

/// The health check ports of all Services. Dropping it closes them.
#[derive(Debug)]
pub struct ServiceHealthServer {
    desired_ports: watch::Sender<DesiredPorts>,
    failures: Arc<Mutex<Failures>>,
    task: JoinHandle<()>,
}

impl ServiceHealthServer {
    /// Without any port so far. Runs until it is time to stop.
    pub fn start(health: Arc<Health>, stop: Stop, recorder: Recorder) -> Self {
        let (desired_ports, changes) = watch::channel(DesiredPorts::default());
        let failures = Arc::default();
        let manager = Manager { health, open: BTreeMap::new(), failures: Arc::clone(&failures), recorder };
        ServiceHealthServer { desired_ports, failures, task: tokio::spawn(manager.run(changes, stop)) }
    }

    /// From now on, these ports are to be answered, with these counts.
    pub fn set(&self, desired_ports: DesiredPorts) {
        self.desired_ports.send_if_modified(|known| {
            let differs = *known != desired_ports;
            *known = desired_ports;
            differs
        });
    }

    /// The Services whose ports cannot be answered now, and why. Each is logged when it begins and when it
    /// ends.
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
    open: BTreeMap<NamespacedName, Listener>,
    failures: Arc<Mutex<Failures>>,
    recorder: Recorder,
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

    /// Closes what is not wanted any more before it opens what is: a port may go from one Service to
    /// another.
    async fn apply(&mut self, desired_ports: &DesiredPorts) {
        for (service, listener) in std::mem::take(&mut self.open) {
            match desired_ports.services.get(&service) {
                Some(check) if listener.answers(check, &desired_ports.addresses) => {
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
            return Err(format!("it is also a node port of Service {owner}, which gets the connections"));
        }
        let holds_port = |(_, listener): &(&NamespacedName, &Listener)| listener.port() == check.port.get();
        if let Some((holder, _)) = self.open.iter().find(holds_port) {
            return Err(format!("Service {holder} has the same healthCheckNodePort"));
        }
        let listener = Listener::open(service, check, &desired_ports.addresses, &self.health)
            .map_err(|error| error.to_string())?;
        tracing::info!(%service, port = check.port, "answering the health check port of {service}");
        self.open.insert(service.clone(), listener);
        Ok(())
    }

    /// Keeps the failures, and tells of those that are new.
    fn report(&self, failures: Failures, desired_ports: &DesiredPorts) {
        let mut known = lock(&self.failures);
        for (service, reason) in &failures {
            let port = desired_ports.services[service].port;
            if known.get(service) != Some(reason) {
                let told = format!(
                    "the healthCheckNodePort {port} of Service {service} is not answered, so load balancers send \
                     nothing for it to this node: {reason}; trying again every {} s",
                    RETRY.as_secs()
                );
                tracing::error!(%service, port, "{told}");
                self.recorder.of_service(service, ["FailedToStartServiceHealthcheck", "Listen"], &told);
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
    // It is only ever replaced as a whole.
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}
