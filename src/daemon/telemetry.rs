//! What the loop tells the outside: metrics, health, and the answers to load balancers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use portcullis_cluster::desired::{Desired, Rejection, ServicePort};
use portcullis_cluster::index::DirtyServices;
use portcullis_cluster::{Family, Index, Kind, Name, NamespacedName, TrafficPolicy};
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_modes::{NodePortAddresses, Options};
use portcullis_modes::{SyncErrorKind, SyncProgress, SyncResult};
use portcullis_netlink::nfacct::Counters;
use portcullis_policy::table as policy_table;
use tokio::sync::watch;

use super::api_server_silence::SilenceReporter;
use super::dropped_lines::DroppedLines;
use super::isolation_health;
use super::kernel_progress::ReportProgress;
use super::own_node_reporter::OwnNodeReporter;
use super::policies::{CounterLabels, PolicySyncResult};
use super::running_sync::RunningSync;
use super::source_problems;
use super::unserved;
use super::worker::ServiceSyncResult;
use crate::config::{self, Config};
use crate::health_check_node_port::{DesiredPorts, ServiceHealthServer};
use crate::http::{
    Addresses, BindError, Diagnostics, FirstSyncsHeld, Health, HealthProblem, Job, Limits, Moment, Servers,
    ServiceTraffic,
};
use crate::logging;
use crate::metrics::{Metrics, SyncScope, TrafficPolicyField};
use crate::source::{self, EventRecorder, Source};

/// The component of health problems about a sync that runs.
const SYNC: &str = "sync";

/// Reason and action of the Event about a Service whose rules the kernel refuses.
const NOT_WRITTEN: [&str; 2] = ["FailedToSyncService", "SyncProxyRules"];

/// What the mode writes, as health and metrics name it where another process keeps changing it.
pub(super) const CONTENDED_SERVICES: Contended =
    Contended { component: "rules of Services", label: "services" };

/// The table of policies, likewise.
pub(super) const CONTENDED_POLICIES: Contended =
    Contended { component: "NetworkPolicy table", label: "policies" };

/// The names of rules that another process may keep changing.
#[derive(Clone, Copy)]
pub(super) struct Contended {
    component: &'static str,
    label: &'static str,
}

/// Everything that shows how the daemon fares.
pub(super) struct Telemetry {
    node: Name,
    metrics: Metrics,
    health: Arc<Health>,
    servers: Servers,
    health_checks: ServiceHealthServer,
    /// The addresses on which load balancers are answered, once they are.
    answered_on: Option<Vec<IpAddr>>,
    stop: watch::Sender<bool>,
    families: Vec<Family>,
    isolated: BTreeMap<Family, Vec<NamespacedName>>,
    recorder: EventRecorder,
    running_sync: RunningSync,
    /// When the changes happened that the running sync writes.
    trigger_times: Vec<Timestamp>,
    /// What each counter of the policies' table counts.
    policy_labels: Arc<Mutex<CounterLabels>>,
    silence: SilenceReporter,
    dropped_lines: DroppedLines,
    own_node: OwnNodeReporter,
    /// The state of the source, if it is an API server.
    api_server: Option<Arc<source::SourceHealth>>,
    /// The time before which changes are not ours: they were there when this started.
    started: Timestamp,
}

impl Telemetry {
    /// Starts the servers. `configuration` is the configuration as JSON, for who asks. What cannot be served is told to the
    /// source's recorder, too.
    pub(super) async fn start(
        config: &Config,
        configuration: String,
        source: &Source,
        node: Name,
        families: &[Family],
        service_traffic: ServiceTraffic,
    ) -> Result<Self, BindError> {
        let started = Moment::now();
        let metrics = Metrics::new(config.mode);
        let status = source.health().clone();
        metrics.read_source(move || status.snapshot());
        metrics.read_dropped_log_lines(logging::dropped_lines);
        metrics.read_packet_counters(
            || packets(NFACCT_INVALID_DROPPED),
            || packets(NFACCT_LOCALHOST_NODE_PORTS),
        );
        let speaks = matches!(config.source, config::Source::ApiServer(_));
        let limits = Limits::new(config.sync.period, speaks);
        let health = Arc::new(Health::new(limits, families.iter().copied(), started));
        let status = source.health().clone();
        health.watch_source(move || status.last_contact());
        let status = source.health().clone();
        health.read_problems("source", move || unreadable(&status.unreadable()));
        let (stop, stopping) = watch::channel(false);
        let addresses = addresses(config);
        let diagnostics = Diagnostics {
            proxy_mode: config.mode.name(),
            configuration,
            flags: config::Invocation::flag_values(std::env::args_os()),
            started,
            version: env!("CARGO_PKG_VERSION"),
            service_traffic,
        };
        let recorder = source.recorder().clone();
        let servers = Servers::start(
            addresses,
            health.clone(),
            metrics.clone(),
            diagnostics,
            stopping.clone(),
            &recorder,
        )
        .await?;
        Ok(Telemetry {
            node,
            metrics,
            health_checks: ServiceHealthServer::start(health.clone(), stopping, recorder.clone()),
            recorder,
            answered_on: None,
            health,
            servers,
            stop,
            families: families.to_vec(),
            isolated: BTreeMap::new(),
            running_sync: RunningSync::default(),
            trigger_times: Vec::new(),
            policy_labels: Arc::default(),
            silence: SilenceReporter::default(),
            dropped_lines: DroppedLines::default(),
            own_node: OwnNodeReporter::new(node, speaks),
            api_server: speaks.then(|| source.health().clone()),
            started: started.wall(),
        })
    }

    /// The configuration that holds is the one in its file, or cannot be, for these reasons.
    pub(super) fn configuration_is(&self, unusable: Option<&str>) {
        self.metrics.configuration_unusable(unusable.is_some());
        self.health.warn(unusable.map(|errors| format!("the configuration file cannot be used: {errors}")));
    }

    /// The health that all this is reported to.
    pub(super) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// A job starts on a thread.
    pub(super) fn job_started(&self, job: Job) {
        self.health.job_started(job, Moment::now());
    }

    /// A job has ended.
    pub(super) fn job_ended(&self, job: Job) {
        self.health.job_ended(job);
    }

    /// Reports a step of a job, from its thread.
    pub(super) fn step_of(&self, job: Job) -> ReportProgress {
        let health = self.health();
        Arc::new(move || health.job_stepped(job, Moment::now()))
    }

    /// Reports that the loop goes on, and what follows from the time that passes.
    pub(super) fn tick(&mut self) {
        let now = Moment::now();
        self.health.loop_iterated(now);
        let dropped = self.dropped_lines.problem(logging::dropped_lines(), now);
        self.health.set_problems("log", dropped.into_iter().collect());
        let kinds = self.api_server.as_ref().map(|status| status.snapshot()).unwrap_or_default();
        self.health.set_problems("API server", source_problems::of_kinds(&kinds, now.monotonic()));
        let silence = self.health.status(now).silence;
        self.silence.observe(silence.as_deref(), now.monotonic(), &self.recorder);
        self.report_progress();
    }

    /// Reports what is not known of this node's Node object, when that changes.
    pub(super) fn own_node(&mut self, index: &Index) {
        self.own_node.observe(index, &self.health);
    }

    /// First syncs are held back, or no longer. `reason` says why, if any is.
    pub(super) fn first_syncs_are_held(&self, held: FirstSyncsHeld, reason: Option<String>) {
        self.health.hold_first_syncs(held);
        self.health.set_problems("first sync", reason.map(HealthProblem::not_ready).into_iter().collect());
    }

    /// Policies are enforced without objects that were never read, or no longer. `reason` names the objects.
    pub(super) fn policies_lack_objects(&self, reason: Option<String>) {
        self.health.set_problems("policies", reason.map(HealthProblem::not_ready).into_iter().collect());
    }

    /// Something was heard that makes a sync necessary.
    pub(super) fn queued(&mut self, index: &Index) {
        let (now, moment) = (SystemTime::now(), Moment::now());
        let touched = index.dirty_services();
        for family in &self.families {
            self.metrics.sync_queued(*family, now);
            self.health.queued_update(*family, moment);
        }
        let node = index.node(self.node);
        let known = node.is_some() || !index.is_listed(Kind::Node) || index.count(Kind::Node) == 0;
        self.health.set_node_eligible(known && node.is_none_or(|node| !node.is_to_be_deleted));
        self.metrics.set_pending(touched.service_changes, touched.slice_changes);
    }

    /// Reads how far a sync has come from these counters.
    pub(super) fn read_progress(&mut self, counters: Option<Arc<SyncProgress>>) {
        self.running_sync.read(counters);
    }

    /// Reports how far a sync has come that takes long.
    fn report_progress(&mut self) {
        let Some(seen) = self.running_sync.look(Instant::now()) else { return };
        if seen.stepped {
            self.health.job_stepped(Job::Services, Moment::now());
        }
        if let Some(report) = seen.report {
            tracing::info!("{report}");
            self.health.set_problems(SYNC, vec![HealthProblem::warning(report)]);
        }
    }

    /// A sync ended, whatever it did.
    pub(super) fn sync_ended(&mut self, succeeded: bool) {
        if self.running_sync.ended(succeeded, Instant::now()) {
            self.health.set_problems(SYNC, Vec::new());
        }
    }

    /// A sync starts.
    pub(super) fn started(&mut self, touched: &DirtyServices) {
        self.running_sync.started(Instant::now());
        self.metrics.changed(touched.service_changes, touched.slice_changes);
        self.metrics.set_pending(0, 0);
        let since_start = touched.trigger_times.iter().filter(|time| **time > self.started);
        self.trigger_times.extend(since_start);
    }

    /// What the node must serve was resolved again.
    pub(super) fn resolved(&self, desired: &mut Desired) {
        unserved::report(desired, &self.metrics, &self.recorder);
    }

    /// A sync ended; `services` is the number of Services.
    pub(super) fn synced(&mut self, outcome: &ServiceSyncResult, services: usize) {
        let now = SystemTime::now();
        for report in &outcome.reports {
            self.report(report, now);
        }
        let isolated = self.isolated.values().flatten().collect();
        self.health
            .set_problems("Services", isolation_health::problem(&isolated, services).into_iter().collect());
        for (family, deleted) in outcome.flows.iter().flat_map(|sweep| sweep.by_family()) {
            let took = outcome.flows.as_ref().map_or_else(|_| Default::default(), |sweep| sweep.duration);
            self.metrics.conntrack_reconciled(family, took, deleted as u64);
        }
        if outcome.error().is_none() {
            let now = Timestamp::now();
            for trigger in std::mem::take(&mut self.trigger_times) {
                let took = now.duration_since(trigger).unsigned_abs();
                self.families.iter().for_each(|family| self.metrics.network_programmed(*family, took));
            }
        }
    }

    fn report(&mut self, report: &SyncResult, now: SystemTime) {
        let (family, extent) =
            (report.family, if report.is_full { SyncScope::Full } else { SyncScope::Partial });
        self.metrics.sync_ended(family, extent, report.duration);
        match &report.error {
            None => {
                self.metrics.synced(family, now);
                self.health.synced(family, Moment::now());
            }
            Some(error) => {
                self.health.sync_failed(family, Moment::now(), error.to_string());
                self.metrics.sync_failed(family);
                if matches!(error.kind(), SyncErrorKind::ToolFailed | SyncErrorKind::Locked) {
                    self.metrics.restore_failed(family, extent);
                }
            }
        }
        for table in &report.tables {
            self.metrics.set_iptables_rules(family, table.table, table.in_kernel, table.written);
        }
        self.metrics.drift_repaired(family, report.restored);
        let isolated: Vec<NamespacedName> = report.isolated.iter().map(|i| i.service.clone()).collect();
        let before = self.isolated.entry(family).or_default();
        for new in report.isolated.iter().filter(|isolated| !before.contains(&isolated.service)) {
            self.recorder.service_event(&new.service, NOT_WRITTEN, &new.to_string());
        }
        self.metrics.set_isolated(family, before, &isolated);
        *before = isolated;
    }

    /// Another process keeps changing these rules, or no longer does. It fails `/healthz`, as the rules are wrong for a part
    /// of the time, and not `/livez`, as a restart stops no other process.
    pub(super) fn contention(&self, rules: Contended, contention: Option<String>) {
        self.metrics.set_contention(rules.label, contention.is_some());
        self.health
            .set_problems(rules.component, contention.map(HealthProblem::not_ready).into_iter().collect());
    }

    /// Policies are enforced, too.
    pub(super) fn expect_policies(&self, audit: bool) {
        self.health.expect_policies();
        let labels = Arc::clone(&self.policy_labels);
        self.metrics.read_policy_drops(audit, move || {
            let labels = Arc::clone(&labels.lock().unwrap_or_else(PoisonError::into_inner));
            policy_table::read_drop_counters(&labels).unwrap_or_default()
        });
    }

    /// A sync of policies ended. `labels`: what each of the table's counters counts.
    pub(super) fn policies_synced(&self, outcome: &PolicySyncResult, labels: Option<CounterLabels>) {
        if let Some(labels) = labels {
            *self.policy_labels.lock().unwrap_or_else(PoisonError::into_inner) = labels;
        }
        let (pods, judged) = outcome.pods;
        self.metrics.set_policy_pods(pods, judged);
        self.metrics.connections_cut(outcome.cut);
        if let Some((_, objects)) = &outcome.repaired {
            self.metrics.policies_repaired(*objects);
        }
        match &outcome.error {
            None => {
                self.metrics.policies_synced(outcome.committed.full, outcome.took, SystemTime::now());
                self.health.policies_synced(Moment::now());
            }
            Some(error) => {
                self.metrics.policies_failed();
                match outcome.lacks_facts {
                    true => self.health.policies_incomplete(Moment::now(), error.clone()),
                    false => self.health.policies_failed(Moment::now(), error.clone()),
                }
            }
        }
    }

    /// Answers load balancers about the endpoints that are on this node now. `changed`: there may be others than the
    /// last time. To look at all Services at every change would cost more than the change.
    pub(super) fn serve_health_checks(
        &mut self,
        desired: &Desired,
        options: &Options,
        served: Vec<IpAddr>,
        changed: bool,
    ) {
        // On all addresses is one socket a family, whatever addresses come and go.
        let addresses = match options.node_port_addresses {
            NodePortAddresses::All => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            _ => served,
        };
        if !changed && self.answered_on.as_ref() == Some(&addresses) {
            return;
        }
        self.answered_on = Some(addresses.clone());
        self.health_checks.set(DesiredPorts::new(desired, addresses));
        for family in &self.families {
            let without_local_endpoints = |policy: fn(&ServicePort) -> TrafficPolicy| {
                let is_dropped = |port: &&ServicePort| port.rejection(policy(port)) == Some(Rejection::Drop);
                desired.ports().filter(|port| port.family == *family).filter(is_dropped).count()
            };
            let internal = without_local_endpoints(|port| port.internal_policy);
            let external = without_local_endpoints(|port| port.external_policy);
            self.metrics.set_no_local_endpoints(*family, TrafficPolicyField::Internal, internal);
            self.metrics.set_no_local_endpoints(*family, TrafficPolicyField::External, external);
        }
    }

    /// Stops the servers, once the answers under way are given.
    pub(super) async fn stop(self) {
        // Without a receiver there is nothing left to stop.
        let _ = self.stop.send(true);
        drop(self.health_checks);
        self.servers.stopped().await;
    }
}

/// Where the servers of a configuration listen.
pub(super) fn addresses(config: &Config) -> Addresses {
    Addresses {
        healthz: config.healthz_bind_address,
        metrics: config.metrics_bind_address,
        hard_fail: config.bind_address_hard_fail,
    }
}

/// How many unreadable objects health lists.
const LISTED: usize = 10;

/// Unreadable objects as problems. They fail no health check: all other objects are served, and a node that stops to take
/// traffic does not help the object.
fn unreadable(reasons: &[String]) -> Vec<HealthProblem> {
    let more = reasons.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("{more} more objects or documents cannot be read"));
    reasons.iter().take(LISTED).cloned().chain(more).map(HealthProblem::warning).collect()
}

/// The packets that a counter of the kernel's has seen; `None` where it is not there.
fn packets(name: &str) -> Option<u64> {
    Counters::open().and_then(|mut counters| counters.get(name)).ok().flatten().map(|counter| counter.packets)
}
