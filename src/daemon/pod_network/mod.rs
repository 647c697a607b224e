//! The controller of the pod network: routes to the pods of other nodes, and what depends on them.
//!
//! ```text
//! Nodes ─┐
//!        ├─► PodNetworkWorker (on a thread): links ─► routes, neighbours, FDB entries ─► egress, installation
//! links ─┘           ▲
//!                    └── monitor: external changes of links, addresses, routes, neighbours, FDB entries
//! ```

mod finished;
mod monitor;
mod reported;
mod worker;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_cluster::node::Node;
use portcullis_cluster::{Backoff, Change, Index, Kind, Name};

use super::drift_watch::Drift;
use super::first_sync::FirstSync;
use super::restores::Restores;
use crate::config::{Config, ProxyMode};
use crate::control::{
    Controller, ControllerName, Declaration, Due, FinishedSync, Mailbox, Pending, Schedule, Status,
    SyncTrigger, Wake, Watch, Work,
};
use crate::memory;
use crate::moment::Moment;
use crate::node_network::reserved;
use crate::source::{EventRecorder, Selection};

pub(super) use monitor::LinkDrift;
use reported::ReportedProblems;
use worker::{PodNetworkRequest, PodNetworkResult, PodNetworkWorker};

/// The backoff after failed syncs.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The log message of restores.
const RESTORED: &str = "another process changed links or routes of the pod network; restored them";

/// The name of the controller.
const NAME: ControllerName = ControllerName {
    label: "pod-network",
    objects: "nodes",
    rules: "pod network",
    event_action: "ProgrammingPodNetwork",
    is_service_proxy: false,
};

/// The name of the rules, which are synced as a whole.
const RULES: &str = "pod network";

/// The consequence of Nodes that were never readable.
const INCOMPLETE: &str = "programmed without Nodes that cannot be read, so their pods cannot be reached";

/// Returns the declaration of the controller.
pub(super) fn declaration() -> Declaration {
    // With fewer Nodes, the first sync would remove routes that are still needed.
    let watches = vec![
        Watch::required(Selection::all(Kind::Node)),
        Watch::optional(Selection::service_cidrs()),
        Watch::optional(Selection::services()),
        Watch::optional(Selection::endpoint_slices()),
    ];
    Declaration { name: NAME, rules: vec![RULES], watches }
}

/// The controller of the pod network.
pub(super) struct PodNetworkController {
    node: Name,
    /// The folder of the plugin's records.
    state_dir: PathBuf,
    /// Clears the condition `NetworkUnavailable` of the Node.
    recorder: EventRecorder,
    /// External changes.
    drift: Mailbox<LinkDrift>,
    /// External changes of the tables of egress rules and host ports.
    tables: Vec<Mailbox<Drift>>,
    dirty: BTreeSet<Name>,
    /// Addresses that no pod CIDR may contain may have changed.
    has_new_reserved: bool,
    /// Services have addresses on an interface of the node (IPVS mode), which are no addresses for host ports.
    has_service_interface: bool,
    /// The addresses of Services may have changed.
    has_new_services: bool,
    /// `None` while a sync runs.
    worker: Option<PodNetworkWorker>,
    pending: Option<Pending<(PodNetworkWorker, PodNetworkResult)>>,
    schedule: Schedule,
    trigger: SyncTrigger,
    first_sync: FirstSync,
    has_unreadable: bool,
    restores: Restores,
    /// What another process changed since the last sync.
    changed: Option<LinkDrift>,
    reported: ReportedProblems,
    has_synced: bool,
    declaration: Declaration,
    status: Status,
}

impl PodNetworkController {
    /// Creates the controller, and subscribes to external changes.
    ///
    /// # Errors
    /// The kernel has no rtnetlink.
    pub(super) fn new(
        config: &Config,
        node: Name,
        recorder: EventRecorder,
        wake: &Wake,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let declaration = declaration();
        let mut worker = PodNetworkWorker::new(config, node.clone())?;
        let state_dir = worker.state_dir().to_owned();
        let mut schedule = Schedule::new(Duration::ZERO, Some(config.sync.period), RETRY, now);
        schedule.request();
        Ok(PodNetworkController {
            node,
            state_dir,
            recorder,
            drift: monitor::watch(worker.shared(), wake),
            tables: worker.watch_tables(wake),
            dirty: BTreeSet::new(),
            has_new_reserved: true,
            has_service_interface: config.mode == ProxyMode::Ipvs,
            has_new_services: true,
            worker: Some(worker),
            pending: None,
            schedule,
            trigger: SyncTrigger::Start,
            first_sync: FirstSync::for_pod_network(),
            has_unreadable: false,
            restores: Restores::new(now),
            changed: None,
            reported: ReportedProblems::default(),
            has_synced: false,
            status: Status::new(&declaration),
            declaration,
        })
    }

    fn request(&mut self, index: &Index, is_full: bool) -> PodNetworkRequest {
        let nodes = std::mem::take(&mut self.dirty).into_iter();
        let nodes: Vec<(Name, Option<Node>)> =
            nodes.map(|name| (name.clone(), index.node(&name).cloned())).collect();
        let has_new_reserved = std::mem::take(&mut self.has_new_reserved) || is_full;
        let has_new_services = std::mem::take(&mut self.has_new_services) && self.has_service_interface;
        PodNetworkRequest {
            nodes,
            reserved: has_new_reserved.then(|| reserved::addresses(index)),
            service_addresses: has_new_services.then(|| reserved::service_addresses(index)),
            is_full,
        }
    }

    fn handle_result(&mut self, result: &mut PodNetworkResult, now: Instant) {
        self.schedule.ended(result.error.is_some(), now);
        self.reported.log(&result.problems);
        if let Some(error) = &result.error {
            let retry_in = self.schedule.retry_in(now).unwrap_or_default();
            tracing::error!(error = %error.message, "the pod network is not ready; trying again in {retry_in:.1?}");
        } else if !std::mem::replace(&mut self.has_synced, true) {
            tracing::info!(
                took = ?result.took, nodes = result.counts.nodes, changed = result.changes, mtu = result.mtu,
                "the routes of the pod network are programmed"
            );
        }
        if result.restored > 0
            && let Some(unlogged) = self.restores.restored(result.restored, now)
        {
            unlogged.log(self.restores.process(), RESTORED);
        }
    }
}

impl Controller for PodNetworkController {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn handle_changes(&mut self, changes: &[Change], index: &Index, is_ready: bool) {
        for change in changes {
            match change.key.kind {
                Kind::Node => _ = self.dirty.insert(change.cluster_scoped_name()),
                _ => self.has_new_reserved |= reserved::is_relevant(change),
            }
            self.has_new_services |= change.key.kind == Kind::Service;
        }
        self.has_unreadable = self.declaration.has_unreadable_objects(index);
        self.first_sync.update(self.has_unreadable);
        let has_new_services = self.has_new_services && self.has_service_interface;
        if !self.dirty.is_empty() || self.has_new_reserved || has_new_services {
            if is_ready {
                self.status.change_queued(Moment::now());
            }
            self.schedule.request();
        }
    }

    fn poll(&mut self, _: &Index, now: Instant) {
        if let Some(unlogged) = self.restores.due_log(now) {
            unlogged.log(self.restores.process(), RESTORED);
        }
        if let Some(drift) = self.drift.take() {
            self.schedule.request_full_sync(self.restores.changed_by(drift.description(), now));
            self.changed = Some(drift);
        }
        for drift in self.tables.iter().filter_map(Mailbox::take).filter(|drift| !is_own(drift)) {
            self.schedule.request_full_sync(self.restores.changed_by(&drift.0, now));
            self.changed = Some(LinkDrift::Rules);
        }
    }

    fn next_poll(&self, now: Instant) -> Option<Instant> {
        self.restores.next_report(now)
    }

    fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due().filter(|_| !self.first_sync.is_held())
    }

    fn start(&mut self, index: &Index, is_ready: bool, now: Instant) -> Option<Work> {
        let due = self.schedule.due(now).filter(|_| is_ready && !self.first_sync.is_held())?;
        let mut worker = self.worker.take()?;
        self.first_sync.started();
        let changed = self.changed.take_if(|_| due == Due::FullSync);
        if changed.is_some() {
            self.restores.started(now);
        }
        let changed_by = changed.map(LinkDrift::description);
        let (objects, is_retrying) = (self.dirty.len(), self.schedule.is_retrying());
        self.trigger = SyncTrigger::new(due, &self.status, objects, is_retrying, changed_by);
        let request = self.request(index, due == Due::FullSync || is_retrying);
        self.schedule.started(due, now);
        self.status.sync_started();
        let (work, pending) = Work::new(move || {
            let result = worker.sync(request);
            memory::release_after_sync(result.is_full);
            (worker, result)
        });
        self.pending = Some(pending);
        Some(work)
    }

    fn finish(&mut self, index: &Index, now: Instant) {
        let Some((worker, mut result)) = self.pending.take().and_then(Pending::take) else { return };
        self.worker = Some(worker);
        self.handle_result(&mut result, now);
        self.status.problems = self.reported.health(&result.problems, &self.node);
        self.status.problems.append(&mut result.warnings);
        if result.error.is_none() && index.node(&self.node).is_some_and(|node| node.network_unavailable) {
            self.recorder.clear_network_unavailable();
        }
        let notices = self.reported.notices(&result.problems, &self.node);
        let sync = finished::sync(result, notices, index.count(Kind::Node), &self.state_dir);
        self.status.sync_finished(FinishedSync { trigger: self.trigger.clone(), ..sync }, Moment::now());
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            is_held_back: self.first_sync.is_held(),
            incomplete: (self.has_unreadable && !self.first_sync.is_held()).then_some(INCOMPLETE),
            contention: self.restores.contention(now),
            ..self.status.clone()
        }
    }
}

/// Returns true for changes by the CNI plugin, which adds and removes host ports, and by this process.
fn is_own(drift: &Drift) -> bool {
    drift.0.starts_with("portcullis (")
}
