//! The controller of Services: syncs them to the kernel in the proxy mode.

mod isolation_health;
mod machine_facts;
mod reporter;
mod running_sync;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::DirtyServices;
use portcullis_cluster::{Backoff, Change, Index, Kind, Name};
use tokio::sync::mpsc;

use super::drift_watch::Drift;
use super::first_sync::FirstSync;
use super::node_addresses::NodeAddresses;
use super::repairs::Repairs;
use crate::config::Config;
use crate::control::{Controller, Due, Job, Mailbox, Pending, Schedule, Status, Work};
use crate::daemon::mode_setup;
use crate::observe::http::TrafficRequest;
use crate::{memory, node};

pub(super) use machine_facts::MachineFacts;
pub(super) use reporter::ServiceReporter;
use worker::ServiceSyncRequest;
pub(super) use worker::{ServiceSyncResult, ServiceWorker};

/// The backoff of failed syncs.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// The period of reading `route_localnet`, of whose changes the kernel does not notify.
const LOOPBACK_CHECK: Duration = Duration::from_secs(2);

/// The kinds without which the rules of Services would be incomplete. ServiceCIDRs are optional.
const REQUIRED: [Kind; 3] = [Kind::Node, Kind::Service, Kind::EndpointSlice];

/// The inputs of the controller other than the index.
pub(super) struct ServiceInputs {
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
}

/// The log message of restores.
const RESTORED: &str = "another process changed the rules of Services; restored them";

/// The controller of Services.
pub(super) struct ServiceController {
    config: Config,
    node: Name,
    facts: MachineFacts,
    inputs: ServiceInputs,
    /// `None` while work runs.
    worker: Option<ServiceWorker>,
    pending: Option<Pending<(ServiceWorker, Option<ServiceSyncResult>)>>,
    schedule: Schedule,
    dirty: DirtyServices,
    /// All required kinds were listed.
    is_ready: bool,
    first_sync: FirstSync,
    next_loopback_check: Instant,
    /// Another process changed the rules, or may have.
    has_drifted: bool,
    repairs: Repairs,
    reporter: ServiceReporter,
    /// When the daemon started, until the first successful sync.
    started: Option<Instant>,
    status: Status,
}

impl ServiceController {
    /// Creates the controller. `started` is when the daemon started.
    pub(super) fn new(
        config: Config,
        node: Name,
        facts: MachineFacts,
        inputs: ServiceInputs,
        worker: ServiceWorker,
        mut reporter: ServiceReporter,
        started: Instant,
    ) -> Self {
        let now = Instant::now();
        reporter.read_progress(worker.progress());
        ServiceController {
            schedule: Schedule::new(config.sync.min_period, Some(config.sync.period), RETRY, now),
            config,
            node,
            facts,
            inputs,
            worker: Some(worker),
            pending: None,
            dirty: DirtyServices::default(),
            is_ready: false,
            first_sync: FirstSync::for_services(),
            next_loopback_check: now,
            has_drifted: false,
            repairs: Repairs::new(now),
            reporter,
            started: Some(started),
            status: Status::new(Job::Services),
        }
    }

    fn start_sync(&mut self, due: Due, index: &Index, now: Instant) -> Option<Work> {
        let mut worker = self.worker.take()?;
        self.first_sync.started();
        self.schedule.started(due, now);
        if due == Due::FullSync && self.has_drifted {
            self.repairs.started(now);
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.reporter.sync_started(&dirty, now);
        let changes = worker.desired.update(index, dirty);
        self.reporter.report_unserved(&mut worker.desired);
        let options = node::options(&self.config, index.node(&self.node));
        let addresses = self.inputs.addresses.get();
        let request = ServiceSyncRequest {
            node_facts: self.facts.node_facts(&self.config, index, &self.node, &options, &addresses),
            addresses,
            due,
            has_drifted: std::mem::take(&mut self.has_drifted),
            replaces_iptables_guard: self.facts.has_iptables_guard,
            changes,
            options,
        };
        let (work, pending) = Work::new(move || {
            let result = worker.sync(request);
            if result.families.iter().any(|family| family.is_full) {
                memory::release();
            }
            (worker, Some(result))
        });
        self.pending = Some(pending);
        Some(work)
    }

    /// Starts reading the traffic of Services, if it was requested.
    fn start_reading_traffic(&mut self) -> Option<Work> {
        self.worker.as_ref()?;
        let request = self.inputs.traffic.try_recv().ok()?;
        let mut worker = self.worker.take()?;
        let (work, pending) = Work::new(move || {
            // The requester may have stopped waiting.
            let _ = request.send(worker.traffic());
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
        self.reporter.sync_ended(error.is_none(), now);
        let was_retrying = self.schedule.is_retrying();
        self.schedule.ended(error.is_some() || result.flows.is_err(), now);
        self.schedule.set_timer(result.next_due);
        self.status.syncs += 1;
        self.status.unwritten = result.unwritten();
        if error.is_none() && std::mem::take(&mut self.facts.has_iptables_guard) {
            self.check_loopback(index);
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
            && let Some(unlogged) = self.repairs.repaired(restored, now)
        {
            unlogged.log(self.repairs.process(), RESTORED);
        }
        if result.error().is_none()
            && let Some(start) = self.started.take()
        {
            result.log_first(&worker.desired, start);
        }
        self.reporter.synced(result, worker.desired.services().len());
        let addresses = worker.node_port_addresses(&self.inputs.addresses.get());
        self.reporter.serve_health_checks(
            &worker.desired,
            worker.options(),
            addresses,
            result.local_endpoints_changed,
        );
    }

    fn handle_address_change(&mut self, index: &Index) {
        if self.inputs.addresses.refresh() {
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
        let Some(drift) = self.inputs.drift.as_ref().and_then(Mailbox::take) else { return };
        let generation = self.inputs.generation.load(Relaxed);
        if generation != 0 && worker.has_synced_since(generation) {
            return;
        }
        tracing::debug!(by = %drift.0, "the rules of Services were changed");
        self.has_drifted = true;
        self.schedule.request_full_sync(self.repairs.changed_by(&drift.0, now));
    }
}

impl Controller for ServiceController {
    fn required_kinds(&self) -> &'static [Kind] {
        &REQUIRED
    }

    fn handle_changes(&mut self, changes: &[Change], index: &Index, is_ready: bool) {
        changes.iter().for_each(|change| self.dirty.add(change));
        self.first_sync.update(index.unreadable().may_concern_services(&self.node));
        let became_ready = is_ready && !std::mem::replace(&mut self.is_ready, is_ready);
        if became_ready || !self.dirty.is_empty_for(&self.node) {
            self.reporter.sync_requested(&self.dirty);
            self.schedule.request();
        }
    }

    fn poll(&mut self, index: &Index, now: Instant) {
        if let Some(unlogged) = self.repairs.due_log(now) {
            unlogged.log(self.repairs.process(), RESTORED);
        }
        if self.inputs.address_changes.take().is_some() {
            self.handle_address_change(index);
        }
        if now >= self.next_loopback_check {
            self.next_loopback_check = now + LOOPBACK_CHECK;
            self.check_loopback(index);
        }
        self.handle_drift(now);
    }

    fn next_poll(&self, now: Instant) -> Option<Instant> {
        self.repairs.next_report(now).into_iter().chain([self.next_loopback_check]).min()
    }

    fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due().filter(|_| !self.first_sync.is_held())
    }

    fn start(&mut self, index: &Index, is_ready: bool, now: Instant) -> Option<Work> {
        let due = self.schedule.due(now).filter(|_| is_ready && !self.first_sync.is_held());
        match due {
            Some(due) => self.start_sync(due, index, now),
            None => self.start_reading_traffic(),
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
        self.reporter.report_progress(now);
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            is_held_back: self.first_sync.is_held(),
            contention: self.repairs.contention(now),
            ..self.status.clone()
        }
    }
}
