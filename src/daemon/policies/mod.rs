//! The NetworkPolicy controller: compiles NetworkPolicies and ClusterNetworkPolicies, and programs their table.
//!
//! ```text
//! Index ─► Compiler ─changes─► Enforcer (on a thread) ─► nf_tables
//!                                 ▲                          │
//!                    next sync ───┴────── external changes ──┘
//! ```

mod interface_search;
mod link_watch;
mod pick_up;
mod termination;
mod warnings;
mod worker;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::{Backoff, Change, Index, Name};
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::compile::{Compiler, DirtyPolicyObjects, PolicyChanges, Scope};
use portcullis_policy::table::{self, EnforceError, Enforcer, TABLE};

use super::drift_watch::{self, Drift};
use super::first_sync::FirstSync;
use super::node_addresses::NodeAddresses;
use super::restores::Restores;
use crate::config::{Established, NetworkPolicy};
use crate::control::{
    Controller, ControllerName, DaemonState, Declaration, Due, FinishedSync, Mailbox, Pending, Schedule,
    Status, SyncTrigger, Wake, Watch, Work,
};
use crate::memory;
use crate::moment::Moment;
use crate::observe::traffic_events::DropLogRequests;
use crate::source::Selection;
use crate::{node, sysctl};

use interface_search::InterfaceSearch;
use pick_up::PickUp;
use termination::Termination;
use warnings::Warnings;
use worker::{PolicySyncRequest, PolicySyncResult, PolicyWorker};

/// The backoff after failed syncs.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The log message of restores.
const RESTORED: &str = "another process changed the NetworkPolicy table; restored it";

/// The name of the controller.
const NAME: ControllerName = ControllerName {
    label: "policies",
    objects: "policies",
    rules: "NetworkPolicy table",
    event_action: "Enforcing",
    is_service_proxy: false,
};

/// The name of the rules, which are synced as a whole.
const RULES: &str = "NetworkPolicy";

/// The consequence of objects that were never readable. The kernel had no earlier policies in their place, as the first sync
/// would be held back otherwise.
const INCOMPLETE: &str = "enforced without objects that cannot be read, so they may allow too much";

/// Returns the declaration of the controller.
pub(super) fn declaration() -> Declaration {
    // Unknown peers would be denied.
    let watches = Selection::network_policy().into_iter().map(Watch::required).collect();
    Declaration { name: NAME, rules: vec![RULES], watches }
}

/// The NetworkPolicy controller.
pub(super) struct PolicyController {
    config: NetworkPolicy,
    node: Name,
    addresses: NodeAddresses,
    /// External changes to the table.
    drift: Mailbox<Drift>,
    /// Changes to this node's links; `None` with `--once`.
    links: Option<Mailbox<()>>,
    dirty: DirtyPolicyObjects,
    /// `None` while a sync runs.
    worker: Option<PolicyWorker>,
    pending: Option<Pending<(PolicyWorker, Option<PolicySyncResult>)>>,
    /// Requests to log drops; `None` with `--once`.
    drop_log: Option<DropLogRequests>,
    schedule: Schedule,
    /// The reason of the running sync.
    trigger: SyncTrigger,
    first_sync: FirstSync,
    /// True if some objects that affect policies could not be read.
    has_unreadable: bool,
    /// All required objects were listed.
    was_ready: bool,
    restores: Restores,
    termination: Termination,
    has_synced: bool,
    pick_up: PickUp,
    interfaces: InterfaceSearch,
    /// The time of the next sync for rejected policies.
    rejected_due: Option<Instant>,
    warnings: Warnings,
    declaration: Declaration,
    status: Status,
}

impl PolicyController {
    /// Opens nf_tables for the policy table, without changes to the kernel.
    ///
    /// # Errors
    /// Returns an error if the kernel cannot enforce policies.
    pub(super) fn open(config: &NetworkPolicy) -> Result<Enforcer, EnforceError> {
        Enforcer::open(node::policy_options(config, None))
    }

    /// Creates the controller, and subscribes to external changes to the table. `once`: the process ends after the first
    /// sync, so it cannot end the pickup of connections.
    pub(super) fn new(
        config: NetworkPolicy,
        node: Name,
        addresses: NodeAddresses,
        enforcer: Enforcer,
        once: bool,
        drop_log: Option<DropLogRequests>,
        wake: &Wake,
    ) -> Self {
        sysctl::filter_bridged_packets();
        let now = Instant::now();
        let declaration = declaration();
        let mut schedule = Schedule::new(Duration::ZERO, None, RETRY, now);
        schedule.request();
        let compiler = Compiler::new(Scope::Node(node.clone())).with_overlay(config.has_overlay);
        PolicyController {
            config,
            node,
            addresses,
            drift: drift_watch::watch(TABLE, enforcer.socket(), wake),
            links: (!once).then(|| link_watch::watch(wake)),
            dirty: DirtyPolicyObjects::default(),
            worker: Some(PolicyWorker::new(compiler, enforcer)),
            pending: None,
            drop_log,
            schedule,
            trigger: SyncTrigger::Start,
            first_sync: FirstSync::for_policies(),
            has_unreadable: false,
            was_ready: false,
            restores: Restores::new(now),
            termination: Termination::new(now),
            has_synced: false,
            pick_up: PickUp::new(!once && matches!(table::read(TableFamily::Inet), Ok(None))),
            interfaces: InterfaceSearch::default(),
            rejected_due: None,
            warnings: Warnings::default(),
            status: Status::new(&declaration),
            declaration,
        }
    }

    /// Returns when a sync is due for a reason other than changes: a search for connections, interfaces or rejected policies, or
    /// the end of the pickup of connections.
    fn next_timer(&self) -> Option<Instant> {
        let termination = self.termination.next().filter(|_| !self.pick_up.is_active());
        [termination, self.interfaces.next(), self.rejected_due, self.pick_up.end()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns the reason for which a sync is due now, if one is.
    fn due(&self, now: Instant) -> Option<Due> {
        let is_timer_due = self.next_timer().is_some_and(|at| now >= at);
        self.schedule.due(now).or(is_timer_due.then_some(Due::Timer))
    }

    /// Returns true if a sync only has to write changes of policies: there is nothing to do without any. Most changes of pods have
    /// no effect on this node, such as the creation and the termination of a pod of another node.
    fn may_be_skipped(&self, due: Due, worker: &PolicyWorker, now: Instant) -> bool {
        let is_timer_due = self.next_timer().is_some_and(|at| now >= at);
        let has_other_work = self.termination.next().is_some() || self.rejected_due.is_some() || is_timer_due;
        let is_synced = self.has_synced && worker.was_committed() && !worker.needs_sync();
        due == Due::Change && is_synced && !self.schedule.is_retrying() && !has_other_work
    }

    /// Returns the request for a sync of these changes to the compiled policies, which may deny established connections or not.
    fn request(
        &mut self,
        due: Due,
        changes: PolicyChanges,
        may_deny: bool,
        index: &Index,
        now: Instant,
    ) -> PolicySyncRequest {
        let terminates = self.config.established == Established::Cut;
        if terminates && !self.config.audit {
            // The first sync may deny established connections: the policies before it are unknown.
            self.termination.request_if(!self.has_synced || may_deny);
        }
        self.pick_up.end_if_due(now, terminates && may_deny);
        let terminate = !self.pick_up.is_active() && self.termination.start_if_due(now);
        let changed_by = (due == Due::FullSync).then(|| {
            self.restores.started(now);
            self.restores.process().to_owned()
        });
        let own_node = index.node(&self.node);
        PolicySyncRequest {
            changes,
            options: node::policy_options(&self.config, own_node),
            lacks_pod_cidrs: node::lacks_pod_ranges(&self.config, own_node),
            search_interfaces: self.interfaces.start_if_due(now) || self.schedule.is_retrying(),
            changed_by,
            terminate,
            pick_up: self.pick_up,
            node_addresses: self.addresses.get().into_iter().collect::<HashSet<IpAddr>>(),
        }
    }

    /// Starts to log drops, or ends it, if that was requested and policies were written.
    fn start_changing_drop_log(&mut self) -> Option<Work> {
        let drop_log = self.drop_log.as_mut()?;
        self.worker.as_ref().filter(|worker| worker.was_committed())?;
        let request = drop_log.take_due()?;
        let (mut worker, pick_up) = (self.worker.take()?, self.pick_up);
        // Before the first event.
        drop_log.set_labels(worker.drop_labels());
        let (work, pending) = Work::new(move || {
            let result = worker.log_drops(request.group, pick_up);
            request.report(result);
            (worker, None)
        });
        self.pending = Some(pending);
        Some(work)
    }

    fn handle_result(&mut self, result: &PolicySyncResult, now: Instant) {
        self.warnings.log(result, &mut self.interfaces, now);
        self.schedule.ended(result.error.is_some(), now);
        self.rejected_due = result.next_due;
        if let Some(found) = &result.found {
            let reason = result.rejected.iter().find(|(id, _)| id == found).map_or("", |(_, reason)| reason);
            tracing::error!(
                policy = %found.policy, direction = %found.direction, error = reason,
                "cannot enforce a policy: its last accepted rules apply, or its pods are isolated; all other policies are enforced"
            );
        }
        if let Some(search) = &result.search {
            tracing::warn!("{search}");
            self.termination.request_if(result.needs_termination);
            return;
        }
        if let Some(error) = &result.error {
            let retry_in = self.schedule.retry_in(now).unwrap_or_default();
            tracing::error!(%error, "sync of policies failed; keeping the last good rules, retrying in {retry_in:.1?}");
            self.termination.request_if(result.needs_termination);
            return;
        }
        self.pick_up.synced(result.pick_up, now);
        if !std::mem::replace(&mut self.has_synced, true) {
            let changes = result.committed.changes;
            tracing::info!(took = ?result.took, changed = changes.total(), "NetworkPolicies are enforced");
        }
        if let Some((process, objects)) = &result.restored
            && let Some(unlogged) = self.restores.restored(*objects, now)
        {
            unlogged.log(process, RESTORED);
        }
        if result.terminated > 0 {
            tracing::info!(connections = result.terminated, "terminated connections that policies now deny");
        }
    }
}

impl Controller for PolicyController {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn handle_changes(&mut self, changes: &[Change], index: &Index, is_ready: bool) {
        let has_become_ready = is_ready && !self.was_ready;
        self.was_ready |= is_ready;
        // The first sync compiles all objects, so until all are listed, no changes have to be remembered.
        if self.was_ready {
            changes.iter().for_each(|change| self.dirty.add(change));
        }
        self.has_unreadable = self.declaration.has_unreadable_objects(index);
        self.first_sync.update(self.has_unreadable);
        if has_become_ready || !self.dirty.is_empty() {
            self.status.change_queued(Moment::now());
            self.schedule.request();
        }
    }

    fn poll(&mut self, _: &Index, now: Instant) {
        if let Some(unlogged) = self.restores.due_log(now) {
            unlogged.log(self.restores.process(), RESTORED);
        }
        if let Some(drop_log) = &mut self.drop_log {
            drop_log.poll(now);
        }
        if let Some(drift) = self.drift.take() {
            self.schedule.request_full_sync(self.restores.changed_by(&drift.0, now));
        }
        if self.links.as_ref().and_then(Mailbox::take).is_some() {
            self.interfaces.links_changed(now);
        }
    }

    fn next_poll(&self, now: Instant) -> Option<Instant> {
        let drop_log = self.drop_log.as_ref().and_then(DropLogRequests::next_poll);
        self.restores.next_report(now).into_iter().chain(drop_log).min()
    }

    fn next_due(&self) -> Option<Instant> {
        let due = [self.schedule.next_due(), self.next_timer()].into_iter().flatten().min();
        due.filter(|_| !self.first_sync.is_held())
    }

    fn start(&mut self, index: &Index, is_ready: bool, now: Instant) -> Option<Work> {
        let due = self.due(now).filter(|_| is_ready && !self.first_sync.is_held());
        let Some(due) = due else { return self.start_changing_drop_log() };
        let mut worker = self.worker.take()?;
        self.first_sync.started();
        let may_be_skipped =
            self.may_be_skipped(due, &worker, now) && worker.has_no_local_object(&self.dirty);
        let objects = self.dirty.objects.len() + self.dirty.nodes.len();
        // Full syncs follow only external changes.
        let changed_by = Some(self.restores.process());
        self.trigger = SyncTrigger::new(due, &self.status, objects, self.schedule.is_retrying(), changed_by);
        let dirty = std::mem::take(&mut self.dirty);
        let changes = worker.compile(index, &dirty, now);
        if may_be_skipped && changes.is_empty() && worker.has_no_local_object(&dirty) {
            self.schedule.started(due, now);
            self.status.had_no_effect(Moment::now());
            self.worker = Some(worker);
            return self.start_changing_drop_log();
        }
        self.rejected_due = None;
        let may_deny = changes.may_deny(worker.compiled());
        let request = self.request(due, changes, may_deny, index, now);
        self.schedule.started(due, now);
        self.status.sync_started();
        let (work, pending) = Work::new(move || {
            let result = worker.sync(request);
            memory::release_after_sync(result.committed.full);
            (worker, Some(result))
        });
        self.pending = Some(pending);
        Some(work)
    }

    fn finish(&mut self, _: &Index, now: Instant) {
        let Some((worker, result)) = self.pending.take().and_then(Pending::take) else { return };
        if let Some(drop_log) = &self.drop_log {
            drop_log.set_labels(worker.drop_labels());
        }
        let Some(result) = result else {
            if worker.needs_sync() {
                self.schedule.request();
            }
            self.worker = Some(worker);
            return;
        };
        self.handle_result(&result, now);
        // While the search for rejected policies continues, nothing was written yet at the start.
        if worker.was_committed() || result.search.is_none() {
            let sync = FinishedSync { trigger: self.trigger.clone(), ..worker.finished_sync(result) };
            self.status.sync_finished(sync, Moment::now());
        }
        self.worker = Some(worker);
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            is_held_back: self.first_sync.is_held(),
            incomplete: (self.has_unreadable && !self.first_sync.is_held()).then_some(INCOMPLETE),
            contention: self.restores.contention(now),
            ..self.status.clone()
        }
    }

    fn add_to<'a>(&'a self, state: &mut DaemonState<'a>) {
        state.policies = self.worker.as_ref().map(PolicyWorker::compiled);
    }
}
