//! Metrics, health and Events of syncs of Services, and the answers to load balancers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use portcullis_cluster::desired::{Desired, DirtyServices, Rejection, ServicePort};
use portcullis_cluster::{Family, NamespacedName, TrafficPolicy};
use portcullis_modes::{NodePortAddresses, Options, SyncErrorKind, SyncProgress, SyncResult};

use super::isolation_health;
use super::running_sync::RunningSync;
use super::worker::ServiceSyncResult;
use crate::control::Job;
use crate::moment::Moment;
use crate::observe::health::{Health, HealthProblem};
use crate::observe::health_check_node_port::{DesiredPorts, ServiceHealthServer};
use crate::observe::metrics::{Metrics, SyncScope, TrafficPolicyField};
use crate::observe::unserved;
use crate::source::EventRecorder;

/// The component of health problems about a running sync.
const SYNC: &str = "sync";

/// The reason and action of the Event about a Service whose rules the kernel rejects.
const NOT_WRITTEN: [&str; 2] = ["FailedToSyncService", "SyncProxyRules"];

/// Reports syncs of Services.
pub(in crate::daemon) struct ServiceReporter {
    families: Vec<Family>,
    metrics: Metrics,
    health: Arc<Health>,
    recorder: EventRecorder,
    health_checks: ServiceHealthServer,
    /// The addresses on which health check ports are served, once they are.
    health_check_addresses: Option<Vec<IpAddr>>,
    isolated: BTreeMap<Family, Vec<NamespacedName>>,
    running_sync: RunningSync,
    /// The trigger times of the changes that the running sync writes.
    trigger_times: Vec<Timestamp>,
    /// The start of the daemon: earlier trigger times are not measured.
    started: Timestamp,
}

impl ServiceReporter {
    /// Creates a reporter for these families.
    pub(in crate::daemon) fn new(
        families: Vec<Family>,
        metrics: Metrics,
        health: Arc<Health>,
        recorder: EventRecorder,
        health_checks: ServiceHealthServer,
        started: Timestamp,
    ) -> Self {
        ServiceReporter {
            families,
            metrics,
            health,
            recorder,
            health_checks,
            health_check_addresses: None,
            isolated: BTreeMap::new(),
            running_sync: RunningSync::default(),
            trigger_times: Vec::new(),
            started,
        }
    }

    /// Records that changes are pending.
    pub(super) fn sync_requested(&self, dirty: &DirtyServices) {
        let (now, moment) = (SystemTime::now(), Moment::now());
        for family in &self.families {
            self.metrics.sync_queued(*family, now);
            self.health.queued_update(*family, moment);
        }
        self.metrics.set_pending(dirty.service_changes, dirty.slice_changes);
    }

    /// Sets the progress counters of running syncs.
    pub(super) fn read_progress(&mut self, counters: Option<Arc<SyncProgress>>) {
        self.running_sync.set_counters(counters);
    }

    /// Reports the progress of a sync that takes long.
    pub(super) fn report_progress(&mut self, now: Instant) {
        let Some(progress) = self.running_sync.poll(now) else { return };
        if progress.has_stepped {
            self.health.job_stepped(Job::Services, Moment::now());
        }
        if let Some(report) = progress.report {
            tracing::info!("{report}");
            self.health.set_problems(SYNC, vec![HealthProblem::warning(report)]);
        }
    }

    /// Records the start of a sync of these changes.
    pub(super) fn sync_started(&mut self, dirty: &DirtyServices, now: Instant) {
        self.running_sync.started(now);
        self.metrics.changed(dirty.service_changes, dirty.slice_changes);
        self.metrics.set_pending(0, 0);
        let since_start = dirty.trigger_times.iter().filter(|time| **time > self.started);
        self.trigger_times.extend(since_start);
    }

    /// Records the end of a sync.
    pub(super) fn sync_ended(&mut self, has_succeeded: bool, now: Instant) {
        if self.running_sync.ended(has_succeeded, now) {
            self.health.set_problems(SYNC, Vec::new());
        }
    }

    /// Reports frontends that are not served, if they changed.
    pub(super) fn report_unserved(&self, desired: &mut Desired) {
        unserved::report(desired, &self.metrics, &self.recorder);
    }

    /// Reports the result of a sync. `services` is the number of Services.
    pub(super) fn synced(&mut self, result: &ServiceSyncResult, services: usize) {
        let now = SystemTime::now();
        for family in &result.families {
            self.report_family(family, now);
        }
        let isolated = self.isolated.values().flatten().collect();
        self.health
            .set_problems("Services", isolation_health::problem(&isolated, services).into_iter().collect());
        if let Ok(flows) = &result.flows {
            for (family, deleted) in flows.by_family() {
                self.metrics.conntrack_reconciled(family, flows.duration, deleted as u64);
            }
        }
        if result.error().is_none() {
            let now = Timestamp::now();
            for trigger in std::mem::take(&mut self.trigger_times) {
                let took = now.duration_since(trigger).unsigned_abs();
                self.families.iter().for_each(|family| self.metrics.network_programmed(*family, took));
            }
        }
    }

    fn report_family(&mut self, result: &SyncResult, now: SystemTime) {
        let (family, scope) =
            (result.family, if result.is_full { SyncScope::Full } else { SyncScope::Partial });
        self.metrics.sync_ended(family, scope, result.duration);
        match &result.error {
            None => {
                self.metrics.synced(family, now);
                self.health.synced(family, Moment::now());
            }
            Some(error) => {
                self.health.sync_failed(family, Moment::now(), error.to_string());
                self.metrics.sync_failed(family);
                if matches!(error.kind(), SyncErrorKind::ToolFailed | SyncErrorKind::Locked) {
                    self.metrics.restore_failed(family, scope);
                }
            }
        }
        for table in &result.tables {
            self.metrics.set_iptables_rules(family, table.table, table.in_kernel, table.written);
        }
        self.metrics.drift_repaired(family, result.restored);
        let isolated: Vec<NamespacedName> = result.isolated.iter().map(|i| i.service.clone()).collect();
        let before = self.isolated.entry(family).or_default();
        for new in result.isolated.iter().filter(|isolated| !before.contains(&isolated.service)) {
            self.recorder.service_event(&new.service, NOT_WRITTEN, &new.to_string());
        }
        self.metrics.set_isolated(family, before, &isolated);
        *before = isolated;
    }

    /// Updates the health check ports and the metrics of local endpoints. Nothing is done if neither the addresses nor local
    /// endpoints changed (`has_changed`): looking at all Services at each change would cost more than the change.
    pub(super) fn serve_health_checks(
        &mut self,
        desired: &Desired,
        options: &Options,
        node_port_addresses: Vec<IpAddr>,
        has_changed: bool,
    ) {
        // The unspecified addresses need only one socket per family, whatever addresses the machine has.
        let addresses = match options.node_port_addresses {
            NodePortAddresses::All => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            _ => node_port_addresses,
        };
        if !has_changed && self.health_check_addresses.as_ref() == Some(&addresses) {
            return;
        }
        self.health_check_addresses = Some(addresses.clone());
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
}
