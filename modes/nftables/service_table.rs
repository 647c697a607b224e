//! The table of one family, as it follows Services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::nf_tables::{DesiredTable, Element, Key, Table, TableFamily};

use super::base_chains;
use super::dispatch::{self, DispatchStep};
use super::endpoint_map::FrontendKey;
use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, LOCAL_IPS, LOCAL_NODE_PORTS,
    SERVICE_IPS, SERVICE_NODE_PORTS, TABLE,
};
use super::service_elements::{ElementId, ServiceElements, SetId};
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// How long what a packet under way may still look for stays, when nothing new leads to it any more.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Who may use load balancers' addresses.
const SOURCES: SetId = SetId::Fixed(FIREWALL_SOURCES);

/// The set in which a Service must have got an address and port, to have elements of this one that begin with them.
fn claims(set: SetId) -> Option<&'static str> {
    Some(match set {
        SetId::Fixed(LOCAL_IPS | AFFINE_IPS) => SERVICE_IPS,
        SetId::Fixed(LOCAL_NODE_PORTS | AFFINE_NODE_PORTS) => SERVICE_NODE_PORTS,
        SOURCES => FIREWALL_IPS,
        SetId::Fixed(_) => return None,
        SetId::EndpointMap(picking) => picking.front.served(),
    })
}

/// A family's table, with all Services that were put into it.
#[derive(Debug)]
pub struct ServiceTable {
    settings: Settings,
    pub(super) table: DesiredTable,
    /// How many addresses and ports are found by each trial.
    trials: BTreeMap<DispatchStep, usize>,
    /// Fronts that are found by more or fewer trials than their chains know.
    stale: BTreeSet<FrontendKey>,
    /// How many Services have each endpoint that talks to itself.
    hairpins: HashMap<Key, usize>,
    /// Elements that more than one Service claims or claimed, and when they may go if none does any more.
    contested: HashMap<ElementId, Instant>,
    /// What is to go, and when.
    doomed: BTreeMap<ElementId, Instant>,
    doomed_trials: BTreeMap<DispatchStep, Instant>,
    doomed_own_chains: BTreeMap<Arc<str>, Instant>,
    /// Endpoints that clients may not stay with any more: when what is remembered of them is to be deleted, and whether
    /// that was done once.
    pub(super) forgotten: BTreeMap<Key, (Instant, bool)>,
}

impl ServiceTable {
    /// An empty one, that follows Services without a kernel.
    pub fn new(family: Family, options: &Options, host: &NodeFacts) -> Self {
        Self::with_settings(Settings::new(family, options, host))
    }

    /// Follows changes that have led to `desired`, and removes what is due by `now`.
    pub fn follow(&mut self, desired: &Desired, changes: &[ServiceChange], now: Instant) {
        self.sweep(now);
        changes.iter().for_each(|change| self.change(&change.before, &change.after, now));
        self.settle(desired, &HashMap::new());
    }

    /// What the kernel should hold.
    pub fn wanted(&self) -> &Table {
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
        base_chains::put_sets(&mut table, &settings);
        base_chains::put_chains(&mut table, &settings);
        let mut new = ServiceTable {
            settings,
            table,
            trials: BTreeMap::new(),
            stale: [FrontendKey::Address, FrontendKey::NodePort].into(),
            hairpins: HashMap::new(),
            contested: HashMap::new(),
            doomed: BTreeMap::new(),
            doomed_trials: BTreeMap::new(),
            doomed_own_chains: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        };
        new.dispatch();
        new
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A Service is to be served differently. Places that others claim too are to be settled after all changes.
    pub(super) fn change(&mut self, before: &[ServicePort], after: &[ServicePort], now: Instant) {
        let (before, after) =
            (ServiceElements::of(before, &self.settings), ServiceElements::of(after, &self.settings));
        // What comes is there before what goes is missed.
        for (trial, uses) in &after.trials {
            self.enter(*trial, *uses);
        }
        for place in after.elements.keys().filter(|place| !before.elements.contains_key(*place)) {
            self.claim(place, now);
        }
        for (place, element) in &after.elements {
            if before.elements.get(place) != Some(element) {
                self.put(place, element);
            }
        }
        for place in before.elements.keys().filter(|place| !after.elements.contains_key(*place)) {
            self.remove(place, now);
        }
        for (trial, uses) in &before.trials {
            self.leave(*trial, *uses, now);
        }
        for (name, chain) in &after.own_chains {
            self.doomed_own_chains.remove(name);
            self.table.put_chain(name, chain.clone());
        }
        for name in before.own_chains.keys().filter(|name| !after.own_chains.contains_key(*name)) {
            self.doomed_own_chains.insert(Arc::clone(name), now + GRACE);
        }
        for gone in before.affinities.difference(&after.affinities) {
            self.forgotten.insert(gone.clone(), (now, false));
        }
    }

    /// Another Service may have the place already.
    fn claim(&mut self, place: &ElementId, now: Instant) {
        let goes_with_another = place.0 == SetId::Fixed(HAIRPIN) || claims(place.0).is_some();
        if !goes_with_another && self.is_there(place) {
            self.contested.insert(place.clone(), now + GRACE);
        }
    }

    fn put(&mut self, place: &ElementId, element: &Element) {
        let (set, key) = place;
        if self.is_of_contested(place) {
            return;
        }
        if *set == SetId::Fixed(HAIRPIN) {
            *self.hairpins.entry(key.clone()).or_default() += 1;
        }
        self.doomed.remove(place);
        if *set == SOURCES {
            self.make_room(place);
        }
        if !self.contested.contains_key(place) {
            self.table.put_element(&set.name(), key.clone(), element.clone());
        }
    }

    fn is_there(&self, place: &ElementId) -> bool {
        let (set, key) = place;
        let set = self.table.desired().sets.get(&set.name());
        set.is_some_and(|set| set.elements.contains_key(key)) && !self.doomed.contains_key(place)
    }

    fn remove(&mut self, place: &ElementId, now: Instant) {
        let (set, key) = place;
        if *set == SetId::Fixed(HAIRPIN) {
            let Some(users) = self.hairpins.get_mut(key) else { return };
            *users -= 1;
            if *users > 0 {
                return;
            }
            self.hairpins.remove(key);
        }
        if self.is_of_contested(place) {
            // If it was not its own, it is put again at the end.
            if *set != SOURCES {
                self.take(place);
            }
            return;
        }
        match self.contested.get_mut(place) {
            Some(goes) => *goes = now + GRACE,
            None => self.retire(place.clone(), now + GRACE),
        }
    }

    fn take(&mut self, place: &ElementId) {
        self.table.remove_element(&place.0.name(), &place.1);
    }

    /// Removes an element at once, or, where packets under way may still look for it, later.
    fn retire(&mut self, place: ElementId, at: Instant) {
        // Others may have the address now, and other ranges.
        if place.0 == SOURCES && self.claim_of(&place).is_some_and(|claim| !self.is_there(&claim)) {
            self.doomed.insert(place, at);
        } else {
            self.doomed.remove(&place);
            self.take(&place);
        }
    }

    /// Removes what was left of the sources of a source's address, as the kernel takes no ranges that overlap.
    fn make_room(&mut self, source: &ElementId) {
        let Some((_, address)) = self.claim_of(source) else { return };
        let from = (SOURCES, address.clone());
        let is_of = |(set, key): &ElementId| *set == SOURCES && key.bytes().starts_with(address.bytes());
        let left: Vec<ElementId> =
            self.doomed.range(from..).map(|(place, _)| place.clone()).take_while(is_of).collect();
        for place in left {
            self.doomed.remove(&place);
            self.take(&place);
        }
    }

    /// The place of the address and port that a Service must have got, to have this one.
    fn claim_of(&self, (set, key): &ElementId) -> Option<ElementId> {
        let claim = claims(*set)?;
        let front = if claim == SERVICE_NODE_PORTS { FrontendKey::NodePort } else { FrontendKey::Address };
        let address = &key.bytes()[..front.length(&self.settings)];
        Some((SetId::Fixed(claim), Key::new().part(address)))
    }

    /// Whether only one of several Services that claim an address and port has it.
    fn is_of_contested(&self, place: &ElementId) -> bool {
        !self.contested.is_empty()
            && self.claim_of(place).is_some_and(|claim| self.contested.contains_key(&claim))
    }

    /// Gives an address and port, with all that belongs to it, to the first of these.
    fn settle_place(&mut self, place: ElementId, claimants: &[Arc<ServiceElements>], goes: Instant) {
        let Some((winner, others)) = claimants.split_first() else {
            if self.is_there(&place) {
                self.retire(place, goes);
            }
            return;
        };
        // Sources are settled by themselves: some stay for a while.
        let belongs = |of: &ElementId| {
            let claim = self.claim_of(of).filter(|_| of.0 != SOURCES);
            *of == place || claim.is_some_and(|claim| claim == place)
        };
        let all = others.iter().flat_map(|entries| entries.elements.keys());
        let lost = all.filter(|of| belongs(of) && !winner.elements.contains_key(*of));
        let lost: Vec<ElementId> = lost.cloned().collect();
        let won: Vec<(&ElementId, &Element)> = winner.elements.iter().filter(|(of, _)| belongs(of)).collect();
        lost.iter().for_each(|of| self.take(of));
        for ((set, key), element) in won {
            self.table.put_element(&set.name(), key.clone(), element.clone());
        }
    }

    /// Gives an address and port the sources that may use it.
    fn settle_sources(&mut self, address: &Key, of_winner: Option<&ServiceElements>, at: Instant) {
        let is_of = |key: &Key| key.bytes().starts_with(address.bytes());
        let mut wanted = HashMap::new();
        if let Some(entries) = of_winner {
            let of_it = entries.elements.iter().filter(|((set, key), _)| *set == SOURCES && is_of(key));
            wanted.extend(of_it.map(|((_, key), element)| (key.clone(), element.clone())));
        }
        let there =
            self.table.desired().sets.get(FIREWALL_SOURCES).into_iter().flat_map(|set| set.elements.keys());
        let gone: Vec<Key> = there.filter(|key| is_of(key) && !wanted.contains_key(*key)).cloned().collect();
        gone.into_iter().for_each(|key| self.retire((SOURCES, key), at));
        for (key, element) in wanted {
            self.doomed.remove(&(SOURCES, key.clone()));
            self.table.put_element(&SOURCES.name(), key, element);
        }
    }

    fn enter(&mut self, trial: DispatchStep, uses: usize) {
        let users = self.trials.entry(trial).or_default();
        let is_new = *users == 0 && self.doomed_trials.remove(&trial).is_none();
        *users += uses;
        if is_new {
            self.stale.insert(trial.front());
            if let DispatchStep::EndpointMap(picking) = trial {
                self.table.put_set(&picking.name(), picking.map(&self.settings));
                self.table.put_chain(&picking.name(), picking.chain(&self.settings));
            }
        }
    }

    fn leave(&mut self, trial: DispatchStep, uses: usize, now: Instant) {
        let Some(users) = self.trials.get_mut(&trial) else { return };
        *users -= uses;
        if *users == 0 {
            self.trials.remove(&trial);
            self.doomed_trials.insert(trial, now + GRACE);
        }
    }

    /// Tries what there is now, or was a moment ago.
    fn dispatch(&mut self) {
        if self.stale.is_empty() {
            return;
        }
        let trials: BTreeSet<DispatchStep> =
            self.trials.keys().chain(self.doomed_trials.keys()).copied().collect();
        for front in std::mem::take(&mut self.stale) {
            for (name, chain) in dispatch::chains(front, trials.iter().copied(), &self.settings) {
                self.table.put_chain(&name.into(), chain);
            }
        }
    }

    /// Ends a step: gives what several Services claim to the first of them by name, and tries what there is now. `kept`:
    /// what is in the table of Services of which it has not what is wanted.
    pub(super) fn settle(&mut self, desired: &Desired, kept: &HashMap<NamespacedName, Arc<[ServicePort]>>) {
        self.dispatch();
        if self.contested.is_empty() {
            return;
        }
        let all: BTreeMap<&NamespacedName, &Arc<[ServicePort]>> =
            desired.services().iter().chain(kept).collect();
        let mut claimants: HashMap<ElementId, Vec<Arc<ServiceElements>>> = HashMap::new();
        for ports in all.into_values() {
            let entries = Arc::new(ServiceElements::of(ports, &self.settings));
            for place in self.contested.keys().filter(|place| entries.elements.contains_key(*place)) {
                claimants.entry(place.clone()).or_default().push(Arc::clone(&entries));
            }
        }
        for (place, goes) in std::mem::take(&mut self.contested) {
            let claimants = claimants.remove(&place).unwrap_or_default();
            self.settle_place(place.clone(), &claimants, goes);
            if place.0 == SetId::Fixed(FIREWALL_IPS) {
                self.settle_sources(&place.1, claimants.first().map(|entries| &**entries), goes);
            }
            if claimants.len() > 1 {
                self.contested.insert(place, goes);
            }
        }
    }

    /// Removes what no packet can look for any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        for place in take_due(&mut self.doomed, now) {
            self.take(&place);
        }
        for chain in take_due(&mut self.doomed_own_chains, now) {
            self.table.remove_chain(&chain);
        }
        for trial in take_due(&mut self.doomed_trials, now) {
            self.stale.insert(trial.front());
            if let DispatchStep::EndpointMap(picking) = trial {
                self.table.remove_chain(&picking.name());
                self.table.remove_set(&picking.name());
            }
        }
    }

    /// When there is something to sweep.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        let again = self.forgotten.values().map(|(due, _)| *due).min();
        let chains = self.doomed_trials.values().chain(self.doomed_own_chains.values());
        self.doomed.values().chain(chains).copied().chain(again).min()
    }
}

/// Takes out what is due.
fn take_due<K: Clone + Ord>(doomed: &mut BTreeMap<K, Instant>, now: Instant) -> Vec<K> {
    let due: Vec<K> = doomed.iter().filter(|(_, at)| **at <= now).map(|(what, _)| what.clone()).collect();
    due.iter().for_each(|what| _ = doomed.remove(what));
    due
}
