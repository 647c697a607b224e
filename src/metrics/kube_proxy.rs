//! kube-proxy's metrics: names, types, labels and buckets as of v1.36.
//!
//! Which modes have which is upstream's choice, so that a dashboard finds what it found before.

use prometheus::{Counter, CounterVec, Gauge, GaugeVec, HistogramVec};

use super::counter_func::CounterFunc;
use super::register::Registrar;
use crate::config::ProxyMode;

const FAMILY: &[&str] = &["ip_family"];

/// What kube-proxy measures. What a mode does not have is `None`.
pub(super) struct KubeProxy {
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
    pub(super) iptables: Option<Iptables>,
}

/// What iptables mode alone has.
pub(super) struct Iptables {
    pub(super) partial_restore_failures: CounterVec,
    pub(super) rules: GaugeVec,
    pub(super) rules_written: GaugeVec,
    pub(super) invalid_dropped: CounterFunc,
    pub(super) localhost_node_ports: CounterFunc,
}

impl KubeProxy {
    pub(super) fn register(to: Registrar<'_>, mode: ProxyMode) -> Self {
        let durations = |name, help| to.histograms(name, help, FAMILY, sync_buckets());
        KubeProxy {
            sync: durations("kubeproxy_sync_proxy_rules_duration_seconds", "Time that syncs of rules took"),
            last_synced: to.gauges(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When rules were last synced with success, in Unix time",
                FAMILY,
            ),
            last_queued: to.gauges(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a sync of rules was last asked for, in Unix time",
                FAMILY,
            ),
            network_programming: to.histograms(
                "kubeproxy_network_programming_duration_seconds",
                "Time from a change of a pod or Service to the rules that follow it",
                FAMILY,
                network_programming_buckets(),
            ),
            endpoint_changes_pending: to.gauge(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Services whose endpoints changed and were not synced yet",
            ),
            endpoint_changes: to
                .counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of endpoints seen"),
            service_changes_pending: to.gauge(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Services that changed and were not synced yet",
            ),
            service_changes: to
                .counter("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services seen"),
            no_local_endpoints: to.gauges(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Service ports with a traffic policy of Local and endpoints, but none on this node",
                &["ip_family", "traffic_policy"],
            ),
            healthz: to.counters("kubeproxy_proxy_healthz_total", "Answers of /healthz by status", &["code"]),
            livez: to.counters("kubeproxy_proxy_livez_total", "Answers of /livez by status", &["code"]),
            conntrack_reconciled: durations(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "Time that looking for stale connection tracking entries took",
            ),
            conntrack_deleted: to.counters(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Stale connection tracking entries deleted",
                FAMILY,
            ),
            full_and_partial: (mode != ProxyMode::Ipvs).then(|| {
                (
                    durations(
                        "kubeproxy_sync_full_proxy_rules_duration_seconds",
                        "Time that full syncs of rules took",
                    ),
                    durations(
                        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                        "Time that syncs of only the changed rules took",
                    ),
                )
            }),
            restore_failures: (mode != ProxyMode::Nftables).then(|| {
                to.counters(
                    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
                    "Runs of iptables-restore that failed",
                    FAMILY,
                )
            }),
            iptables: (mode == ProxyMode::Iptables).then(|| Iptables::register(to)),
        }
    }
}

impl Iptables {
    fn register(to: Registrar<'_>) -> Self {
        let of_table = &["ip_family", "table"];
        let metrics = Iptables {
            partial_restore_failures: to.counters(
                "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
                "Runs of iptables-restore with only the changed rules that failed",
                FAMILY,
            ),
            rules: to.gauges(
                "kubeproxy_sync_proxy_rules_iptables_total",
                "Rules of the proxy in the kernel",
                of_table,
            ),
            rules_written: to.gauges(
                "kubeproxy_sync_proxy_rules_iptables_last",
                "Rules that the last sync wrote",
                of_table,
            ),
            invalid_dropped: CounterFunc::counter(
                "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
                "Packets dropped because connection tracking calls them invalid",
            ),
            localhost_node_ports: CounterFunc::counter(
                "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
                "Packets to NodePorts on the loopback interface",
            ),
        };
        to.add(metrics.invalid_dropped.clone());
        to.add(metrics.localhost_node_ports.clone());
        metrics
    }
}

/// From 1 ms, doubling, to 16 s.
fn sync_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(0.001, 2.0, 15).expect("a positive start and count, a factor above 1")
}

/// Those of the service level objective for network programming latency: fine to a minute, coarse to five.
/// Upstream's list begins with 0, and so does this one.
fn network_programming_buckets() -> Vec<f64> {
    let steps = |first: u32, width: u32, count: u32| (0..count).map(move |i| f64::from(first + i * width));
    let mut buckets = vec![0.0, 0.25, 0.5];
    buckets.extend(steps(1, 1, 59).chain(steps(60, 5, 12)).chain(steps(120, 30, 7)));
    buckets
}
