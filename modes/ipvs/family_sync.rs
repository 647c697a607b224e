//! The sync of one family: takes the pending Services, plans their operations, and has them executed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use super::audit::{self, AuditSnapshot, AuditWrites};
use super::blame;
use super::errors::cannot;
use super::executor::{Executor, Results};
use super::ip_set::IpSet;
use super::kernel::{IpvsKernel, ServerChange};
use super::pending::Pending;
use super::planner::{self, Operation, Plan};
use super::programmed::{ChangeSet, Programmed, Update};
use super::rejections::RejectedEntries;
use super::renderer::Renderer;
use super::rule_sync::TABLES;
use super::rules::Rules;
use super::server_diff::ServerDiff;
use super::snapshot::{FamilySnapshot, NodeSnapshot, read_servers};
use super::termination::Terminations;
use super::unconfirmed::Unconfirmed;
use crate::error::SyncError;
use crate::iptables::{IptablesKernel, Table};
use crate::mode::{IsolatedService, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::sync_state::SyncState;

/// The number of changes that a full sync sends at once, so that its memory does not grow with the cluster.
const CHANGES_PER_SEND: usize = 1800;

/// One family of a node in IPVS mode.
pub(super) struct FamilySync {
    pub(super) programmed: Programmed,
    pending: Pending,
    terminations: Terminations,
    sync_state: SyncState,
    /// Virtual servers that may differ from what was written: the kernel rejected a change, or an audit found another.
    unverified: BTreeSet<VirtualServer>,
    /// Virtual servers of rejected Services that the kernel does not have, as it rejected to add them.
    missing: BTreeSet<VirtualServer>,
    unconfirmed: Unconfirmed,
    pub(super) executor: Executor,
}

/// The inputs of a sync.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) desired: &'a Desired,
    pub(super) options: &'a Options,
    pub(super) facts: &'a NodeFacts,
    pub(super) now: Instant,
}

impl FamilySync {
    pub(super) fn new(renderer: Renderer, iptables: Box<dyn IptablesKernel>, excluded: Arc<[IpNet]>) -> Self {
        FamilySync {
            executor: Executor::new(renderer.family, iptables),
            programmed: Programmed::new(renderer, excluded),
            pending: Pending::default(),
            terminations: Terminations::default(),
            sync_state: SyncState::NotSynced,
            unverified: BTreeSet::new(),
            missing: BTreeSet::new(),
            unconfirmed: Unconfirmed::default(),
        }
    }

    pub(super) fn family(&self) -> Family {
        self.programmed.family()
    }

    /// Adopts new options or node facts; the next sync writes what they change.
    pub(super) fn reconfigure(&mut self, options: &Options, facts: &NodeFacts) {
        let renderer = self.programmed.renderer().with_facts(options, facts);
        self.pending.set_renderer(Some(renderer).filter(|next| next != self.programmed.renderer()));
        self.executor.rules.mark_outdated();
    }

    /// Returns the time of the next sync that is necessary without a change.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.terminations.next_check().into_iter().chain(self.pending.next_retry()).min()
    }

    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        node: &mut NodeSnapshot,
        changes: &[ServiceChange],
        inputs: Inputs<'_>,
    ) -> SyncResult {
        let start = Instant::now();
        self.pending.add_changes(self.family(), changes);
        self.pending.add_retries(inputs.now);
        let mut results = Results::default();
        let is_full = self.sync_state != SyncState::InSync;
        let synced = match is_full {
            true => self.full(kernel, node, inputs, &mut results),
            false => self.incremental(kernel, inputs, &mut results),
        };
        let synced = synced.and_then(|()| self.delete_drained(kernel, inputs.now, &mut results));
        let rejected = results.rejected_addresses.into_iter().next();
        let synced = synced.and_then(|()| rejected.map_or(Ok(()), |rejected| Err(rejected.error)));
        match synced {
            // The kernel may have part of the changes.
            Err(_) => self.mark_unverified(),
            Ok(()) => self.unconfirmed = Unconfirmed::default(),
        }
        SyncResult {
            family: self.family(),
            is_full,
            duration: start.elapsed().max(Duration::from_nanos(1)),
            written: results.written,
            tables: self.executor.rules.count(results.rules),
            restored: results.restored,
            deferred: Vec::new(),
            isolated: self.isolated(),
            error: synced.err(),
        }
    }

    /// Returns the rejected Services.
    fn isolated(&self) -> Vec<IsolatedService> {
        let has_servers = |service: &NamespacedName| {
            let Some(ports) = self.programmed.services().get(service) else { return false };
            let owned = self.programmed.owned_servers(service, ports);
            owned.iter().any(|(server, _)| !self.missing.contains(server))
        };
        self.pending.isolated(has_servers)
    }

    /// Writes the changes of pending Services to a kernel that is in sync.
    fn incremental(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        inputs: Inputs<'_>,
        results: &mut Results,
    ) -> Result<(), SyncError> {
        let filled = self.programmed.references().filled();
        let update = self.pending.take_update(&self.programmed, inputs.desired);
        let tried: Vec<NamespacedName> = update.services.iter().map(|(name, _)| name.clone()).collect();
        let mut changes = self.update(update);
        let needed = |programmed: &Programmed, changes: &ChangeSet, set| {
            programmed.references().changed_entries(set, &changes.references).0
        };
        self.add_entries(kernel, needed, &mut changes, inputs.now, results)?;
        let is_awaiting_retry = |name: &NamespacedName| self.pending.is_awaiting_retry(name, inputs.now);
        let unverified = &mut self.unverified;
        let read = planner::take_servers_to_read(&self.programmed, &changes, unverified, is_awaiting_retry);
        let found = read_servers(kernel, read)?;
        let plan = planner::incremental(&self.programmed, &changes, found, &self.terminations);
        let filled_changed = self.programmed.references().filled() != filled;
        if self.executor.rules.is_outdated() || filled_changed || changes.references.out_filter {
            self.set_rules(inputs);
        }
        self.run(kernel, plan, inputs.now, results)?;
        self.retry_rejected(kernel, tried, inputs.now, results)
    }

    /// Compares all objects with the kernel, and writes the differences.
    fn full(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        node: &mut NodeSnapshot,
        inputs: Inputs<'_>,
        results: &mut Results,
    ) -> Result<(), SyncError> {
        let is_first = self.sync_state == SyncState::NotSynced;
        let mut snapshot = FamilySnapshot::read(kernel, self.family(), node)?;
        let mut changes = if is_first {
            let (renderer, services) = self.pending.take_all(self.family(), inputs.desired);
            self.programmed.replace(renderer, services);
            ChangeSet::default()
        } else {
            let update = self.pending.take_update(&self.programmed, inputs.desired);
            self.update(update)
        };
        let needed = |programmed: &Programmed, _: &ChangeSet, set| {
            snapshot.missing_entries(set, programmed.references().entries(set))
        };
        self.add_entries(kernel, needed, &mut changes, inputs.now, results)?;
        let mut restored = self.unconfirmed.unexplained_entries(&results.added);
        restored += self.compare_servers(kernel, &mut snapshot, inputs.now, results)?;
        self.set_rules(inputs);
        // Starting iptables-restore takes longer than its work, so both tables are written at once if they can be.
        let both = is_first && self.executor.rules.has_no_chains(Table::Nat)?;
        let first: &[Table] = if both { &TABLES } else { &[Table::Filter] };
        let plan = planner::full(&self.programmed, &snapshot, first);
        let operations = self.run(kernel, plan, inputs.now, results)?;
        restored += operations.iter().map(|operation| self.unconfirmed.unexplained(operation)).sum::<usize>();
        if !is_first {
            results.restored += restored;
        }
        self.unverified.clear();
        let tried = self.pending.rejected().cloned().collect();
        self.retry_rejected(kernel, tried, inputs.now, results)?;
        self.sync_state = SyncState::InSync;
        Ok(())
    }

    /// Programs an update.
    fn update(&mut self, update: Update) -> ChangeSet {
        let changes = self.programmed.update(update);
        if self.sync_state != SyncState::NotSynced {
            self.unconfirmed.add(&changes);
        }
        changes
    }

    /// Adds the entries that are `needed`. Services whose entries a set rejects are held back, as a Service without one
    /// of its entries may be open to clients that it must not serve.
    fn add_entries(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        needed: impl Fn(&Programmed, &ChangeSet, IpSet) -> Vec<SetEntry>,
        changes: &mut ChangeSet,
        now: Instant,
        results: &mut Results,
    ) -> Result<(), SyncError> {
        loop {
            let needed = |set| needed(&self.programmed, changes, set);
            let operations = planner::add_entries(needed, &results.added);
            self.executor.run(kernel, &operations, results)?;
            let Some(rejected) = results.rejected_entries.take() else { return Ok(()) };
            changes.extend(self.hold_back(rejected, now)?);
            let operations = planner::delete_unneeded_entries(&self.programmed, &mut results.added);
            self.executor.run(kernel, &operations, results)?;
        }
    }

    /// Holds back the Services that need rejected entries. Each stays as last programmed with success if it did not need
    /// them, and is removed otherwise.
    ///
    /// # Errors
    /// No Service needs the entries, or the set rejects all entries of several Services.
    fn hold_back(&mut self, rejected: RejectedEntries, now: Instant) -> Result<ChangeSet, SyncError> {
        let renderer = self.programmed.renderer();
        let is_concerned = |ports: &_| rejected.are_needed_by(&renderer.service(ports));
        let concerned = self.programmed.services().iter().filter(|(_, ports)| is_concerned(ports));
        let concerned: Vec<&NamespacedName> = concerned.map(|(name, _)| name).collect();
        // A set that takes no entry at all is not the fault of several Services.
        if concerned.is_empty() || (concerned.len() > 1 && !rejected.has_others) {
            return Err(rejected.error);
        }
        let held_back = |name: &NamespacedName| {
            let fallback = self.unconfirmed.last_confirmed(name).filter(|ports| !is_concerned(ports));
            (name.clone(), self.pending.hold_back(name, fallback, &rejected.error, now))
        };
        let services: Vec<_> = concerned.into_iter().map(held_back).collect();
        Ok(self.update(Update { renderer: None, services }))
    }

    /// Compares the desired virtual servers with the kernel, and writes the differences. Virtual servers that no Service
    /// needs remain in the snapshot. Returns the number of changes that restored what another process had changed.
    fn compare_servers(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        snapshot: &mut FamilySnapshot,
        now: Instant,
        results: &mut Results,
    ) -> Result<usize, SyncError> {
        let (mut changes, mut restored) = (Vec::new(), 0);
        for (name, ports) in self.programmed.services() {
            for (server, spec) in self.programmed.owned_servers(name, ports) {
                let found = snapshot.take_server(kernel, &server)?;
                let draining = self.terminations.draining(&server);
                let diff = ServerDiff::from_found(server, draining, found.as_ref(), Some(&spec));
                if !self.unconfirmed.contains_server(&server) && !self.pending.is_rejected(name) {
                    restored += diff.changes.len();
                }
                self.terminations.set(server, diff.draining, now);
                changes.extend(diff.changes);
            }
            if changes.len() >= CHANGES_PER_SEND {
                let operation = Operation::ChangeServers(std::mem::take(&mut changes));
                self.executor.run(kernel, &[operation], results)?;
            }
        }
        self.executor.run(kernel, &[Operation::ChangeServers(changes)], results)?;
        Ok(restored)
    }

    /// Executes a plan. Returns its operations.
    fn run(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        plan: Plan,
        now: Instant,
        results: &mut Results,
    ) -> Result<Vec<Operation>, SyncError> {
        for (server, draining) in plan.draining {
            self.terminations.set(server, draining, now);
        }
        let executed = self.executor.run(kernel, &plan.operations, results);
        for rejected in &results.rejected_addresses {
            self.unconfirmed.add_address(rejected.address);
        }
        executed.map(|()| plan.operations)
    }

    /// Retries rejected changes once, from what the kernel has: the object may have existed, or been deleted, before.
    /// A Service that is rejected again is isolated; the isolation of the other `tried` Services ends.
    ///
    /// # Errors
    /// A rejection that no Service explains, or the kernel rejects changes of all virtual servers.
    fn retry_rejected(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        tried: Vec<NamespacedName>,
        now: Instant,
        results: &mut Results,
    ) -> Result<(), SyncError> {
        let rejected = std::mem::take(&mut results.rejected_changes);
        let found = read_servers(kernel, rejected.servers().copied())?;
        let plan = planner::restore(&self.programmed, found, &self.terminations);
        let mut retried = Results::default();
        self.run(kernel, plan, now, &mut retried)?;
        let mut accepted = results.accepted;
        accepted.extend(retried.accepted);
        let rejected = retried.rejected_changes;
        if let Err(error) = blame::check(&rejected, accepted, &self.programmed, &mut self.executor, kernel) {
            let servers = rejected.servers().filter(|server| self.programmed.owner(server).is_some());
            self.unverified.extend(servers);
            return Err(error);
        }
        let (mut isolated, mut unexplained) = (BTreeSet::new(), None);
        let mut missing = BTreeSet::new();
        for (server, rejected) in rejected {
            match self.programmed.owner(&server) {
                Some(owner) if !rejected.is_node_error => {
                    self.pending.reject(owner, &rejected.error, now);
                    isolated.insert(owner.clone());
                    self.unverified.insert(server);
                    if rejected.is_addition {
                        missing.insert(server);
                    }
                }
                owner => {
                    self.unverified.extend(owner.map(|_| server));
                    unexplained = Some(rejected.error);
                }
            }
        }
        self.missing.retain(|server| {
            let owner = self.programmed.owner(server);
            owner.is_some_and(|owner| self.pending.is_rejected(owner) && !isolated.contains(owner))
        });
        self.missing.extend(missing);
        tried.iter().filter(|name| !isolated.contains(*name)).for_each(|name| self.pending.accept(name));
        unexplained.map_or(Ok(()), Err)
    }

    /// Deletes the draining real servers whose connections have ended.
    fn delete_drained(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        now: Instant,
        results: &mut Results,
    ) -> Result<(), SyncError> {
        let mut changes = Vec::new();
        for server in self.terminations.due(now) {
            let found =
                kernel.real_servers(&server).map_err(cannot("count the connections of real servers"))?;
            let ended = self.terminations.check(&server, &found, now);
            changes.extend(ended.into_iter().map(|real| ServerChange::DeleteRealServer(server, real)));
        }
        self.executor.run(kernel, &[Operation::ChangeServers(changes)], results)?;
        self.retry_rejected(kernel, Vec::new(), now, results)
    }

    fn set_rules(&mut self, inputs: Inputs<'_>) {
        let references = self.programmed.references();
        let out_filter: Vec<&str> = references.out_filter().collect();
        self.executor.rules.set_rules(Rules {
            family: self.programmed.family(),
            options: inputs.options,
            facts: inputs.facts,
            filled: references.filled(),
            out_filter: &out_filter,
        });
    }

    /// Makes the next sync a full one.
    fn mark_unverified(&mut self) {
        if self.sync_state == SyncState::InSync {
            self.sync_state = SyncState::Unverified;
        }
    }

    /// Prepares for an audit: notes the objects written from now on. Returns false if the next sync is a full one anyway.
    pub(super) fn begin_audit(&mut self) -> bool {
        let is_in_sync = self.sync_state == SyncState::InSync;
        self.executor.audit_writes = is_in_sync.then(AuditWrites::default);
        is_in_sync
    }

    /// Compares the result of an audit with what was written; the next sync restores the differences. Returns true if
    /// there are any.
    pub(super) fn end_audit(&mut self, snapshot: &AuditSnapshot) -> bool {
        let Some(writes) = self.executor.audit_writes.take() else { return false };
        if self.sync_state != SyncState::InSync {
            return false;
        }
        let mut drift = audit::compare(snapshot, &self.programmed, &self.terminations, &writes);
        drift.servers.retain(|server| !self.unverified.contains(server));
        let has_drift = !drift.servers.is_empty() || drift.entries_or_addresses;
        self.unverified.extend(drift.servers);
        if drift.entries_or_addresses {
            self.mark_unverified();
        }
        has_drift
    }
}
