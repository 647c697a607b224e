//! Portcullis' own metrics, `portcullis_*`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portcullis_modes::external_program;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, Gauge, GaugeVec};

use super::connections::AllConnectionMetrics;
use super::controllers::ControllerMetrics;
use super::counter_func::{CounterFunc, describe, family};
use super::pod_network::PodNetworkMetrics;
use super::policies::PolicyMetrics;
use super::register::Registrar;
use super::traffic_events::TrafficEventMetrics;
use crate::source::KindStatus;

/// Portcullis' own metrics.
pub(super) struct PortcullisMetrics {
    pub(super) service_sync_errors: GaugeVec,
    pub(super) service_sync_errors_omitted: GaugeVec,
    pub(super) unserved_frontends: GaugeVec,
    pub(super) drift_repairs: CounterVec,
    pub(super) sync_failures: CounterVec,
    pub(super) contention: GaugeVec,
    pub(super) configuration_unusable: Gauge,
    pub(super) credentials_unusable: Gauge,
    pub(super) controllers: ControllerMetrics,
    pub(super) pod_network: PodNetworkMetrics,
    pub(super) policies: PolicyMetrics,
    pub(super) source: SourceStatus,
    pub(super) log_lines_dropped: CounterFunc,
    pub(super) log_lines_omitted: CounterFunc,
    pub(super) events_omitted: CounterFunc,
    pub(super) http_connections: AllConnectionMetrics,
    pub(super) local_api_listening: Gauge,
    pub(super) traffic_events: TrafficEventMetrics,
}

/// How often each tool was killed at its time limit.
#[derive(Clone)]
struct ToolTimeouts(Desc);

impl ToolTimeouts {
    /// Returns the names of all tools that the daemon runs: those of both variants of iptables, and modprobe.
    fn names() -> impl Iterator<Item = String> {
        let variants = ["iptables", "ip6tables"]
            .into_iter()
            .flat_map(|tool| ["", "-legacy", "-nft"].map(|variant| (tool, variant)));
        let tools = variants.flat_map(|(tool, variant)| {
            ["", "-save", "-restore"].map(|action| format!("{tool}{variant}{action}"))
        });
        tools.chain(["modprobe".to_owned()])
    }
}

impl Collector for ToolTimeouts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Present from the start, so that an increase is seen.
        let mut timeouts: BTreeMap<String, u64> = ToolTimeouts::names().map(|name| (name, 0)).collect();
        timeouts.append(&mut external_program::timeouts());
        let samples = timeouts.into_iter().map(|(program, count)| (vec![program], count as f64));
        vec![family(&self.0, MetricType::COUNTER, samples)]
    }
}

impl PortcullisMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let metrics = PortcullisMetrics {
            service_sync_errors: to.gauges(
                "portcullis_service_sync_errors",
                "1 for each Service that cannot be programmed; all other Services are served",
                &["ip_family", "service_namespace", "service_name"],
            ),
            service_sync_errors_omitted: to.gauges(
                "portcullis_service_sync_errors_omitted",
                "Services that cannot be programmed and have no series of portcullis_service_sync_errors, as there are more than \
                 100",
                &["ip_family"],
            ),
            unserved_frontends: to.gauges(
                "portcullis_unserved_frontends",
                "Frontends (address and port, or node port) that are not served: another Service claims the same one \
                 (reason=\"shadowed\"), or the address is outside of --external-address-cidrs (\"not_allowed\")",
                &["reason"],
            ),
            drift_repairs: to.counters(
                "portcullis_drift_repairs_total",
                "Chains that were changed by another process and restored",
                &["ip_family"],
            ),
            contention: to.gauges(
                "portcullis_contention",
                "1 while another process keeps changing the rules of Services or policies; repairs are then delayed",
                &["rules"],
            ),
            sync_failures: to.counters(
                "portcullis_sync_failures_total",
                "Syncs that failed as a whole, which keep the last good rules",
                &["ip_family"],
            ),
            configuration_unusable: to.gauge(
                "portcullis_configuration_unusable",
                "1 while the configuration file is invalid; the daemon keeps the configuration read at its start",
            ),
            credentials_unusable: to.gauge(
                "portcullis_credentials_unusable",
                "1 while the credentials for the API server are invalid or too large, the exec plugin fails, or the API server \
                 rejected what it returned; the daemon keeps the last credentials until they expire",
            ),
            controllers: ControllerMetrics::register(to),
            pod_network: PodNetworkMetrics::register(to),
            policies: PolicyMetrics::register(to),
            source: SourceStatus::new(),
            log_lines_dropped: CounterFunc::new(
                "portcullis_log_lines_dropped_total",
                "Log lines dropped because standard error could not be written",
            ),
            log_lines_omitted: CounterFunc::new(
                "portcullis_log_lines_omitted_total",
                "Log lines omitted because one place in the code logged more than 200, and then more than one per second",
            ),
            events_omitted: CounterFunc::new(
                "portcullis_events_omitted_total",
                "Events omitted because there were more than 25 about objects of one namespace, and then more than one in 30 \
                 seconds, or because the API server does not take them fast enough",
            ),
            http_connections: AllConnectionMetrics::register(to),
            traffic_events: TrafficEventMetrics::register(to),
            local_api_listening: to.gauge(
                "portcullis_local_api_listening",
                "1 while the local API listens on its Unix socket (--socket); without it, portcullis status and other commands \
                 cannot ask the daemon",
            ),
        };
        to.add(metrics.source.clone());
        to.add(metrics.log_lines_dropped.clone());
        to.add(metrics.log_lines_omitted.clone());
        to.add(metrics.events_omitted.clone());
        to.add(ToolTimeouts(describe(
            "portcullis_tool_timeouts_total",
            "Runs of an iptables tool, modprobe or exec plugin that were killed at the time limit (--tool-timeout)",
            &["tool"],
        )));
        for reason in ["shadowed", "not_allowed"] {
            metrics.unserved_frontends.with_label_values(&[reason]).set(0.0);
        }
        metrics
    }

    /// Creates the series of an IP family that is synced, each with the value 0.
    pub(super) fn declare_family(&self, family: &str) {
        for counter in [&self.drift_repairs, &self.sync_failures] {
            drop(counter.with_label_values(&[family]));
        }
        self.service_sync_errors_omitted.with_label_values(&[family]).set(0.0);
    }
}

/// Returns the status of each kind.
type Snapshot = Box<dyn Fn() -> Vec<KindStatus> + Send + Sync>;

/// Returns label values and values of one kind.
type Samples = fn(&KindStatus, Instant) -> Vec<(Vec<String>, f64)>;

const SOURCE: &[(&str, &str, &[&str], MetricType, Samples)] = &[
    (
        "portcullis_source_last_heard_age_seconds",
        "Time since the last message about this kind of objects; absent if there was none",
        &["kind"],
        MetricType::GAUGE,
        |status, now| {
            let age = status.last_contact.map(|at| now.saturating_duration_since(at).as_secs_f64());
            age.map(|age| (vec![status.kind.to_string()], age)).into_iter().collect()
        },
    ),
    (
        "portcullis_source_synced",
        "1 if all objects of this kind have been listed, or if the API server does not serve them",
        &["kind"],
        MetricType::GAUGE,
        |status, _| {
            let is_known = status.synced || status.is_unserved;
            vec![(vec![status.kind.to_string()], f64::from(u8::from(is_known)))]
        },
    ),
    (
        "portcullis_source_failures_total",
        "Failed requests or reads",
        &["kind"],
        MetricType::COUNTER,
        |status, _| vec![(vec![status.kind.to_string()], status.failures as f64)],
    ),
    (
        "portcullis_source_lists_total",
        "Full lists; more than one means that a watch had to be restarted",
        &["kind"],
        MetricType::COUNTER,
        |status, _| vec![(vec![status.kind.to_string()], status.lists as f64)],
    ),
    (
        "portcullis_object_problems",
        "Objects that cannot be parsed (problem=\"unreadable\"), or with a field that is ignored (\"field\")",
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

/// Collector of the source's status.
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

    pub(super) fn set_reader(&self, snapshot: impl Fn() -> Vec<KindStatus> + Send + Sync + 'static) {
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
