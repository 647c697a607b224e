//! Metrics, health and Events of controllers, as folds over their statuses.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_cluster::{Family, NamespacedName, ObjectKey};
use portcullis_modes::IsolationCause;
use portcullis_podnet::source_check;

use super::health::{Health, HealthProblem};
use super::isolation_health;
use super::local_api::Timeline;
use super::metrics::{Metrics, SyncScope, TrafficPolicyField};
use super::policy_drops::PolicyDrops;
use super::reported_statuses::ReportedStatuses;
use super::unreadable_reporter::UnreadableReporter;
use crate::control::{
    ChangeCounts, ControllerName, FinishedSync, IsolatedObject, Measurements, PodAddressSource,
    PodNetworkMeasurements, PolicyMeasurements, RulesResult, ServiceMeasurements, Status,
};
use crate::moment::Moment;
use crate::node_network::address_usage;
use crate::source::{EventRecorder, SourceHealth};

/// The component of health problems about running syncs.
const SYNC: &str = "sync";

/// The fold over the statuses of all controllers.
pub(super) struct ControllerStatuses {
    metrics: Metrics,
    health: Arc<Health>,
    recorder: EventRecorder,
    unreadable: UnreadableReporter,
    seen: BTreeMap<ControllerName, SeenController>,
    /// The policy table's drop counters. They are read when metrics are scraped, and for the local API.
    drops: PolicyDrops,
    reported: ReportedStatuses,
    timeline: Timeline,
}

/// What was seen of a controller.
#[derive(Default)]
struct SeenController {
    /// The last finished sync.
    sync: Option<Arc<FinishedSync>>,
    /// The isolated objects of each set of rules.
    isolated: BTreeMap<&'static str, Arc<[IsolatedObject]>>,
    /// The health problems of isolated objects.
    isolation: Vec<HealthProblem>,
    /// The counts of changes.
    changes: Vec<ChangeCounts>,
    /// The contention; `None` before the first status.
    contention: Option<Option<String>>,
}

impl ControllerStatuses {
    pub(super) fn new(
        metrics: Metrics,
        health: Arc<Health>,
        recorder: EventRecorder,
        source: Arc<SourceHealth>,
    ) -> Self {
        let unreadable = UnreadableReporter::new(Arc::clone(&health), source);
        ControllerStatuses {
            metrics,
            health,
            recorder,
            unreadable,
            seen: BTreeMap::new(),
            drops: PolicyDrops::default(),
            reported: ReportedStatuses::default(),
            timeline: Timeline::default(),
        }
    }

    /// Registers the counters of packets that policies drop. `audit`: they are counted, not dropped.
    pub(super) fn read_policy_drops(&self, audit: bool) {
        let drops = self.drops.clone();
        self.metrics.read_policy_drops(audit, move || drops.read().unwrap_or_default());
    }

    /// Returns the counters of packets that policies drop.
    pub(super) fn drops(&self) -> &PolicyDrops {
        &self.drops
    }

    /// Returns the statuses of the controllers as they were last reported.
    pub(super) fn reported(&self) -> &ReportedStatuses {
        &self.reported
    }

    /// Returns the timeline, to which finished syncs are added.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Handles the statuses of all controllers.
    pub(super) fn observe(&mut self, statuses: &[Status]) {
        self.unreadable.report_held_back(statuses);
        self.reported.report(statuses, Moment::now());
        for status in statuses {
            let mut seen = self.seen.remove(&status.name).unwrap_or_default();
            self.observe_one(status, &mut seen);
            let incomplete = self.unreadable.report_incomplete(status);
            let others = status.problems.iter().cloned().map(HealthProblem::warning);
            let problems = incomplete.into_iter().chain(seen.isolation.clone()).chain(others);
            self.health.set_problems(status.name.objects, problems.collect());
            self.seen.insert(status.name, seen);
        }
        let long_syncs = statuses.iter().filter_map(|status| status.long_sync.as_ref());
        self.health.set_problems(SYNC, long_syncs.map(HealthProblem::warning).collect());
    }

    fn observe_one(&self, status: &Status, seen: &mut SeenController) {
        let name = status.name;
        self.health.set_syncs(name, status.syncs.clone(), status.is_held_back);
        // The loop reports each iteration, and most of them change nothing of this.
        if seen.contention.as_ref() != Some(&status.contention) {
            self.report_contention(status);
            seen.contention = Some(status.contention.clone());
        }
        let changes = status.syncs.iter().filter_map(|history| history.oldest_change);
        let oldest_change = changes.min_by_key(|at| at.monotonic());
        self.metrics.set_oldest_change(name.label, oldest_change.map(|at| at.wall().into()));
        if name.is_service_proxy {
            self.report_changes(status, seen);
        }
        let Some(sync) = &status.last_sync else { return };
        if seen.sync.as_ref().is_some_and(|last| Arc::ptr_eq(last, sync)) {
            return;
        }
        seen.sync = Some(Arc::clone(sync));
        for result in &sync.results {
            self.metrics.controller_synced(name.label, result.error.is_none(), result.duration);
            self.timeline.add_sync(name, result, &sync.trigger, Moment::now());
            self.report_isolated(name, result, seen);
        }
        match &sync.measurements {
            Measurements::None => {}
            Measurements::Services(measurements) => self.report_services(sync, measurements),
            Measurements::Policies(measurements) => self.report_policies(sync, measurements),
            Measurements::PodNetwork(measurements) => self.report_pod_network(sync, measurements),
        }
        for notice in &sync.notices {
            let names = [notice.reason, name.event_action];
            self.recorder.shared_event(&notice.object, names, notice.note.clone());
        }
        self.recorder.omit(sync.omitted_notices as u64);
        let isolated: BTreeMap<&ObjectKey, IsolationCause> = seen
            .isolated
            .values()
            .flat_map(|objects| objects.iter())
            .map(|isolated| (&isolated.object, isolated.cause))
            .collect();
        self.metrics.set_isolated_objects(name.label, isolated.len());
        seen.isolation = isolation_health::problems(name, &isolated, sync.objects);
    }

    /// Reports that another process keeps changing rules. It fails `/healthz`, as the rules are wrong for a part of the time,
    /// and not `/livez`, as a restart does not stop the other process.
    fn report_contention(&self, status: &Status) {
        self.metrics.set_contention(status.name.label, status.contention.is_some());
        let problem = status.contention.clone().map(HealthProblem::not_ready);
        self.health.set_problems(status.name.rules, problem.into_iter().collect());
    }

    /// Reports pending and taken changes in kube-proxy's metrics.
    fn report_changes(&self, status: &Status, seen: &mut SeenController) {
        for history in &status.syncs {
            if let (Some(family), Some(at)) = (family(history.rules), history.last_change) {
                self.metrics.sync_queued(family, at.wall().into());
            }
        }
        for (position, counts) in status.changes.iter().enumerate() {
            let before = seen.changes.get(position);
            if before == Some(counts) {
                continue;
            }
            self.metrics.changed(counts.kind, counts.taken - before.map_or(0, |before| before.taken));
            self.metrics.set_pending(counts.kind, counts.pending);
        }
        seen.changes.clone_from(&status.changes);
    }

    /// Records an Event about each object that is newly isolated.
    fn report_isolated(&self, name: ControllerName, result: &RulesResult, seen: &mut SeenController) {
        let isolated: Arc<[IsolatedObject]> = result.isolated.as_slice().into();
        let now = Moment::now();
        self.reported.set_isolated(name, result.rules, Arc::clone(&isolated), now);
        let before = seen.isolated.insert(result.rules, isolated).unwrap_or_default();
        self.timeline.add_isolation(name, result.rules, &before, &result.isolated, now);
        let was_isolated: BTreeSet<&ObjectKey> = before.iter().map(|isolated| &isolated.object).collect();
        for IsolatedObject { object, text, .. } in &result.isolated {
            if !was_isolated.contains(object) {
                let reason = format!("FailedToSync{}", object.kind);
                self.recorder.object_event(object, reason, name.event_action, text);
            }
        }
        if let Some(family) = family(result.rules).filter(|_| name.is_service_proxy) {
            let names = |isolated: &[IsolatedObject]| -> Vec<NamespacedName> {
                isolated.iter().map(|isolated| isolated.object.name.clone()).collect()
            };
            self.metrics.set_isolated(family, &names(&before), &names(&result.isolated));
        }
    }

    /// Reports a sync of Services in kube-proxy's metrics.
    fn report_services(&self, sync: &FinishedSync, measurements: &ServiceMeasurements) {
        let results = || sync.results.iter().filter_map(|result| Some((family(result.rules)?, result)));
        for (family, result) in results() {
            let scope = if result.is_full { SyncScope::Full } else { SyncScope::Partial };
            self.metrics.sync_ended(family, scope, result.duration);
            match result.error {
                None => self.metrics.synced(family, SystemTime::now()),
                Some(_) => self.metrics.sync_failed(family),
            }
            if measurements.failed_restores.contains(&family) {
                self.metrics.restore_failed(family, scope);
            }
            self.metrics.drift_restored(family, result.restored);
            for latency in &measurements.programming_latencies {
                self.metrics.network_programmed(family, *latency);
            }
        }
        for (family, table) in &measurements.tables {
            self.metrics.set_iptables_rules(*family, table.table, table.in_kernel, table.written);
        }
        if let Some((duration, deleted)) = &measurements.stale_flows {
            for (family, deleted) in deleted {
                self.metrics.conntrack_reconciled(*family, *duration, *deleted as u64);
            }
        }
        if let Some(counts) = measurements.unserved {
            self.metrics.set_unserved_frontends(counts.shadowed, counts.not_allowed);
        }
        for (family, ports) in &measurements.without_local_endpoints {
            self.metrics.set_no_local_endpoints(*family, TrafficPolicyField::Internal, ports.internal);
            self.metrics.set_no_local_endpoints(*family, TrafficPolicyField::External, ports.external);
        }
    }

    fn report_pod_network(&self, sync: &FinishedSync, measurements: &PodNetworkMeasurements) {
        let problems = measurements.problem_counts();
        self.metrics.set_pod_network_nodes(measurements.nodes, &problems, measurements.rejected);
        self.metrics.set_pod_network_ready(measurements.is_ready);
        self.metrics.leaked_attachments_returned(measurements.leaked_attachments);
        // Without IPv6 pods there is no counter.
        self.metrics.read_spoofed_packets(|| source_check::dropped_packets().ok().flatten().unwrap_or(0));
        let PodAddressSource { state_dir, pod_cidrs } = measurements.addresses.clone();
        self.metrics.read_pod_addresses(move || address_usage(&state_dir, &pod_cidrs).unwrap_or_default());
        for result in &sync.results {
            self.metrics.pod_network_restored(result.restored);
            match result.error {
                None => self.metrics.pod_network_synced(result.is_full, result.duration, SystemTime::now()),
                Some(_) => self.metrics.pod_network_failed(),
            }
        }
    }

    fn report_policies(&self, sync: &FinishedSync, measurements: &PolicyMeasurements) {
        self.drops.set_labels(Arc::clone(&measurements.drop_labels));
        self.metrics.set_policy_pods(measurements.pods, measurements.isolated_pods);
        self.metrics.connections_terminated(measurements.terminated);
        self.metrics.set_policy_evaluation(&measurements.evaluation);
        for result in &sync.results {
            self.metrics.policies_restored(result.restored);
            match result.error {
                None => self.metrics.policies_synced(result.is_full, result.duration, SystemTime::now()),
                Some(_) => self.metrics.policies_failed(),
            }
        }
    }
}

/// Returns the IP family of a set of rules of Services.
fn family(rules: &str) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| family.as_str() == rules)
}
