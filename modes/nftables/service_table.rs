//! The desired table of one family, updated Service by Service.
//!
//! Objects that a packet in progress may still look up are removed after [`GRACE`]. The desired state decides which of
//! several Services gets a frontend that they claim. If elements collide all the same, the first Service by namespace and
//! name gets the element.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName, sparse};
use portcullis_netlink::nf_tables::{DesiredTable, Element, Key, Table, TableFamily};

use super::base_chains;
use super::dispatch_steps::DispatchSteps;
use super::endpoint_map::FrontendKey;
use super::names::{
    AFFINITY_ENDPOINTS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, LOCAL_IPS, LOCAL_NODE_PORTS, SERVICE_IPS,
    SERVICE_NODE_PORTS, TABLE,
};
use super::service_elements::{ElementId, ServiceElements, SetId};
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// The delay between the last use of an object by rules and its removal, for packets that are traversing the rules.
pub(super) const GRACE: Duration = Duration::from_secs(1);

const SOURCES: SetId = SetId::Fixed(FIREWALL_SOURCES);

/// Returns the set whose element a Service must own to have elements of `set` with the same address and port.
fn owning_set(set: SetId) -> Option<&'static str> {
    Some(match set {
        SetId::Fixed(LOCAL_IPS) => SERVICE_IPS,
        SetId::Fixed(LOCAL_NODE_PORTS) => SERVICE_NODE_PORTS,
        SOURCES => FIREWALL_IPS,
        SetId::Fixed(set) => {
            let key = FrontendKey::of_traffic_set(set).or_else(|| FrontendKey::of_affinity_map(set));
            return key.map(FrontendKey::frontends);
        }
        SetId::EndpointMap(map) => map.key.frontends(),
        SetId::Counts(maps) => maps.key.frontends(),
    })
}

/// Returns true for a set whose elements are the same for all Services that have them.
fn is_shared(set: SetId) -> bool {
    matches!(set, SetId::Fixed(HAIRPIN | AFFINITY_ENDPOINTS))
}

/// The desired table of one family with all its Services.
#[derive(Debug)]
pub struct ServiceTable {
    settings: Settings,
    pub(super) table: DesiredTable,
    steps: DispatchSteps,
    /// The set whose name was used last.
    last_name: Option<(SetId, Arc<str>)>,
    /// The number of Services that have each element of shared sets.
    shared: HashMap<ElementId, usize>,
    /// Elements that several Services claim or claimed, and the time at which each may be removed if no Service claims it
    /// any more.
    conflicts: HashMap<ElementId, Instant>,
    /// Pending removals: objects that no Service needs any more, and the time of their removal.
    pending_elements: BTreeMap<ElementId, Instant>,
}

impl ServiceTable {
    /// Returns the table without Services.
    pub fn new(family: Family, options: &Options, node: &NodeFacts) -> Self {
        Self::with_settings(Settings::new(family, options, node))
    }

    /// Applies the changes that led to `desired`, and removes what is due by `now`.
    pub fn apply(&mut self, desired: &Desired, changes: &[ServiceChange], now: Instant) {
        self.remove_due(now);
        changes.iter().for_each(|change| self.change(&change.before, &change.after, now));
        self.finish(desired, &HashMap::new());
    }

    /// Returns the contents that the kernel should hold.
    pub fn desired(&self) -> &Table {
        self.table.desired()
    }

    pub(super) fn with_settings(settings: Settings) -> Self {
        let family = match settings.family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        };
        let mut table = DesiredTable::new(family, TABLE);
        table.set_comment("Services, by portcullis");
        table.rules_before_elements();
        // Packets to an address of `firewall-ips` are dropped without a range in `firewall-sources`.
        table.ranges_before_elements();
        // A lookup that does not find an element continues with the next map, so any part of a map may be there.
        table.split_map_changes();
        base_chains::put_sets(&mut table, &settings);
        base_chains::put_chains(&mut table, &settings);
        let mut new = ServiceTable {
            settings,
            table,
            steps: DispatchSteps::new(),
            last_name: None,
            shared: HashMap::new(),
            conflicts: HashMap::new(),
            pending_elements: BTreeMap::new(),
        };
        new.steps.update_chains(&mut new.table, &new.settings);
        new
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces the objects of a Service. Conflicts are resolved in [`ServiceTable::finish`], after all changes.
    pub(super) fn change(&mut self, before: &[ServicePort], after: &[ServicePort], now: Instant) {
        let before = ServiceElements::new(before, &self.settings);
        let after = ServiceElements::new(after, &self.settings);
        // Add before removing, so that what both have is kept.
        for (step, uses) in &after.steps {
            self.steps.add(*step, *uses, &mut self.table, &self.settings);
        }
        for id in after.elements.keys().filter(|id| !before.elements.contains_key(*id)) {
            self.detect_conflict(id, now);
        }
        for (id, element) in &after.elements {
            if before.elements.get(id) != Some(element) {
                self.add_element(id, element);
            }
        }
        for id in before.elements.keys().filter(|id| !after.elements.contains_key(*id)) {
            self.remove_element(id, now);
        }
        for (step, uses) in &before.steps {
            self.steps.remove(*step, *uses, now + GRACE);
        }
    }

    /// Notes a conflict if another Service has the element already.
    fn detect_conflict(&mut self, id: &ElementId, now: Instant) {
        let cannot_conflict = is_shared(id.0) || owning_set(id.0).is_some();
        if !cannot_conflict && self.contains(id) {
            self.conflicts.insert(id.clone(), now + GRACE);
        }
    }

    fn add_element(&mut self, id: &ElementId, element: &Element) {
        let (set, key) = id;
        if self.has_conflicting_owner(id) {
            return;
        }
        if is_shared(*set) {
            *self.shared.entry(id.clone()).or_default() += 1;
        }
        self.pending_elements.remove(id);
        if *set == SOURCES {
            self.evict_sources(id);
        }
        if !self.conflicts.contains_key(id) {
            let name = self.name(*set);
            self.table.put_element(&name, key.clone(), element.clone());
        }
    }

    /// Returns the name of a set. The elements of a Service are ordered by set, so the last name is kept.
    fn name(&mut self, set: SetId) -> Arc<str> {
        match &self.last_name {
            Some((last, name)) if *last == set => Arc::clone(name),
            _ => {
                let name = set.name();
                self.last_name = Some((set, Arc::clone(&name)));
                name
            }
        }
    }

    /// Returns true if the table has the element, and its removal is not pending.
    fn contains(&mut self, id: &ElementId) -> bool {
        let (set, key) = id;
        let name = self.name(*set);
        let set = self.table.desired().sets.get(&name);
        set.is_some_and(|set| set.elements.contains_key(key)) && !self.pending_elements.contains_key(id)
    }

    fn remove_element(&mut self, id: &ElementId, now: Instant) {
        let set = &id.0;
        if is_shared(*set) {
            let Some(users) = self.shared.get_mut(id) else { return };
            *users -= 1;
            if *users > 0 {
                return;
            }
            sparse::remove(&mut self.shared, id);
        }
        if self.has_conflicting_owner(id) {
            // If it belongs to another Service, `finish` puts it back.
            if *set != SOURCES {
                self.delete_element(id);
            }
            return;
        }
        match self.conflicts.get_mut(id) {
            Some(removal) => *removal = now + GRACE,
            None => self.delete_or_defer(id.clone(), now + GRACE),
        }
    }

    fn delete_element(&mut self, id: &ElementId) {
        let name = self.name(id.0);
        self.table.remove_element(&name, &id.1);
    }

    /// Deletes an element, or marks it as pending removal while packets in progress may look it up.
    fn delete_or_defer(&mut self, id: ElementId, at: Instant) {
        // If another Service has the address now, it has other source ranges.
        if id.0 == SOURCES && self.owner(&id).is_some_and(|owner| !self.contains(&owner)) {
            self.pending_elements.insert(id, at);
        } else {
            self.pending_elements.remove(&id);
            self.delete_element(&id);
        }
    }

    /// Deletes the pending removals among the source ranges of the same address and port: the kernel rejects overlapping
    /// ranges.
    fn evict_sources(&mut self, source: &ElementId) {
        let Some((_, address)) = self.owner(source) else { return };
        let from = (SOURCES, address.clone());
        let has_address =
            |(set, key): &ElementId| *set == SOURCES && key.bytes().starts_with(address.bytes());
        let evicted: Vec<ElementId> =
            self.pending_elements.range(from..).map(|(id, _)| id.clone()).take_while(has_address).collect();
        for id in evicted {
            self.pending_elements.remove(&id);
            self.delete_element(&id);
        }
    }

    /// Returns the element that a Service must own to have this one: that of its address and port.
    fn owner(&self, (set, key): &ElementId) -> Option<ElementId> {
        let owning = owning_set(*set)?;
        let frontend =
            if owning == SERVICE_NODE_PORTS { FrontendKey::NodePort } else { FrontendKey::Address };
        let address = &key.bytes()[..frontend.length(&self.settings)];
        Some((SetId::Fixed(owning), Key::new().part(address)))
    }

    /// Returns true if several Services claim the address and port of an element.
    fn has_conflicting_owner(&self, id: &ElementId) -> bool {
        !self.conflicts.is_empty() && self.owner(id).is_some_and(|owner| self.conflicts.contains_key(&owner))
    }

    /// Gives a claimed element, with all elements that depend on it, to the first of the claimants.
    fn resolve_conflict(&mut self, id: ElementId, claimants: &[Arc<ServiceElements>], removal: Instant) {
        let Some((winner, losers)) = claimants.split_first() else {
            if self.contains(&id) {
                self.delete_or_defer(id, removal);
            }
            return;
        };
        // Source ranges are resolved separately, because their removal may be deferred.
        let depends = |other: &ElementId| {
            let owner = self.owner(other).filter(|_| other.0 != SOURCES);
            *other == id || owner.is_some_and(|owner| owner == id)
        };
        let lost = losers.iter().flat_map(|service| service.elements.keys());
        let lost = lost.filter(|other| depends(other) && !winner.elements.contains_key(*other));
        let lost: Vec<ElementId> = lost.cloned().collect();
        let won: Vec<(&ElementId, &Element)> =
            winner.elements.iter().filter(|(other, _)| depends(other)).collect();
        lost.iter().for_each(|other| self.delete_element(other));
        for ((set, key), element) in won {
            let name = self.name(*set);
            self.table.put_element(&name, key.clone(), element.clone());
        }
    }

    /// Replaces the source ranges of an address and port by those of the Service that owns it.
    fn resolve_sources(&mut self, address: &Key, owner: Option<&ServiceElements>, at: Instant) {
        let has_address = |key: &Key| key.bytes().starts_with(address.bytes());
        let mut wanted = HashMap::new();
        if let Some(service) = owner {
            let sources =
                service.elements.iter().filter(|((set, key), _)| *set == SOURCES && has_address(key));
            wanted.extend(sources.map(|((_, key), element)| (key.clone(), element.clone())));
        }
        let present =
            self.table.desired().sets.get(FIREWALL_SOURCES).into_iter().flat_map(|set| set.elements.keys());
        let removed: Vec<Key> = present.filter(|key| has_address(key) && !wanted.contains_key(key)).collect();
        removed.into_iter().for_each(|key| self.delete_or_defer((SOURCES, key), at));
        for (key, element) in wanted {
            self.pending_elements.remove(&(SOURCES, key.clone()));
            self.table.put_element(&SOURCES.name(), key, element);
        }
    }

    /// Completes a group of changes: rewrites dispatch chains and resolves conflicts. `programmed` has the version in the
    /// table of each Service whose desired version is not there.
    pub(super) fn finish(
        &mut self,
        desired: &Desired,
        programmed: &HashMap<NamespacedName, Arc<[ServicePort]>>,
    ) {
        self.steps.update_chains(&mut self.table, &self.settings);
        if self.conflicts.is_empty() {
            return;
        }
        let services: BTreeMap<&NamespacedName, &Arc<[ServicePort]>> =
            desired.services().iter().chain(programmed).collect();
        let mut claimants: HashMap<ElementId, Vec<Arc<ServiceElements>>> = HashMap::new();
        for ports in services.into_values() {
            let service = Arc::new(ServiceElements::new(ports, &self.settings));
            for id in self.conflicts.keys().filter(|id| service.elements.contains_key(*id)) {
                claimants.entry(id.clone()).or_default().push(Arc::clone(&service));
            }
        }
        for (id, removal) in std::mem::take(&mut self.conflicts) {
            let claimants = claimants.remove(&id).unwrap_or_default();
            self.resolve_conflict(id.clone(), &claimants, removal);
            if id.0 == SetId::Fixed(FIREWALL_IPS) {
                self.resolve_sources(&id.1, claimants.first().map(|service| &**service), removal);
            }
            if claimants.len() > 1 {
                self.conflicts.insert(id, removal);
            }
        }
    }

    /// Removes the pending removals that are due.
    pub(super) fn remove_due(&mut self, now: Instant) {
        for id in take_due(&mut self.pending_elements, now) {
            self.delete_element(&id);
        }
        self.steps.remove_due(now, &mut self.table);
    }

    /// Returns the time of the next pending removal.
    pub(super) fn next_removal(&self) -> Option<Instant> {
        self.pending_elements.values().copied().chain(self.steps.removals()).min()
    }
}

/// Takes the entries that are due.
pub(super) fn take_due<K: Clone + Ord>(pending: &mut BTreeMap<K, Instant>, now: Instant) -> Vec<K> {
    let due: Vec<K> = pending.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
    due.iter().for_each(|id| _ = pending.remove(id));
    due
}
