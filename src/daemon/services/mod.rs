//! The controller of Services: syncs them to the kernel in the proxy mode.

mod health_checks;
mod machine_facts;
mod programming_latency;
mod running_sync;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::{Backoff, Change, Family, Index, Kind, Name, NamespacedName};
use tokio::sync::mpsc;

use super::drift_watch::Drift;
use super::first_sync::FirstSync;
use super::node_addresses::NodeAddresses;
use super::restores::{Restores, UNKNOWN_PROCESS};
use crate::config::Config;
use crate::control::{
    ChangeCounts, Controller, ControllerName, DaemonState, Declaration, Due, FinishedSync, Mailbox,
    Measurements, Pending, Progress, Schedule, ServiceMeasurements, Status, SyncTrigger, Watch, Work,
};
use crate::daemon::mode_setup;
use crate::moment::Moment;
use crate::observe::http::TrafficRequest;
use crate::observe::traffic_events::DropLogRequests;
use crate::observe::unserved::{UnservedFrontends, UnservedReport};
use crate::source::Selection;
use crate::{memory, node};

pub(super) use health_checks::HealthChecks;
pub(super) use machine_facts::MachineFacts;
use programming_latency::ProgrammingLatency;
use running_sync::RunningSync;
use worker::ServiceSyncRequest;
pub(super) use worker::{ServiceSyncResult, ServiceWorker};

/// The backoff of failed syncs.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// The period of reading `route_localnet`, of whose changes the kernel does not notify.
const LOOPBACK_CHECK: Duration = Duration::from_secs(2);

/// The name of the controller.
pub(super) const NAME: ControllerName = ControllerName {
    label: "services",
    objects: "Services",
    rules: "rules of Services",
    event_action: "SyncProxyRules",
    is_service_proxy: true,
};

/// Returns the declaration of the controller for a node that serves these families.
pub(super) fn declaration(config: &Config, node: &Name, families: &[Family]) -> Declaration {
    let required = Selection::service_proxying(node.as_str()).into_iter().map(Watch::required);
    let cidrs = config.mode.uses_service_cidrs().then(|| Watch::optional(Selection::service_cidrs()));
    Declaration {
        name: NAME,
        rules: families.iter().map(|family| family.as_str()).collect(),
        watches: required.chain(cidrs).collect(),
    }
}

/// The handles by which the controller is connected with others than the index and the loop.
pub(super) struct ServiceHandles {
    /// This machine's addresses.
    pub(super) addresses: NodeAddresses,
    /// Changes of this machine's addresses.
    pub(super) address_changes: Mailbox<()>,
    /// External changes of the rules, if the kernel reports them.
    pub(super) drift: Option<Mailbox<Drift>>,
    /// The nf_tables generation of the latest reported change; 0 if it is not known.
    pub(super) generation: Arc<AtomicU32>,
    /// Requests for the traffic of Services.
    pub(super) traffic: mpsc::Receiver<TrafficRequest>,
    /// The health check ports of Services.
    pub(super) health_checks: HealthChecks,
    /// The progress of work.
    pub(super) progress: Arc<Progress>,
    /// Requests to log drops by source ranges; `None` with `--once`.
    pub(super) drop_log: Option<DropLogRequests>,
}

/// The log message of restores.
const RESTORED: &str = "another process changed the rules of Services; restored them";

/// The controller of Services.
pub(super) struct ServiceController {
    config: Config,
    node: Name,
    facts: MachineFacts,
    handles: ServiceHandles,
    /// The desired Services. While work runs, its thread also reads them, and they do not change.
    desired: Arc<Desired>,
    /// `None` while work runs.
    worker: Option<ServiceWorker>,
    pending: Option<Pending<(ServiceWorker, Option<ServiceSyncResult>)>>,
    schedule: Schedule,
    dirty: DirtyServices,
    /// The Services of which the running sync, or one that follows, programs a change.
    unwritten: BTreeSet<NamespacedName>,
    /// All required kinds were listed.
    is_ready: bool,
    first_sync: FirstSync,
    next_loopback_check: Instant,
    /// Another process changed the rules, or may have.
    has_drifted: bool,
    /// They were not changed by a write of this process that was rejected in part.
    is_changed_by_another: bool,
    restores: Restores,
    running_sync: RunningSync,
    /// The reason of the running sync.
    trigger: SyncTrigger,
    programming_latency: ProgrammingLatency,
    unserved_frontends: UnservedFrontends,
    /// Changes to unserved frontends that are not in the status yet.
    unserved: Option<UnservedReport>,
    declaration: Declaration,
    /// When the daemon started, until the first successful sync.
    started: Option<Instant>,
    status: Status,
}

impl ServiceController {
    /// Creates the controller. `started` is when the daemon started.
    pub(super) fn new(
        config: Config,
        node: Name,
        declaration: Declaration,
        facts: MachineFacts,
        handles: ServiceHandles,
        worker: ServiceWorker,
        started: Moment,
    ) -> Self {
        let now = Instant::now();
        let desired = Desired::new(node.clone()).with_external_cidrs(&config.external_address_cidrs);
        ServiceController {
            schedule: Schedule::new(config.sync.min_period, Some(config.sync.period), RETRY, now),
            config,
            node,
            facts,
            handles,
            desired: Arc::new(desired),
            pending: None,
            dirty: DirtyServices::default(),
            unwritten: BTreeSet::new(),
            is_ready: false,
            first_sync: FirstSync::for_services(),
            next_loopback_check: now,
            has_drifted: false,
            is_changed_by_another: false,
            restores: Restores::new(now),
            running_sync: RunningSync::new(worker.progress()),
            worker: Some(worker),
            trigger: SyncTrigger::Start,
            programming_latency: ProgrammingLatency::new(started.wall()),
            unserved_frontends: UnservedFrontends::default(),
            unserved: None,
            started: Some(started.monotonic()),
            status: Status {
                changes: [Kind::Service, Kind::EndpointSlice].map(ChangeCounts::new).into(),
                ..Status::new(&declaration)
            },
            declaration,
        }
    }

    fn start_sync(&mut self, due: Due, index: &Index, now: Instant) -> Option<Work> {
        let mut worker = self.worker.take()?;
        self.first_sync.started();
        let changed_by = std::mem::take(&mut self.is_changed_by_another).then(|| self.restores.process());
        let (objects, is_retrying) = (self.dirty.changed_objects(), self.schedule.is_retrying());
        self.trigger = SyncTrigger::new(due, &self.status, objects, is_retrying, changed_by);
        self.schedule.started(due, now);
        self.status.sync_started();
        if due == Due::FullSync && self.has_drifted {
            self.restores.started(now);
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.running_sync.started(now);
        self.programming_latency.add(&dirty.trigger_times);
        set_pending(&mut self.status.changes, &dirty);
        self.status.changes.iter_mut().for_each(ChangeCounts::take);
        let desired = Arc::get_mut(&mut self.desired).expect("no work reads them, as the worker is here");
        let changes = desired.update(index, dirty);
        self.unwritten.extend(changes.iter().map(|change| change.name.clone()));
        if let Some(report) = self.unserved_frontends.update(desired) {
            self.unserved.get_or_insert_default().add(report);
        }
        let options = node::options(&self.config, index.node(&self.node));
        let addresses = self.handles.addresses.get();
        let request = ServiceSyncRequest {
            node_facts: self.facts.node_facts(&self.config, index, &self.node, &options, &addresses),
            addresses,
            due,
            has_drifted: std::mem::take(&mut self.has_drifted),
            replaces_iptables_guard: self.facts.has_iptables_guard,
            changes,
            options,
        };
        let desired = Arc::clone(&self.desired);
        let (work, pending) = Work::new(move || {
            let result = worker.sync(&desired, request);
            // Before the result is received, so that the next sync can update them.
            drop(desired);
            memory::release_after_sync(result.families.iter().any(|family| family.is_full));
            (worker, Some(result))
        });
        self.pending = Some(pending);
        Some(work)
    }

    /// Starts reading the traffic of Services, if it was requested.
    fn start_reading_traffic(&mut self) -> Option<Work> {
        self.worker.as_ref()?;
        let request = self.handles.traffic.try_recv().ok()?;
        let mut worker = self.worker.take()?;
        let desired = Arc::clone(&self.desired);
        let (work, pending) = Work::new(move || {
            let traffic = worker.traffic(&desired);
            drop(desired);
            // The requester may have stopped waiting.
            let _ = request.send(traffic);
            (worker, None)
        });
        self.pending = Some(pending);
        Some(work)
    }

    /// Starts to log drops by source ranges, or ends it, if that was requested.
    fn start_changing_drop_log(&mut self, index: &Index) -> Option<Work> {
        self.worker.as_ref()?;
        let request = self.handles.drop_log.as_mut()?.take_due()?;
        let mut worker = self.worker.take()?;
        let options = node::options(&self.config, index.node(&self.node));
        let addresses = self.handles.addresses.get();
        let facts = self.facts.node_facts(&self.config, index, &self.node, &options, &addresses);
        let (mode, desired) = (self.config.mode, Arc::clone(&self.desired));
        let (work, pending) = Work::new(move || {
            let result = worker.log_source_ranges(request.group, mode, &desired, &options, &facts);
            drop(desired);
            request.report(result);
            (worker, None)
        });
        self.pending = Some(pending);
        Some(work)
    }

    fn handle_result(
        &mut self,
        worker: &ServiceWorker,
        result: &ServiceSyncResult,
        index: &Index,
        now: Instant,
    ) {
        let error = result.error();
        if error.is_none() {
            self.unwritten = result.deferred();
        }
        self.running_sync.ended(error.is_none());
        self.status.long_sync = None;
        let was_retrying = self.schedule.is_retrying();
        self.schedule.ended(error.is_some() || result.flows.is_err(), now);
        self.schedule.set_timer(result.next_due);
        if error.is_none() && std::mem::take(&mut self.facts.has_iptables_guard) {
            self.check_loopback(index);
        }
        if let (Some(error), Some(drop_log)) = (&result.log_error, &self.handles.drop_log) {
            tracing::warn!(%error, "observers miss drops by changed loadBalancerSourceRanges; retrying");
            drop_log.report_failure(error.clone());
        }
        if result.is_idle && !was_retrying {
            return;
        }
        let retry_in = self.schedule.retry_in(now).unwrap_or_default();
        if let Some(error) = error {
            tracing::error!(%error, "sync failed; keeping the last good rules, retrying in {retry_in:.1?}");
        }
        if let Err(error) = &result.flows {
            tracing::error!(%error, "retrying in {retry_in:.1?}");
        }
        result.log();
        let restored = result.families.iter().map(|family| family.restored).sum();
        if restored > 0
            && let Some(unlogged) = self.restores.restored(restored, now)
        {
            unlogged.log(self.restores.process(), RESTORED);
        }
        if result.error().is_none()
            && let Some(start) = self.started.take()
        {
            result.log_first(&self.desired, start);
        }
        let addresses = worker.node_port_addresses(&self.handles.addresses.get());
        let without_local_endpoints = self.handles.health_checks.update(
            &self.desired,
            worker.options(),
            addresses,
            result.local_endpoints_changed,
        );
        let UnservedReport { notices, omitted_notices, counts } = self.unserved.take().unwrap_or_default();
        let measurements = ServiceMeasurements {
            programming_latencies: match error {
                None if !result.is_deferred() => self.programming_latency.take(Timestamp::now()),
                _ => Vec::new(),
            },
            unserved: counts,
            without_local_endpoints,
            ..result.measurements()
        };
        let sync = FinishedSync {
            trigger: self.trigger.clone(),
            results: result.rules_results(),
            objects: self.desired.service_count(),
            unwritten: result.unwritten(),
            notices,
            omitted_notices,
            measurements: Measurements::Services(measurements),
        };
        self.status.sync_finished(sync, Moment::now());
    }

    fn handle_address_change(&mut self, index: &Index) {
        if self.handles.addresses.refresh() {
            self.schedule.request();
        }
        // The process that creates an interface may set `route_localnet` on it.
        self.check_loopback(index);
        mode_setup::route_localhost(&self.config);
    }

    /// Requests a sync if `route_localnet` changed.
    fn check_loopback(&mut self, index: &Index) {
        let options = node::options(&self.config, index.node(&self.node));
        if self.facts.update_route_localnet(&options) {
            self.schedule.request();
        }
    }

    fn handle_drift(&mut self, now: Instant) {
        let Some(worker) = &self.worker else { return };
        let Some(drift) = self.handles.drift.as_ref().and_then(Mailbox::take) else { return };
        let generation = self.handles.generation.load(Relaxed);
        if generation != 0 && worker.has_synced_since(generation) {
            return;
        }
        tracing::debug!(by = %drift.0, "the rules of Services were changed");
        self.has_drifted = true;
        // After a write that was rejected in part, the kernel names the tool that this daemon ran.
        let may_be_own = generation != 0 && worker.may_be_own_write(generation);
        self.is_changed_by_another |= !may_be_own;
        let process = if may_be_own { UNKNOWN_PROCESS } else { &drift.0 };
        self.schedule.request_full_sync(self.restores.changed_by(process, now));
    }
}

/// Sets the numbers of pending changes.
fn set_pending(changes: &mut [ChangeCounts], dirty: &DirtyServices) {
    for counts in changes {
        counts.pending =
            if counts.kind == Kind::Service { dirty.service_changes } else { dirty.slice_changes };
    }
}

impl Controller for ServiceController {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn handle_changes(&mut self, changes: &[Change], index: &Index, is_ready: bool) {
        changes.iter().for_each(|change| self.dirty.add(change));
        self.first_sync.update(self.declaration.has_unreadable_objects(index));
        let became_ready = is_ready && !std::mem::replace(&mut self.is_ready, is_ready);
        if became_ready || !self.dirty.is_empty_for(&self.node) {
            self.status.change_queued(Moment::now());
            set_pending(&mut self.status.changes, &self.dirty);
            self.schedule.request();
        }
    }

    fn poll(&mut self, index: &Index, now: Instant) {
        if let Some(unlogged) = self.restores.due_log(now) {
            unlogged.log(self.restores.process(), RESTORED);
        }
        if self.handles.address_changes.take().is_some() {
            self.handle_address_change(index);
        }
        if now >= self.next_loopback_check {
            self.next_loopback_check = now + LOOPBACK_CHECK;
            self.check_loopback(index);
        }
        if let Some(drop_log) = &mut self.handles.drop_log {
            drop_log.poll(now);
        }
        self.handle_drift(now);
    }

    fn next_poll(&self, now: Instant) -> Option<Instant> {
        let drop_log = self.handles.drop_log.as_ref().and_then(DropLogRequests::next_poll);
        self.restores.next_report(now).into_iter().chain(drop_log).chain([self.next_loopback_check]).min()
    }

    fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due().filter(|_| !self.first_sync.is_held())
    }

    fn start(&mut self, index: &Index, is_ready: bool, now: Instant) -> Option<Work> {
        let due = self.schedule.due(now).filter(|_| is_ready && !self.first_sync.is_held());
        match due {
            Some(due) => self.start_sync(due, index, now),
            None => {
                let is_synced = is_ready && self.status.last_sync.is_some();
                let reading = self.start_reading_traffic();
                reading.or_else(|| is_synced.then(|| self.start_changing_drop_log(index)).flatten())
            }
        }
    }

    fn finish(&mut self, index: &Index, now: Instant) {
        let Some((worker, result)) = self.pending.take().and_then(Pending::take) else { return };
        if let Some(result) = result {
            self.handle_result(&worker, &result, index, now);
        }
        self.worker = Some(worker);
    }

    fn report_progress(&mut self, now: Instant) {
        let Some(progress) = self.running_sync.poll(now) else { return };
        if progress.has_stepped {
            self.handles.progress.stepped(NAME, Moment::now());
        }
        if let Some(report) = progress.report {
            tracing::info!("{report}");
            self.status.long_sync = Some(report);
        }
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            is_held_back: self.first_sync.is_held(),
            contention: self.restores.contention(now),
            ..self.status.clone()
        }
    }

    fn add_to<'a>(&'a self, state: &mut DaemonState<'a>) {
        state.desired = Some(&self.desired);
        state.pending.extend([&self.dirty.services, &self.unwritten]);
        state.health_checks = Some(&self.handles.health_checks);
    }
}
