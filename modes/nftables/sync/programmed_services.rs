//! The Services in the table of a family: the version of each, and the updates that wait for a write.
//!
//! Between two syncs the table is the one that the kernel accepted last: an update that the kernel rejects, or that could not
//! be written, is reverted and held back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};

use crate::isolation::Isolations;
use crate::mode::IsolatedService;
use crate::nftables::service_table::{GRACE, ServiceTable};
use crate::nftables::settings::Settings;
use portcullis_cluster::{Bisect, BisectOrder, sparse};

/// The ports of a Service before and after an update.
pub(super) struct ServiceUpdate {
    pub(super) name: NamespacedName,
    pub(super) before: Arc<[ServicePort]>,
    pub(super) after: Arc<[ServicePort]>,
}

/// The table of a family with its Services.
pub(super) struct ProgrammedServices {
    pub(super) table: ServiceTable,
    /// The table is new: all Services must be added.
    needs_all: bool,
    /// The version in the table of each Service whose desired version is not there.
    programmed: HashMap<NamespacedName, Arc<[ServicePort]>>,
    /// The versions in the previous table of Services whose desired version was rejected.
    pub(super) last_good: HashMap<NamespacedName, Arc<[ServicePort]>>,
    /// The Services that are held back: their desired version must be written.
    pub(super) pending: Bisect<NamespacedName>,
    /// Batches of Services that are written after those of the current sync, because they are large.
    deferred: VecDeque<Vec<NamespacedName>>,
    pub(super) isolations: Isolations,
}

impl ProgrammedServices {
    pub(super) fn new(settings: Settings) -> Self {
        ProgrammedServices {
            table: ServiceTable::with_settings(settings),
            needs_all: true,
            programmed: HashMap::new(),
            last_good: HashMap::new(),
            pending: Bisect::new(BisectOrder::BreadthFirst),
            deferred: VecDeque::new(),
            isolations: Isolations::default(),
        }
    }

    /// Replaces the table by a new one without Services.
    pub(super) fn reset(&mut self, settings: Settings) {
        self.table = ServiceTable::with_settings(settings);
        self.last_good.extend(self.programmed.drain());
        self.pending.clear();
        self.deferred.clear();
        self.needs_all = true;
    }

    /// Returns the isolated Services. None of them has its desired version in the table.
    pub(super) fn isolated(&self) -> Vec<IsolatedService> {
        let family = self.table.settings().family;
        let has_ports = |ports: &Arc<[ServicePort]>| ports.iter().any(|port| port.family == family);
        self.isolations.all(|service| self.programmed.get(service).is_some_and(has_ports)).collect()
    }

    /// Returns the Services that are written by the next syncs because they are large.
    pub(super) fn deferred(&self) -> impl Iterator<Item = &NamespacedName> {
        self.deferred.iter().flatten()
    }

    /// Defers updates to be written after all others, each group as a batch.
    pub(super) fn defer(&mut self, batches: impl IntoIterator<Item = Vec<ServiceUpdate>>) {
        for batch in batches {
            let names = self.record_unwritten(batch);
            self.deferred.push_back(names);
        }
    }

    /// Takes the next batch of deferred updates.
    pub(super) fn next_deferred(&mut self, desired: &Desired) -> Option<Vec<ServiceUpdate>> {
        let names = self.deferred.pop_front()?;
        Some(names.into_iter().map(|name| self.update(desired, name)).collect())
    }

    /// Returns the time of the next retry, pending removal, deferred write or search.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let is_waiting = !self.pending.is_empty() || !self.deferred.is_empty();
        let pending = is_waiting.then_some(now);
        [self.table.next_removal(), self.isolations.next_retry(), pending].into_iter().flatten().min()
    }

    /// Returns the updates for changed Services; for all Services if the table is new. Changed Services are no longer
    /// isolated or held back.
    pub(super) fn updates_for(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<ServiceUpdate> {
        if std::mem::take(&mut self.needs_all) {
            return all_services(desired);
        }
        let mut updates: Vec<ServiceUpdate> = Vec::with_capacity(changes.len());
        for change in changes {
            self.isolations.remove(&change.name);
            let before = self.programmed.get(&change.name).unwrap_or(&change.before);
            let (name, after) = (change.name.clone(), Arc::clone(&change.after));
            updates.push(ServiceUpdate { before: Arc::clone(before), name, after });
        }
        if !self.pending.is_empty() || !self.deferred.is_empty() {
            let changed: HashSet<&NamespacedName> = changes.iter().map(|change| &change.name).collect();
            self.pending.retain(|name| !changed.contains(name));
            self.deferred.iter_mut().for_each(|batch| batch.retain(|name| !changed.contains(name)));
            self.deferred.retain(|batch| !batch.is_empty());
        }
        updates
    }

    /// Returns the updates for isolated Services whose retry is due.
    pub(super) fn retries(&self, desired: &Desired, now: Instant) -> Vec<ServiceUpdate> {
        let is_waiting = |name: &NamespacedName| {
            self.pending.contains(name) || self.deferred.iter().any(|batch| batch.contains(name))
        };
        let due = self.isolations.due(now).into_iter().filter(|name| !is_waiting(name));
        due.map(|name| self.update(desired, name)).collect()
    }

    /// Returns the update of a Service to its desired version.
    pub(super) fn update(&self, desired: &Desired, name: NamespacedName) -> ServiceUpdate {
        let before = self.programmed.get(&name).cloned().unwrap_or_default();
        let after = desired.services().get(&name).cloned().unwrap_or_default();
        ServiceUpdate { name, before, after }
    }

    /// Applies updates to the table.
    pub(super) fn apply(&mut self, updates: &[ServiceUpdate], desired: &Desired, now: Instant) {
        for update in updates {
            self.table.change(&update.before, &update.after, now);
            sparse::remove(&mut self.programmed, &update.name);
        }
        self.table.finish(desired, &self.programmed);
    }

    /// Reverts updates that the kernel never had, without a grace period for their removal.
    pub(super) fn revert(&mut self, updates: &[ServiceUpdate], desired: &Desired, now: Instant) {
        let before_grace = now.checked_sub(GRACE).unwrap_or(now);
        for update in updates {
            self.table.change(&update.after, &update.before, before_grace);
            self.programmed.insert(update.name.clone(), Arc::clone(&update.before));
        }
        self.table.remove_due(now);
        self.table.finish(desired, &self.programmed);
    }

    /// Records that the table has another version of a Service than the desired one.
    pub(super) fn set_programmed(&mut self, name: NamespacedName, ports: Arc<[ServicePort]>) {
        self.programmed.insert(name, ports);
    }

    /// Holds back updates that are not in the table, each group as a batch.
    pub(super) fn hold_back(&mut self, groups: [Vec<ServiceUpdate>; 2]) {
        for group in groups.into_iter().rev() {
            let names = self.record_unwritten(group);
            self.pending.push(names);
        }
    }

    /// Records that the table has the versions before these updates. Returns the names of the Services.
    fn record_unwritten(&mut self, updates: Vec<ServiceUpdate>) -> Vec<NamespacedName> {
        let record = |ServiceUpdate { name, before, .. }: ServiceUpdate| {
            self.programmed.insert(name.clone(), before);
            name
        };
        updates.into_iter().map(record).collect()
    }
}

fn all_services(desired: &Desired) -> Vec<ServiceUpdate> {
    let update = |(name, after): (&NamespacedName, &Arc<[ServicePort]>)| ServiceUpdate {
        name: name.clone(),
        before: Arc::default(),
        after: Arc::clone(after),
    };
    desired.services().iter().map(update).collect()
}
