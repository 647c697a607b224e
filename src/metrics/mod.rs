//! Metrics, in Prometheus' text format: kube-proxy's under their names, ours as `portcullis_*`.
//!
//! The loop reports what it did to a [`Metrics`]; `/metrics` shows it. What others keep (the kernel's
//! counters, the source's state, the process) is read when it is asked for. All times of day are Unix
//! time, taken as arguments.

mod build_info;
mod counter_func;
mod kube_proxy;
mod policies;
mod portcullis;
mod process;
mod register;
pub mod services;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_cluster::{Family, NamespacedName};
use prometheus::{CounterVec, Registry, TextEncoder};

pub use build_info::{KUBERNETES_MINOR, git_version};

use crate::config::ProxyMode;
use crate::source::KindStatus;
use kube_proxy::KubeProxy;
use portcullis::Portcullis;
use register::Registrar;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a proxy. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    kube_proxy: KubeProxy,
    portcullis: Portcullis,
}

/// Which rules a sync looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncScope {
    /// All of them.
    Full,
    /// Those that changed.
    Partial,
}

/// A traffic policy of `Local`, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicyField {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

impl Metrics {
    /// The metrics that kube-proxy has in this mode, and ours.
    pub fn new(mode: ProxyMode) -> Self {
        let registry = Registry::new();
        let to = Registrar(&registry);
        let (kube_proxy, portcullis) = (KubeProxy::register(to, mode), Portcullis::register(to));
        build_info::register(to);
        to.add(process::Process::new());
        Metrics(Arc::new(Inner { registry, kube_proxy, portcullis }))
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When a metric has no name or value, which none of ours is.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }

    /// A sync of this family was asked for.
    pub fn sync_queued(&self, family: Family, at: SystemTime) {
        self.0.kube_proxy.last_queued.with_label_values(&[family.as_str()]).set(unix_seconds(at));
    }

    /// A sync of this family ended, well or not.
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

    /// This long after a pod or Service changed, the rules follow. Once for each EndpointSlice.
    pub fn network_programmed(&self, family: Family, took: Duration) {
        self.0
            .kube_proxy
            .network_programming
            .with_label_values(&[family.as_str()])
            .observe(took.as_secs_f64());
    }

    /// So many Services, and endpoints of so many Services, were changed.
    pub fn changed(&self, services: usize, endpoints: usize) {
        self.0.kube_proxy.service_changes.inc_by(services as f64);
        self.0.kube_proxy.endpoint_changes.inc_by(endpoints as f64);
    }

    /// So many changes of Services and endpoints wait for a sync.
    pub fn set_pending(&self, services: usize, endpoints: usize) {
        self.0.kube_proxy.service_changes_pending.set(services as f64);
        self.0.kube_proxy.endpoint_changes_pending.set(endpoints as f64);
    }

    /// So many Service ports with this policy have endpoints, but none on this node.
    pub fn set_no_local_endpoints(&self, family: Family, policy: TrafficPolicyField, ports: usize) {
        let policy = match policy {
            TrafficPolicyField::Internal => "internal",
            TrafficPolicyField::External => "external",
        };
        self.0.kube_proxy.no_local_endpoints.with_label_values(&[family.as_str(), policy]).set(ports as f64);
    }

    /// `iptables-restore` failed. A failure of a partial restore is followed by a full one. Without effect
    /// in modes that do not use it.
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

    /// So many rules of the proxy are in this table, and the last sync wrote so many of them. Without
    /// effect in other modes than iptables.
    pub fn set_iptables_rules(&self, family: Family, table: &str, in_kernel: usize, written: usize) {
        if let Some(iptables) = &self.0.kube_proxy.iptables {
            let labels = [family.as_str(), table];
            iptables.rules.with_label_values(&labels).set(in_kernel as f64);
            iptables.rules_written.with_label_values(&labels).set(written as f64);
        }
    }

    /// Reads the two counters of packets that iptables mode keeps in the kernel (`nfacct`), whenever
    /// metrics are asked for: those dropped as invalid, and those to NodePorts on the loopback interface.
    /// `None` leaves a metric out. Without effect in other modes than iptables.
    pub fn read_packet_counters(
        &self,
        invalid_dropped: impl Fn() -> Option<u64> + Send + Sync + 'static,
        localhost_node_ports: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) {
        if let Some(iptables) = &self.0.kube_proxy.iptables {
            iptables.invalid_dropped.read_by(move || invalid_dropped().map(|packets| packets as f64));
            iptables
                .localhost_node_ports
                .read_by(move || localhost_node_ports().map(|packets| packets as f64));
        }
    }

    /// Stale connection tracking entries of this family were looked for, and so many deleted.
    pub fn conntrack_reconciled(&self, family: Family, took: Duration, deleted: u64) {
        let kube_proxy = &self.0.kube_proxy;
        kube_proxy.conntrack_reconciled.with_label_values(&[family.as_str()]).observe(took.as_secs_f64());
        kube_proxy.conntrack_deleted.with_label_values(&[family.as_str()]).inc_by(deleted as f64);
    }

    /// `/healthz` was answered with this status.
    pub fn healthz_answered(&self, status: u16) {
        count_status(&self.0.kube_proxy.healthz, status);
    }

    /// `/livez` was answered with this status.
    pub fn livez_answered(&self, status: u16) {
        count_status(&self.0.kube_proxy.livez, status);
    }

    /// These Services, and no others, can't be programmed in this family. `before` is what the last call
    /// said.
    pub fn set_isolated(&self, family: Family, before: &[NamespacedName], now: &[NamespacedName]) {
        let errors = &self.0.portcullis.service_sync_errors;
        for gone in before.iter().filter(|service| !now.contains(service)) {
            // An error says that there is nothing to remove, which is what is wanted.
            let _ = errors.remove_label_values(&[family.as_str(), gone.namespace.as_str(), &gone.name]);
        }
        for service in now {
            errors.with_label_values(&[family.as_str(), service.namespace.as_str(), &*service.name]).set(1.0);
        }
    }

    /// Sets the numbers of frontends that are not served: those shadowed by another Service, and those whose address is not allowed.
    pub fn set_unserved_frontends(&self, shadowed: usize, not_allowed: usize) {
        let gauges = &self.0.portcullis.unserved_frontends;
        gauges.with_label_values(&["shadowed"]).set(shadowed as f64);
        gauges.with_label_values(&["not_allowed"]).set(not_allowed as f64);
    }

    /// So many chains that somebody else had changed were put right.
    pub fn drift_repaired(&self, family: Family, chains: usize) {
        self.0.portcullis.drift_repairs.with_label_values(&[family.as_str()]).inc_by(chains as f64);
    }

    /// Whether another process keeps changing these rules.
    pub fn set_contention(&self, rules: &str, is_contended: bool) {
        self.0.portcullis.contention.with_label_values(&[rules]).set(f64::from(u8::from(is_contended)));
    }

    /// Reads the state of the source by this, whenever metrics are asked for.
    pub fn read_source(&self, snapshot: impl Fn() -> Vec<KindStatus> + Send + Sync + 'static) {
        self.0.portcullis.source.read_by(snapshot);
    }

    /// From now on, asks this how many lines of the log were dropped.
    pub fn read_dropped_log_lines(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.portcullis.log_lines_dropped.read_by(move || Some(dropped() as f64));
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn count_status(counters: &CounterVec, status: u16) {
    counters.with_label_values(&[&status.to_string()]).inc();
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
