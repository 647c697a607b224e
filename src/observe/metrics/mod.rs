//! Prometheus metrics: kube-proxy's under their upstream names, and Portcullis' own as `portcullis_*`.
//!
//! The main loop updates [`Metrics`]; `/metrics` serves them. Values kept elsewhere (kernel
//! counters, status of the source, the process) are read at scrape time. Timestamps are Unix
//! time and are passed as arguments.

mod build_info;
mod connections;
mod controllers;
mod counter_func;
mod kube_proxy;
mod pod_network;
mod policies;
mod portcullis;
mod process;
mod register;
pub mod services;
mod traffic_events;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_cluster::{Family, Kind, NamespacedName};
use prometheus::{CounterVec, Registry, TextEncoder};

pub use build_info::{KUBERNETES_MINOR, git_version};
pub use connections::ConnectionMetrics;
pub(crate) use traffic_events::TrafficEventMetrics;

use crate::config::ProxyMode;
use crate::control::ControllerName;
use crate::fair_limit::{Limited, limit};
use crate::source::KindStatus;
use kube_proxy::KubeProxyMetrics;
use portcullis::PortcullisMetrics;
use register::Registrar;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a proxy. Clones share the values.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    kube_proxy: KubeProxyMetrics,
    portcullis: PortcullisMetrics,
}

/// Scope of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncScope {
    /// All rules.
    Full,
    /// Only changed rules.
    Partial,
}

/// Field of a Service with the traffic policy `Local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicyField {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

impl Metrics {
    /// Creates the metrics that kube-proxy has in this mode, and Portcullis' own.
    pub fn new(mode: ProxyMode) -> Self {
        let registry = Registry::new();
        let to = Registrar(&registry);
        let (kube_proxy, portcullis) =
            (KubeProxyMetrics::register(to, mode), PortcullisMetrics::register(to));
        build_info::register(to);
        to.add(process::Process::new());
        Metrics(Arc::new(Inner { registry, kube_proxy, portcullis }))
    }

    /// Creates the series of a controller's syncs of these sets of rules, each with the value 0. The first event is then an
    /// increase, which a counter that appears with the value 1 does not show.
    pub(crate) fn declare_syncs(&self, name: ControllerName, rules: &[&'static str]) {
        self.0.portcullis.controllers.declare(name.label);
        if name.is_service_proxy {
            for family in Family::BOTH.map(Family::as_str).iter().filter(|family| rules.contains(family)) {
                self.0.kube_proxy.declare_family(family);
                self.0.portcullis.declare_family(family);
            }
        }
        self.0.portcullis.contention.with_label_values(&[name.label]).set(0.0);
    }

    /// Returns all metrics in Prometheus' text format.
    ///
    /// # Errors
    /// Returns an error if a metric has no name or value, which does not happen.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }

    /// Records a request for a sync of this family.
    pub fn sync_queued(&self, family: Family, at: SystemTime) {
        self.0.kube_proxy.last_queued.with_label_values(&[family.as_str()]).set(unix_seconds(at));
    }

    /// Records the end of a sync of this family, successful or not.
    pub fn sync_ended(&self, family: Family, extent: SyncScope, took: Duration) {
        let (family, took) = ([family.as_str()], took.as_secs_f64());
        self.0.kube_proxy.sync.with_label_values(&family).observe(took);
        if let Some((full, partial)) = &self.0.kube_proxy.full_and_partial {
            let histogram = if extent == SyncScope::Full { full } else { partial };
            histogram.with_label_values(&family).observe(took);
        }
    }

    /// The rules of this family are as they should be.
    pub fn synced(&self, family: Family, at: SystemTime) {
        self.0.kube_proxy.last_synced.with_label_values(&[family.as_str()]).set(unix_seconds(at));
    }

    /// A sync of this family failed as a whole.
    pub fn sync_failed(&self, family: Family) {
        self.0.portcullis.sync_failures.with_label_values(&[family.as_str()]).inc();
    }

    /// Whether the configuration file cannot be used as it is now.
    pub fn configuration_unusable(&self, unusable: bool) {
        self.0.portcullis.configuration_unusable.set(f64::from(u8::from(unusable)));
    }

    /// Sets whether the local API listens on its socket.
    pub(crate) fn set_local_api_listening(&self, is_listening: bool) {
        self.0.portcullis.local_api_listening.set(f64::from(u8::from(is_listening)));
    }

    /// Whether the credentials for the API server cannot be used or renewed as they are now.
    pub fn credentials_unusable(&self, unusable: bool) {
        self.0.portcullis.credentials_unusable.set(f64::from(u8::from(unusable)));
    }

    /// This long after a pod or Service changed, the rules follow. Once for each EndpointSlice.
    pub fn network_programmed(&self, family: Family, took: Duration) {
        self.0
            .kube_proxy
            .network_programming
            .with_label_values(&[family.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Counts changes of Services or EndpointSlices. kube-proxy has no such metrics of other kinds.
    pub fn changed(&self, kind: Kind, changes: u64) {
        let kube_proxy = &self.0.kube_proxy;
        match kind {
            Kind::Service => kube_proxy.service_changes.inc_by(changes as f64),
            Kind::EndpointSlice => kube_proxy.endpoint_changes.inc_by(changes as f64),
            _ => {}
        }
    }

    /// Sets the number of changes of Services or EndpointSlices that are pending a sync.
    pub fn set_pending(&self, kind: Kind, changes: usize) {
        let kube_proxy = &self.0.kube_proxy;
        match kind {
            Kind::Service => kube_proxy.service_changes_pending.set(changes as f64),
            Kind::EndpointSlice => kube_proxy.endpoint_changes_pending.set(changes as f64),
            _ => {}
        }
    }

    /// Sets the number of Service ports that have this traffic policy and endpoints, but none on this node.
    pub fn set_no_local_endpoints(&self, family: Family, policy: TrafficPolicyField, ports: usize) {
        let policy = match policy {
            TrafficPolicyField::Internal => "internal",
            TrafficPolicyField::External => "external",
        };
        self.0.kube_proxy.no_local_endpoints.with_label_values(&[family.as_str(), policy]).set(ports as f64);
    }

    /// Counts a failure of `iptables-restore`. A full restore follows a failed partial restore. No effect
    /// in modes that do not use `iptables-restore`.
    pub fn restore_failed(&self, family: Family, extent: SyncScope) {
        let kube_proxy = &self.0.kube_proxy;
        let failures = match (extent, &kube_proxy.iptables) {
            (SyncScope::Partial, Some(iptables)) => Some(&iptables.partial_restore_failures),
            _ => kube_proxy.restore_failures.as_ref(),
        };
        if let Some(failures) = failures {
            failures.with_label_values(&[family.as_str()]).inc();
        }
    }

    /// Sets the number of the proxy's rules in this table, and how many of them the last sync wrote. No
    /// effect in modes other than iptables.
    pub fn set_iptables_rules(&self, family: Family, table: &str, in_kernel: usize, written: usize) {
        if let Some(iptables) = &self.0.kube_proxy.iptables {
            let labels = [family.as_str(), table];
            iptables.rules.with_label_values(&labels).set(in_kernel as f64);
            iptables.rules_written.with_label_values(&labels).set(written as f64);
        }
    }

    /// Sets the readers of the two packet counters that iptables mode keeps in the kernel (`nfacct`), which are called
    /// at scrape time: packets dropped as invalid, and packets to NodePorts on the loopback interface.
    /// `None` omits the metric. No effect in modes other than iptables.
    pub fn read_packet_counters(
        &self,
        invalid_dropped: impl Fn() -> Option<u64> + Send + Sync + 'static,
        localhost_node_ports: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) {
        if let Some(iptables) = &self.0.kube_proxy.iptables {
            iptables.invalid_dropped.set_reader(move || invalid_dropped().map(|packets| packets as f64));
            iptables
                .localhost_node_ports
                .set_reader(move || localhost_node_ports().map(|packets| packets as f64));
        }
    }

    /// Records a search for stale conntrack entries of this family, and the number deleted.
    pub fn conntrack_reconciled(&self, family: Family, took: Duration, deleted: u64) {
        let kube_proxy = &self.0.kube_proxy;
        kube_proxy.conntrack_reconciled.with_label_values(&[family.as_str()]).observe(took.as_secs_f64());
        kube_proxy.conntrack_deleted.with_label_values(&[family.as_str()]).inc_by(deleted as f64);
    }

    /// Counts a response of `/healthz` with this status code.
    pub fn healthz_answered(&self, status: u16) {
        count_status(&self.0.kube_proxy.healthz, status);
    }

    /// Counts a response of `/livez` with this status code.
    pub fn livez_answered(&self, status: u16) {
        count_status(&self.0.kube_proxy.livez, status);
    }

    /// Sets the Services that cannot be programmed in this family. `before` is the value of the previous
    /// call. Only a limited number of them has a series.
    pub fn set_isolated(&self, family: Family, before: &[NamespacedName], now: &[NamespacedName]) {
        let portcullis = &self.0.portcullis;
        let errors = &portcullis.service_sync_errors;
        let (before, now) = (limit_services(before), limit_services(now));
        portcullis.service_sync_errors_omitted.with_label_values(&[family.as_str()]).set(now.omitted as f64);
        let (before, now) = (before.items, now.items);
        for gone in before.iter().filter(|service| !now.contains(service)) {
            // An error means that there is nothing to remove.
            let _ = errors.remove_label_values(&[family.as_str(), gone.namespace.as_str(), &gone.name]);
        }
        for service in now {
            errors.with_label_values(&[family.as_str(), service.namespace.as_str(), &*service.name]).set(1.0);
        }
    }

    /// Sets the numbers of frontends that are not served: those shadowed by another Service, and those with an address that is
    /// not allowed.
    pub fn set_unserved_frontends(&self, shadowed: usize, not_allowed: usize) {
        let gauges = &self.0.portcullis.unserved_frontends;
        gauges.with_label_values(&["shadowed"]).set(shadowed as f64);
        gauges.with_label_values(&["not_allowed"]).set(not_allowed as f64);
    }

    /// Counts chains that were changed by another process and restored.
    pub fn drift_restored(&self, family: Family, chains: usize) {
        self.0.portcullis.drift_repairs.with_label_values(&[family.as_str()]).inc_by(chains as f64);
    }

    /// Sets whether another process keeps changing these rules.
    pub fn set_contention(&self, rules: &str, is_contended: bool) {
        self.0.portcullis.contention.with_label_values(&[rules]).set(f64::from(u8::from(is_contended)));
    }

    /// Sets the reader of the source's status, which is called at scrape time.
    pub fn read_source(&self, snapshot: impl Fn() -> Vec<KindStatus> + Send + Sync + 'static) {
        self.0.portcullis.source.set_reader(snapshot);
    }

    /// Sets the readers of the numbers of log lines and of Events that were omitted, as there were too many.
    pub fn read_omitted(
        &self,
        log_lines: impl Fn() -> u64 + Send + Sync + 'static,
        events: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.0.portcullis.log_lines_omitted.set_reader(move || Some(log_lines() as f64));
        self.0.portcullis.events_omitted.set_reader(move || Some(events() as f64));
    }

    /// Returns the metrics of the connections of an HTTP server: `healthz`, `metrics`, `health_check_node_port`
    /// or `local_api`.
    pub fn http_connections(&self, server: &str) -> ConnectionMetrics {
        self.0.portcullis.http_connections.server(server)
    }

    /// Sets the reader of the number of dropped log lines.
    pub fn read_dropped_log_lines(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.portcullis.log_lines_dropped.set_reader(move || Some(dropped() as f64));
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The number of series of `portcullis_service_sync_errors` in each family.
const ISOLATED_SERVICES: usize = 100;

fn limit_services(services: &[NamespacedName]) -> Limited<&NamespacedName> {
    let namespace = |service: &&NamespacedName| service.namespace.to_string();
    limit(services, ISOLATED_SERVICES, namespace, |service| (*service).clone())
}

fn count_status(counters: &CounterVec, status: u16) {
    counters.with_label_values(&[&status.to_string()]).inc();
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
