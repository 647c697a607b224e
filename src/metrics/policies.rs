//! Metrics of the policies that are enforced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_policy::table::DropCounter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Counter, Gauge, GaugeVec, HistogramVec};

use super::Metrics;
use super::counter_func::{describe, family};
use super::register::Registrar;

/// From a tenth of a millisecond to 20 s.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 5.0, 20.0];

/// What is measured of policies.
pub(super) struct Policies {
    sync: HistogramVec,
    failures: Counter,
    repairs: Counter,
    cut: Counter,
    pods: GaugeVec,
    last_synced: Gauge,
    dropped: Dropped,
}

impl Policies {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let policies = Policies {
            sync: to.histograms(
                "portcullis_network_policy_sync_duration_seconds",
                "Time to bring the kernel's table of policies up to date",
                &["extent"],
                BUCKETS.to_vec(),
            ),
            failures: to.counter(
                "portcullis_network_policy_sync_failures_total",
                "Syncs of policies that failed, leaving the last good rules in place",
            ),
            repairs: to.counter(
                "portcullis_network_policy_drift_repairs_total",
                "Chains, sets and elements of policies that somebody else had changed and that were put right",
            ),
            cut: to.counter(
                "portcullis_network_policy_connections_cut_total",
                "Established connections that were ended because a changed policy forbids them",
            ),
            pods: to.gauges(
                "portcullis_network_policy_pods",
                "Pods of this node: those that some policy judges (judged=\"yes\"), and all others",
                &["judged"],
            ),
            last_synced: to.gauge(
                "portcullis_network_policy_last_sync_timestamp_seconds",
                "When the kernel's table of policies was last as it should be",
            ),
            dropped: Dropped::new(),
        };
        to.add(policies.dropped.clone());
        policies
    }
}

impl Metrics {
    /// Policies were written, everything or what had changed.
    pub fn policies_synced(&self, full: bool, took: Duration, at: std::time::SystemTime) {
        let policies = &self.0.portcullis.policies;
        let extent = if full { "full" } else { "partial" };
        policies.sync.with_label_values(&[extent]).observe(took.as_secs_f64());
        policies.last_synced.set(super::unix_seconds(at));
    }

    /// Policies could not be written.
    pub fn policies_failed(&self) {
        self.0.portcullis.policies.failures.inc();
    }

    /// So much that others had changed was put right.
    pub fn policies_repaired(&self, objects: usize) {
        self.0.portcullis.policies.repairs.inc_by(objects as f64);
    }

    /// So many connections were cut.
    pub fn connections_cut(&self, connections: usize) {
        self.0.portcullis.policies.cut.inc_by(connections as f64);
    }

    /// So many pods are on this node, and so many of them are judged.
    pub fn set_policy_pods(&self, all: usize, judged: usize) {
        let pods = &self.0.portcullis.policies.pods;
        pods.with_label_values(&["yes"]).set(judged as f64);
        pods.with_label_values(&["no"]).set((all - judged) as f64);
    }

    /// Reads what policies drop by this, whenever metrics are asked for. `audit`: it is not dropped, only counted.
    pub fn read_policy_drops(
        &self,
        audit: bool,
        read: impl Fn() -> Vec<DropCounter> + Send + Sync + 'static,
    ) {
        let reader: Reader = (audit, Box::new(read));
        *self.0.portcullis.policies.dropped.read.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(reader);
    }
}

type Reader = (bool, Box<dyn Fn() -> Vec<DropCounter> + Send + Sync>);

/// Packets that policies drop, counted by the kernel.
#[derive(Clone)]
struct Dropped {
    packets: Desc,
    bytes: Desc,
    read: Arc<Mutex<Option<Reader>>>,
}

impl Dropped {
    fn new() -> Self {
        let labels = ["direction", "policy", "action"];
        Dropped {
            packets: describe(
                "portcullis_network_policy_dropped_packets_total",
                "Packets that policies dropped, or with action=\"audit\" would have: by direction, and by the \
                 policies that isolate the pod or whose rule denies",
                &labels,
            ),
            bytes: describe(
                "portcullis_network_policy_dropped_bytes_total",
                "Bytes of the packets that policies dropped",
                &labels,
            ),
            read: Arc::default(),
        }
    }
}

impl Collector for Dropped {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.packets, &self.bytes]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (audit, counted) = match &*read {
            Some((audit, read)) => (*audit, read()),
            None => (false, Vec::new()),
        };
        let action = if audit { "audit" } else { "drop" };
        let labels = |counted: &DropCounter| {
            vec![counted.label.direction.to_owned(), counted.label.policy.clone(), action.to_owned()]
        };
        let samples =
            |value: fn(&DropCounter) -> u64| counted.iter().map(move |one| (labels(one), value(one) as f64));
        vec![
            family(&self.packets, MetricType::COUNTER, samples(|one| one.packets)),
            family(&self.bytes, MetricType::COUNTER, samples(|one| one.bytes)),
        ]
    }
}
