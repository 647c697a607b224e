//! kube-proxy's metrics, with the names, types, labels and buckets of v1.36.
//!
//! Each mode has the same metrics as upstream, so that dashboards keep working.

use prometheus::{Counter, CounterVec, Gauge, GaugeVec, HistogramVec};

use super::counter_func::CounterFunc;
use super::register::Registrar;
use crate::config::ProxyMode;

const FAMILY: &[&str] = &["ip_family"];

/// Status codes of the health endpoints.
const HEALTH_STATUSES: [&str; 2] = ["200", "503"];

/// kube-proxy's metrics. Metrics that the mode does not have are `None`.
pub(super) struct KubeProxyMetrics {
    pub(super) sync: HistogramVec,
    pub(super) last_synced: GaugeVec,
    pub(super) last_queued: GaugeVec,
    pub(super) network_programming: HistogramVec,
    pub(super) endpoint_changes_pending: Gauge,
    pub(super) endpoint_changes: Counter,
    pub(super) service_changes_pending: Gauge,
    pub(super) service_changes: Counter,
    pub(super) no_local_endpoints: GaugeVec,
    pub(super) healthz: CounterVec,
    pub(super) livez: CounterVec,
    pub(super) conntrack_reconciled: HistogramVec,
    pub(super) conntrack_deleted: CounterVec,
    pub(super) full_and_partial: Option<(HistogramVec, HistogramVec)>,
    pub(super) restore_failures: Option<CounterVec>,
    pub(super) iptables: Option<IptablesMetrics>,
}

/// Metrics of iptables mode only.
pub(super) struct IptablesMetrics {
    pub(super) partial_restore_failures: CounterVec,
    pub(super) rules: GaugeVec,
    pub(super) rules_written: GaugeVec,
    pub(super) invalid_dropped: CounterFunc,
    pub(super) localhost_node_ports: CounterFunc,
}

impl KubeProxyMetrics {
    pub(super) fn register(to: Registrar<'_>, mode: ProxyMode) -> Self {
        let durations = |name, help| to.histograms(name, help, FAMILY, sync_buckets());
        let metrics = KubeProxyMetrics {
            sync: durations("kubeproxy_sync_proxy_rules_duration_seconds", "Duration of syncs"),
            last_synced: to.gauges(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "Unix time of the last successful sync",
                FAMILY,
            ),
            last_queued: to.gauges(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "Unix time at which a sync was last queued",
                FAMILY,
            ),
            network_programming: to.histograms(
                "kubeproxy_network_programming_duration_seconds",
                "Time from a change of a pod or Service until its rules were programmed",
                FAMILY,
                network_programming_buckets(),
            ),
            endpoint_changes_pending: to.gauge(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Services with endpoint changes that are not synced yet",
            ),
            endpoint_changes: to
                .counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Endpoint changes received"),
            service_changes_pending: to.gauge(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Service changes that are not synced yet",
            ),
            service_changes: to
                .counter("kubeproxy_sync_proxy_rules_service_changes_total", "Service changes received"),
            no_local_endpoints: to.gauges(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Service ports with traffic policy Local that have endpoints, but none on this node",
                &["ip_family", "traffic_policy"],
            ),
            healthz: to.counters(
                "kubeproxy_proxy_healthz_total",
                "Responses of /healthz by status code",
                &["code"],
            ),
            livez: to.counters(
                "kubeproxy_proxy_livez_total",
                "Responses of /livez by status code",
                &["code"],
            ),
            conntrack_reconciled: durations(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "Duration of searches for stale conntrack entries",
            ),
            conntrack_deleted: to.counters(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Stale conntrack entries deleted",
                FAMILY,
            ),
            full_and_partial: mode.has_partial_sync_metrics().then(|| {
                (
                    durations("kubeproxy_sync_full_proxy_rules_duration_seconds", "Duration of full syncs"),
                    durations(
                        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                        "Duration of partial syncs, which write only changed rules",
                    ),
                )
            }),
            restore_failures: mode.uses_iptables().then(|| {
                to.counters(
                    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
                    "Failed runs of iptables-restore",
                    FAMILY,
                )
            }),
            iptables: mode.has_iptables_metrics().then(|| IptablesMetrics::register(to)),
        };
        for responses in [&metrics.healthz, &metrics.livez] {
            HEALTH_STATUSES.iter().for_each(|status| drop(responses.with_label_values(&[status])));
        }
        metrics
    }

    /// Creates the counters and histograms of an IP family that is synced, each with the value 0. The times of syncs are absent
    /// until there is one, as in kube-proxy.
    pub(super) fn declare_family(&self, family: &str) {
        let scopes = self.full_and_partial.iter().flat_map(|(full, partial)| [full, partial]);
        let histograms = [&self.sync, &self.network_programming, &self.conntrack_reconciled];
        for histogram in histograms.into_iter().chain(scopes) {
            drop(histogram.with_label_values(&[family]));
        }
        let partial_restores = self.iptables.as_ref().map(|iptables| &iptables.partial_restore_failures);
        let counters = self.restore_failures.iter().chain(partial_restores);
        counters
            .chain([&self.conntrack_deleted])
            .for_each(|counter| drop(counter.with_label_values(&[family])));
    }
}

impl IptablesMetrics {
    fn register(to: Registrar<'_>) -> Self {
        let of_table = &["ip_family", "table"];
        let metrics = IptablesMetrics {
            partial_restore_failures: to.counters(
                "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
                "Failed runs of iptables-restore with only changed rules",
                FAMILY,
            ),
            rules: to.gauges(
                "kubeproxy_sync_proxy_rules_iptables_total",
                "Rules of the proxy in the kernel",
                of_table,
            ),
            rules_written: to.gauges(
                "kubeproxy_sync_proxy_rules_iptables_last",
                "Rules written by the last sync",
                of_table,
            ),
            invalid_dropped: CounterFunc::new(
                "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
                "Packets dropped because conntrack marked them as invalid",
            ),
            localhost_node_ports: CounterFunc::new(
                "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
                "Packets to NodePorts on the loopback interface",
            ),
        };
        to.add(metrics.invalid_dropped.clone());
        to.add(metrics.localhost_node_ports.clone());
        metrics
    }
}

/// Buckets of sync durations: from 1 ms, doubling, to 16 s.
fn sync_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(0.001, 2.0, 15).expect("a positive start and count, a factor above 1")
}

/// Buckets of the service level objective for network programming latency: fine up to a minute, coarse up to five.
/// As upstream, the first one is 0.
fn network_programming_buckets() -> Vec<f64> {
    let steps = |first: u32, width: u32, count: u32| (0..count).map(move |i| f64::from(first + i * width));
    let mut buckets = vec![0.0, 0.25, 0.5];
    buckets.extend(steps(1, 1, 59).chain(steps(60, 5, 12)).chain(steps(120, 30, 7)));
    buckets
}
