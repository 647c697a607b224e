//! Metrics of the pod network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_podnet::addresses::AddressUsage;
use portcullis_podnet::node_routes::NodeProblem;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Counter, Gauge, GaugeVec, HistogramVec};

use super::Metrics;
use super::counter_func::{CounterFunc, describe, family};
use super::register::Registrar;
use crate::control::REJECTED_NODE;

/// Buckets of sync durations: from 0.1 ms to 5 s.
const BUCKETS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 5.0];

/// Extents of syncs: everything, or changes only.
const EXTENTS: [&str; 2] = ["full", "partial"];

/// Metrics of the pod network.
pub(super) struct PodNetworkMetrics {
    sync: HistogramVec,
    failures: Counter,
    restores: Counter,
    nodes: Gauge,
    unreachable: GaugeVec,
    ready: Gauge,
    last_synced: Gauge,
    leaked: Counter,
    addresses: PodAddresses,
    spoofed: CounterFunc,
}

impl PodNetworkMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let metrics = PodNetworkMetrics {
            sync: to.histograms(
                "portcullis_pod_network_sync_duration_seconds",
                "Duration of syncs of the links and routes of the pod network",
                &["extent"],
                BUCKETS.to_vec(),
            ),
            failures: to.counter(
                "portcullis_pod_network_sync_failures_total",
                "Syncs after which the pod network of this node was not ready; its routes are kept",
            ),
            restores: to.counter(
                "portcullis_pod_network_drift_repairs_total",
                "Links, addresses, routes, neighbours and FDB entries of the pod network that were changed by another process and \
                 restored",
            ),
            nodes: to.gauge("portcullis_pod_network_nodes", "Nodes of the pod network"),
            unreachable: to.gauges(
                "portcullis_pod_network_unreachable_nodes",
                "Nodes to whose pods this node has no route, at least of one IP family, by reason",
                &["reason"],
            ),
            ready: to.gauge(
                "portcullis_pod_network_ready",
                "1 if the pod network of this node is ready for pods; 0 also without --pod-network",
            ),
            last_synced: to.gauge(
                "portcullis_pod_network_last_sync_timestamp_seconds",
                "Unix time of the last successful sync of the pod network",
            ),
            leaked: to.counter(
                "portcullis_pod_network_leaked_attachments_total",
                "Attachments of pods that ended without a CNI DEL, whose addresses the daemon returned",
            ),
            addresses: PodAddresses::new(),
            spoofed: CounterFunc::new(
                "portcullis_pod_network_spoofed_packets_total",
                "Packets of pods of this node that were dropped because their source address is not that of a pod; with the wiring ptp only \
                 those of IPv6, as rp_filter drops those of IPv4",
            ),
        };
        to.add(metrics.addresses.clone());
        to.add(metrics.spoofed.clone());
        // Without a pod network.
        metrics.spoofed.set_reader(|| Some(0.0));
        // These exist from the start, so that the first sync is an increase.
        EXTENTS.iter().for_each(|extent| drop(metrics.sync.with_label_values(&[extent])));
        for reason in NodeProblem::REASONS.iter().chain([&REJECTED_NODE]) {
            metrics.unreachable.with_label_values(&[*reason]).set(0.0);
        }
        metrics
    }
}

impl Metrics {
    /// Records a successful sync of the pod network, full or of changes only.
    pub fn pod_network_synced(&self, full: bool, took: Duration, at: std::time::SystemTime) {
        let metrics = &self.0.portcullis.pod_network;
        let extent = EXTENTS[usize::from(!full)];
        metrics.sync.with_label_values(&[extent]).observe(took.as_secs_f64());
        metrics.last_synced.set(super::unix_seconds(at));
    }

    /// Counts a sync after which the pod network is not ready.
    pub fn pod_network_failed(&self) {
        self.0.portcullis.pod_network.failures.inc();
    }

    /// Counts objects that another process changed and that were restored.
    pub fn pod_network_restored(&self, objects: usize) {
        self.0.portcullis.pod_network.restores.inc_by(objects as f64);
    }

    /// Sets the number of nodes, and of those to whose pods there is no route, by reason.
    pub fn set_pod_network_nodes(&self, nodes: usize, unreachable: &[(&str, usize)], rejected: usize) {
        let metrics = &self.0.portcullis.pod_network;
        metrics.nodes.set(nodes as f64);
        for (reason, nodes) in unreachable.iter().chain([&(REJECTED_NODE, rejected)]) {
            metrics.unreachable.with_label_values(&[*reason]).set(*nodes as f64);
        }
    }

    /// Sets whether the pod network of this node is ready.
    pub fn set_pod_network_ready(&self, is_ready: bool) {
        self.0.portcullis.pod_network.ready.set(f64::from(u8::from(is_ready)));
    }

    /// Counts attachments of ended pods whose addresses were returned.
    pub fn leaked_attachments_returned(&self, attachments: usize) {
        self.0.portcullis.pod_network.leaked.inc_by(attachments as f64);
    }

    /// Sets the reader of the number of packets with a source address that is not the pod's, which is called at scrape time.
    pub fn read_spoofed_packets(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.portcullis.pod_network.spoofed.set_reader(move || Some(read() as f64));
    }

    /// Sets the reader of the use of pod addresses, which is called at scrape time.
    pub fn read_pod_addresses(&self, read: impl Fn() -> Vec<AddressUsage> + Send + Sync + 'static) {
        let reader = &self.0.portcullis.pod_network.addresses.read;
        *reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }
}

type AddressReader = Box<dyn Fn() -> Vec<AddressUsage> + Send + Sync>;

/// Collector of the use of pod addresses, which the plugin changes while the daemon does nothing.
#[derive(Clone)]
struct PodAddresses {
    addresses: Desc,
    read: Arc<Mutex<Option<AddressReader>>>,
}

impl PodAddresses {
    fn new() -> Self {
        let addresses = describe(
            "portcullis_pod_network_addresses",
            "Addresses of this node's pod CIDRs for pods: held by pods (state=\"held\"), by pods of another network plugin \
             (\"other_plugin\"), or free",
            &["ip_family", "state"],
        );
        PodAddresses { addresses, read: Arc::default() }
    }
}

impl Collector for PodAddresses {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.addresses]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = read.as_ref().map(|read| read()).unwrap_or_default();
        let samples = usage.iter().flat_map(|usage| {
            let ip_family = Family::from_net(&usage.range.network()).as_str();
            let numbers = [
                ("held", usage.held as f64),
                ("other_plugin", usage.elsewhere as f64),
                ("free", usage.free() as f64),
            ];
            numbers.map(|(state, number)| (vec![ip_family.to_owned(), state.to_owned()], number))
        });
        vec![family(&self.addresses, MetricType::GAUGE, samples)]
    }
}
