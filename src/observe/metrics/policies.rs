//! NetworkPolicy metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_policy::table::{DropCounter, EvaluationCounts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Counter, Gauge, GaugeVec, HistogramVec};

use super::Metrics;
use super::counter_func::{describe, family};
use super::register::Registrar;
use crate::fair_limit::limit;

/// Buckets of sync durations: from 0.1 ms to 20 s.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 5.0, 20.0];

/// The number of series of each counter of dropped packets.
const SERIES: usize = 2000;

/// Extents of syncs: the whole table, or changes only.
const EXTENTS: [&str; 2] = ["full", "partial"];

/// NetworkPolicy metrics.
pub(super) struct PolicyMetrics {
    sync: HistogramVec,
    failures: Counter,
    restores: Counter,
    cut: Counter,
    pods: GaugeVec,
    last_synced: Gauge,
    profiles: GaugeVec,
    identities: Gauge,
    classes: Gauge,
    dropped: DropCounters,
}

impl PolicyMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let policies = PolicyMetrics {
            sync: to.histograms(
                "portcullis_network_policy_sync_duration_seconds",
                "Duration of syncs of the NetworkPolicy table",
                &["extent"],
                BUCKETS.to_vec(),
            ),
            failures: to.counter(
                "portcullis_network_policy_sync_failures_total",
                "Failed syncs of policies, which keep the last good rules",
            ),
            restores: to.counter(
                "portcullis_network_policy_drift_repairs_total",
                "Chains, sets and elements of the NetworkPolicy table that were changed by another process and restored",
            ),
            cut: to.counter(
                "portcullis_network_policy_connections_cut_total",
                "Established connections terminated because a changed policy forbids them",
            ),
            pods: to.gauges(
                "portcullis_network_policy_pods",
                "Pods of this node: isolated by at least one policy (judged=\"yes\") or not (judged=\"no\")",
                &["judged"],
            ),
            last_synced: to.gauge(
                "portcullis_network_policy_last_sync_timestamp_seconds",
                "Unix time of the last successful sync of policies",
            ),
            profiles: to.gauges(
                "portcullis_network_policy_profiles",
                "Sets of policies that select the same pods of this node in one direction: with few rules, which are evaluated one \
                 by one (evaluation=\"rules\"), with classes of peers (\"classes\"), or with too many classes, which are evaluated rule \
                 by rule (\"over_limit\")",
                &["evaluation"],
            ),
            identities: to.gauge(
                "portcullis_network_policy_identities",
                "Identities of peers: numbers for addresses that the same selectors and ipBlocks match",
            ),
            classes: to.gauge(
                "portcullis_network_policy_classes",
                "Classes of peers: identities for which the same rules of a set of policies match",
            ),
            dropped: DropCounters::new(),
        };
        to.add(policies.dropped.clone());
        // These exist from the start, so that the first sync is an increase.
        EXTENTS.iter().for_each(|extent| drop(policies.sync.with_label_values(&[extent])));
        policies
    }
}

impl Metrics {
    /// Records a successful sync of policies, full or of changes only.
    pub fn policies_synced(&self, full: bool, took: Duration, at: std::time::SystemTime) {
        let policies = &self.0.portcullis.policies;
        let extent = EXTENTS[usize::from(!full)];
        policies.sync.with_label_values(&[extent]).observe(took.as_secs_f64());
        policies.last_synced.set(super::unix_seconds(at));
    }

    /// Counts a failed sync of policies.
    pub fn policies_failed(&self) {
        self.0.portcullis.policies.failures.inc();
    }

    /// Counts objects that were changed by another process and restored.
    pub fn policies_restored(&self, objects: usize) {
        self.0.portcullis.policies.restores.inc_by(objects as f64);
    }

    /// Counts terminated connections.
    pub fn connections_terminated(&self, connections: usize) {
        self.0.portcullis.policies.cut.inc_by(connections as f64);
    }

    /// Sets the number of pods on this node, and how many of them are isolated by a policy.
    pub fn set_policy_pods(&self, all: usize, isolated: usize) {
        let pods = &self.0.portcullis.policies.pods;
        pods.with_label_values(&["yes"]).set(isolated as f64);
        pods.with_label_values(&["no"]).set((all - isolated) as f64);
    }

    /// Sets the numbers of profiles by their evaluation, and of identities and classes of peers.
    pub fn set_policy_evaluation(&self, counts: &EvaluationCounts) {
        let policies = &self.0.portcullis.policies;
        let profiles =
            [("rules", counts.by_rules), ("classes", counts.by_classes), ("over_limit", counts.over_limit)];
        for (evaluation, profiles) in profiles {
            policies.profiles.with_label_values(&[evaluation]).set(profiles as f64);
        }
        policies.identities.set(counts.identities as f64);
        policies.classes.set(counts.classes as f64);
    }

    /// Sets the reader of the drop counters, which is called at scrape time. `audit`: packets are counted, not dropped.
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

/// Collector of the kernel's counters of dropped packets.
#[derive(Clone)]
struct DropCounters {
    packets: Desc,
    bytes: Desc,
    omitted: Desc,
    read: Arc<Mutex<Option<Reader>>>,
}

impl DropCounters {
    fn new() -> Self {
        let labels = ["direction", "policy", "action"];
        DropCounters {
            packets: describe(
                "portcullis_network_policy_dropped_packets_total",
                "Packets dropped by policies, or that would have been dropped (action=\"audit\"), by direction and by the \
                 policies that isolate the pod or deny the packet",
                &labels,
            ),
            bytes: describe(
                "portcullis_network_policy_dropped_bytes_total",
                "Bytes of the packets dropped by policies",
                &labels,
            ),
            omitted: describe(
                "portcullis_network_policy_dropped_series_omitted",
                "Series of portcullis_network_policy_dropped_packets_total that are omitted, as there are more than 2000; the \
                 kernel counts them all",
                &[],
            ),
            read: Arc::default(),
        }
    }
}

impl Collector for DropCounters {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.packets, &self.bytes, &self.omitted]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (audit, counted) = match &*read {
            Some((audit, read)) => (*audit, read()),
            None => (false, Vec::new()),
        };
        let namespace = |counter: &DropCounter| {
            let policy = &counter.labels.policy;
            policy.split_once('/').map_or(String::new(), |(namespace, _)| namespace.to_owned())
        };
        let limited = limit(counted, SERIES, namespace, |counter| counter.labels.clone());
        let (counted, omitted) = (limited.items, limited.omitted);
        let action = if audit { "audit" } else { "drop" };
        let labels = |counter: &DropCounter| {
            vec![counter.labels.direction.to_owned(), counter.labels.policy.clone(), action.to_owned()]
        };
        let samples =
            |value: fn(&DropCounter) -> u64| counted.iter().map(move |one| (labels(one), value(one) as f64));
        vec![
            family(&self.packets, MetricType::COUNTER, samples(|one| one.packets)),
            family(&self.bytes, MetricType::COUNTER, samples(|one| one.bytes)),
            family(&self.omitted, MetricType::GAUGE, [(Vec::new(), omitted as f64)]),
        ]
    }
}
