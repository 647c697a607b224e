//! The Services to program at the next sync, and those that the kernel rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};

use super::programmed::{Ports, Programmed, Update};
use super::renderer::Renderer;
use crate::error::SyncError;
use crate::isolation::Isolations;
use crate::mode::IsolatedService;

/// The Services of one family to program at the next sync, and those that the kernel rejected.
#[derive(Default)]
pub(super) struct Pending {
    names: BTreeSet<NamespacedName>,
    /// Replaces the current renderer at the next sync.
    renderer: Option<Renderer>,
    rejected: Isolations,
    /// The rejected Services that are not programmed as desired, with the ports that are programmed instead, if any.
    held_back: BTreeMap<NamespacedName, Option<Ports>>,
}

impl Pending {
    /// Adds Services whose ports of a family changed.
    pub(super) fn add_changes(&mut self, family: Family, changes: &[ServiceChange]) {
        let is_in_family = |port: &&ServicePort| port.family == family;
        for change in changes {
            let before = change.before.iter().filter(is_in_family);
            if !before.eq(change.after.iter().filter(is_in_family)) {
                self.rejected.remove(&change.name);
                self.held_back.remove(&change.name);
                self.names.insert(change.name.clone());
            }
        }
    }

    /// Adds rejected Services that are due for another attempt.
    pub(super) fn add_retries(&mut self, now: Instant) {
        for name in self.rejected.due(now) {
            self.held_back.remove(&name);
            self.names.insert(name);
        }
    }

    /// Sets the renderer for the next sync; `None` keeps the current one.
    pub(super) fn set_renderer(&mut self, renderer: Option<Renderer>) {
        self.renderer = renderer;
    }

    /// Takes the update to program now. A new renderer renders all Services.
    pub(super) fn take_update(&mut self, programmed: &Programmed, desired: &Desired) -> Update {
        let renderer = self.renderer.take();
        if renderer.is_some() {
            self.held_back.clear();
            self.names.extend(programmed.services().keys().cloned());
            self.names.extend(desired.services().keys().cloned());
        }
        let family = programmed.family();
        let wanted = |name: NamespacedName| {
            let ports = match self.held_back.get(&name) {
                Some(fallback) => fallback.clone(),
                None => desired.services().get(&name).filter(|ports| is_in(family, ports)).cloned(),
            };
            (name, ports)
        };
        let services = std::mem::take(&mut self.names).into_iter().map(wanted).collect();
        Update { renderer, services }
    }

    /// Takes all desired Services, for the first sync, and the renderer for them.
    pub(super) fn take_all(
        &mut self,
        family: Family,
        desired: &Desired,
    ) -> (Option<Renderer>, BTreeMap<NamespacedName, Ports>) {
        self.names.clear();
        self.held_back.clear();
        let services = desired.services().iter().filter(|(_, ports)| is_in(family, ports));
        (self.renderer.take(), services.map(|(name, ports)| (name.clone(), Ports::clone(ports))).collect())
    }

    /// Isolates a Service that a set rejected, and programs `fallback` in its place; nothing at the second rejection.
    /// Returns the ports to program.
    pub(super) fn hold_back(
        &mut self,
        name: &NamespacedName,
        fallback: Option<Ports>,
        error: &SyncError,
        now: Instant,
    ) -> Option<Ports> {
        let fallback = fallback.filter(|_| !self.held_back.contains_key(name));
        self.rejected.add(name, error, now);
        self.held_back.insert(name.clone(), fallback.clone());
        fallback
    }

    /// Isolates a Service whose virtual server the kernel rejected.
    pub(super) fn reject(&mut self, name: &NamespacedName, error: &SyncError, now: Instant) {
        self.rejected.add(name, error, now);
    }

    /// Ends the isolation of a Service that was programmed as desired.
    pub(super) fn accept(&mut self, name: &NamespacedName) {
        if !self.held_back.contains_key(name) {
            self.rejected.remove(name);
        }
    }

    /// Returns true if the virtual servers of a rejected Service must not be tried before its next attempt.
    pub(super) fn is_awaiting_retry(&self, name: &NamespacedName, now: Instant) -> bool {
        self.rejected.is_awaiting_retry(name, now) && !self.held_back.contains_key(name)
    }

    pub(super) fn is_rejected(&self, name: &NamespacedName) -> bool {
        self.rejected.contains(name)
    }

    /// Returns the names of the rejected Services.
    pub(super) fn rejected(&self) -> impl Iterator<Item = &NamespacedName> {
        self.rejected.names()
    }

    /// Returns the rejected Services. `has_servers`: whether the kernel has a virtual server of one that is not held back.
    pub(super) fn isolated(&self, has_servers: impl Fn(&NamespacedName) -> bool) -> Vec<IsolatedService> {
        let has_rules = |service: &NamespacedName| match self.held_back.get(service) {
            Some(fallback) => fallback.is_some(),
            None => has_servers(service),
        };
        self.rejected.all(has_rules).collect()
    }

    /// Returns the time of the next attempt for a rejected Service.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.rejected.next_retry()
    }
}

/// Returns true if a Service has ports in a family.
fn is_in(family: Family, ports: &[ServicePort]) -> bool {
    ports.iter().any(|port| port.family == family)
}
