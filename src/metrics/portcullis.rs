//! Our own metrics, `portcullis_*`: what kube-proxy does not tell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, Gauge, GaugeVec};

use super::counter_func::{CounterFunc, describe, family};
use super::policies::Policies;
use super::register::Registrar;
use crate::source::KindStatus;

/// What Portcullis measures beside kube-proxy's metrics.
pub(super) struct Portcullis {
    pub(super) service_sync_errors: GaugeVec,
    pub(super) unserved_frontends: GaugeVec,
    pub(super) drift_repairs: CounterVec,
    pub(super) sync_failures: CounterVec,
    pub(super) contention: GaugeVec,
    pub(super) configuration_unusable: Gauge,
    pub(super) policies: Policies,
    pub(super) source: SourceStatus,
    pub(super) log_lines_dropped: CounterFunc,
}

impl Portcullis {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let metrics = Portcullis {
            service_sync_errors: to.gauges(
                "portcullis_service_sync_errors",
                "1 for each Service that cannot be programmed, while all others are",
                &["ip_family", "service_namespace", "service_name"],
            ),
            unserved_frontends: to.gauges(
                "portcullis_unserved_frontends",
                "Addresses with a port, and node ports, at which a Service is not served: another Service is \
                 (reason=\"shadowed\"), or the address is outside of --external-address-cidrs (\"not_allowed\")",
                &["reason"],
            ),
            drift_repairs: to.counters(
                "portcullis_drift_repairs_total",
                "Chains that somebody else had changed and that were put right",
                &["ip_family"],
            ),
            contention: to.gauges(
                "portcullis_contention",
                "1 while another process keeps changing the rules of Services or of policies, so that repairs slow down",
                &["rules"],
            ),
            sync_failures: to.counters(
                "portcullis_sync_failures_total",
                "Syncs that failed as a whole, leaving the last good rules in place",
                &["ip_family"],
            ),
            configuration_unusable: to.gauge(
                "portcullis_configuration_unusable",
                "1 while the configuration file cannot be used, and what was read at the start holds on",
            ),
            policies: Policies::register(to),
            source: SourceStatus::new(),
            log_lines_dropped: CounterFunc::counter(
                "portcullis_log_lines_dropped_total",
                "Lines of the log that standard error could not take, and that were dropped",
            ),
        };
        to.add(metrics.source.clone());
        to.add(metrics.log_lines_dropped.clone());
        for reason in ["shadowed", "not_allowed"] {
            metrics.unserved_frontends.with_label_values(&[reason]).set(0.0);
        }
        metrics
    }
}

/// Tells the state of each kind.
type Snapshot = Box<dyn Fn() -> Vec<KindStatus> + Send + Sync>;

/// Label values and a value, of one kind of objects.
type Samples = fn(&KindStatus, Instant) -> Vec<(Vec<String>, f64)>;

const SOURCE: &[(&str, &str, &[&str], MetricType, Samples)] = &[
    (
        "portcullis_source_last_heard_age_seconds",
        "Time since the source last heard anything of this kind of objects; absent if it never did",
        &["kind"],
        MetricType::GAUGE,
        |status, now| {
            let age = status.last_heard.map(|at| now.saturating_duration_since(at).as_secs_f64());
            age.map(|age| (vec![status.kind.to_string()], age)).into_iter().collect()
        },
    ),
    (
        "portcullis_source_synced",
        "1 when this kind of objects has been listed in full",
        &["kind"],
        MetricType::GAUGE,
        |status, _| vec![(vec![status.kind.to_string()], f64::from(u8::from(status.synced)))],
    ),
    (
        "portcullis_source_failures_total",
        "Requests or reads that failed",
        &["kind"],
        MetricType::COUNTER,
        |status, _| vec![(vec![status.kind.to_string()], status.failures as f64)],
    ),
    (
        "portcullis_source_lists_total",
        "Full lists; more than one is a watch that had to begin anew",
        &["kind"],
        MetricType::COUNTER,
        |status, _| vec![(vec![status.kind.to_string()], status.lists as f64)],
    ),
    (
        "portcullis_object_problems",
        "Objects that cannot be read (problem=\"unreadable\"), or have a field that is ignored (\"field\")",
        &["kind", "problem"],
        MetricType::GAUGE,
        |status, _| {
            let of = |problem: &str, count: usize| {
                (vec![status.kind.to_string(), problem.to_owned()], count as f64)
            };
            vec![of("field", status.with_problems), of("unreadable", status.unreadable)]
        },
    ),
];

/// Collects what is known of the source.
#[derive(Clone)]
pub(super) struct SourceStatus {
    descs: Arc<[Desc]>,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
}

impl SourceStatus {
    fn new() -> Self {
        let descs = SOURCE.iter().map(|(name, help, labels, ..)| describe(name, help, labels)).collect();
        SourceStatus { descs, snapshot: Arc::default() }
    }

    pub(super) fn read_by(&self, snapshot: impl Fn() -> Vec<KindStatus> + Send + Sync + 'static) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(snapshot));
    }
}

impl Collector for SourceStatus {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = snapshot.as_ref().map(|read| read()).unwrap_or_default();
        let now = Instant::now();
        let rows = self.descs.iter().zip(SOURCE);
        rows.map(|(desc, (.., kind, samples))| {
            family(desc, *kind, kinds.iter().flat_map(|status| samples(status, now)))
        })
        .collect()
    }
}
