//! The table of one family, as it follows Services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::nf_tables::{Element, Key, ManagedTable, Table, TableFamily};

use super::base_chains;
use super::chain_id::ChainId;
use super::entries::{Entries, Place};
use super::names::{
    ENDPOINTS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, INSIDE_IPS, INSIDE_NODE_PORTS, NODE_PORT_ENDPOINTS,
    TABLE,
};
use super::settings::Settings;
use crate::iptables::{Host, Options};

/// How long what a packet under way may still look for stays, when nothing new leads to it any more.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Maps that a packet looks into after another one led it there.
const LOOKED_UP_LATER: [&str; 4] = [ENDPOINTS, NODE_PORT_ENDPOINTS, INSIDE_IPS, INSIDE_NODE_PORTS];

/// A family's table, with all Services that were put into it.
#[derive(Debug)]
pub struct FamilyTable {
    settings: Settings,
    pub(super) table: ManagedTable,
    /// How many elements lead to each chain.
    chains: HashMap<ChainId, usize>,
    /// How many Services have each endpoint that talks to itself.
    hairpins: HashMap<Key, usize>,
    /// Elements that more than one Service claims or claimed, and when they may go if none does any more.
    contested: HashMap<Place, Instant>,
    /// What is to go, and when.
    doomed: BTreeMap<Place, Instant>,
    doomed_chains: BTreeMap<ChainId, Instant>,
    doomed_own_chains: BTreeMap<Arc<str>, Instant>,
    /// Endpoints that clients may not stay with any more: when what is remembered of them is to be deleted, and whether
    /// that was done once.
    pub(super) forgotten: BTreeMap<Key, (Instant, bool)>,
}

impl FamilyTable {
    /// An empty one, that follows Services without a kernel.
    pub fn of(family: Family, options: &Options, host: &Host) -> Self {
        Self::new(Settings::new(family, options, host))
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

    pub(super) fn new(settings: Settings) -> Self {
        let family = match settings.family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        };
        let mut table = ManagedTable::new(family, TABLE);
        table.remark("Services, by portcullis");
        base_chains::put_sets(&mut table, &settings);
        base_chains::put_chains(&mut table, &settings);
        FamilyTable {
            settings,
            table,
            chains: HashMap::new(),
            hairpins: HashMap::new(),
            contested: HashMap::new(),
            doomed: BTreeMap::new(),
            doomed_chains: BTreeMap::new(),
            doomed_own_chains: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A Service is to be served differently. Places that others claim too are to be settled after all changes.
    pub(super) fn change(&mut self, before: &[ServicePort], after: &[ServicePort], now: Instant) {
        let (before, after) = (Entries::of(before, &self.settings), Entries::of(after, &self.settings));
        // What comes is there before what goes is missed.
        for (chain, uses) in &after.chains {
            self.enter(*chain, *uses);
        }
        for (place, element) in &after.elements {
            match before.elements.get(place) {
                Some(same) if same == element => {}
                there => self.put(place, element, there.is_some(), now),
            }
        }
        for place in before.elements.keys().filter(|place| !after.elements.contains_key(*place)) {
            self.remove(place, now);
        }
        for (chain, uses) in &before.chains {
            self.leave(*chain, *uses, now);
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

    fn put(&mut self, place: &Place, element: &Element, was_its_own: bool, now: Instant) {
        let (set, key) = place;
        if self.is_of_contested(place) {
            return;
        }
        if *set == HAIRPIN {
            *self.hairpins.entry(key.clone()).or_default() += 1;
        } else if !was_its_own && self.is_there(place) {
            self.contested.insert(place.clone(), now + GRACE);
        }
        self.doomed.remove(place);
        if !self.contested.contains_key(place) {
            self.table.put_element(&Arc::from(*set), key.clone(), element.clone());
        }
    }

    fn is_there(&self, place: &Place) -> bool {
        let (set, key) = place;
        let there = self.table.desired().sets.get(*set).is_some_and(|set| set.elements.contains_key(key));
        there && !self.doomed.contains_key(place)
    }

    fn remove(&mut self, place: &Place, now: Instant) {
        let (set, key) = place;
        if *set == HAIRPIN {
            let Some(users) = self.hairpins.get_mut(key) else { return };
            *users -= 1;
            if *users > 0 {
                return;
            }
            self.hairpins.remove(key);
        }
        if self.is_of_contested(place) {
            return;
        }
        match self.contested.get_mut(place) {
            Some(goes) => *goes = now + GRACE,
            None => self.retire(place.clone(), now + GRACE),
        }
    }

    /// Removes an element at once, or, where packets under way may still look for it, later.
    fn retire(&mut self, place: Place, at: Instant) {
        if LOOKED_UP_LATER.contains(&place.0) {
            self.doomed.insert(place, at);
        } else {
            self.table.remove_element(&Arc::from(place.0), &place.1);
        }
    }

    /// Whether it says who may use an address and port that several Services claim. The kernel takes no ranges that
    /// overlap, so all are of the one that gets it. (In the order of places, the address comes first.)
    fn is_of_contested(&self, (set, key): &Place) -> bool {
        let is_of =
            |(claimed, address): &Place| *claimed == FIREWALL_IPS && key.bytes().starts_with(address.bytes());
        *set == FIREWALL_SOURCES && self.contested.keys().any(is_of)
    }

    /// Gives an address and port the sources that may use it.
    fn settle_sources(&mut self, address: &Key, of_winner: Option<&Entries>) {
        let is_of = |key: &Key| key.bytes().starts_with(address.bytes());
        let mut wanted = HashMap::new();
        if let Some(entries) = of_winner {
            let sources =
                entries.elements.iter().filter(|((set, key), _)| *set == FIREWALL_SOURCES && is_of(key));
            wanted.extend(sources.map(|((_, key), element)| (key.clone(), element.clone())));
        }
        let name = Arc::from(FIREWALL_SOURCES);
        let there =
            self.table.desired().sets.get(FIREWALL_SOURCES).into_iter().flat_map(|set| set.elements.keys());
        let gone: Vec<Key> = there.filter(|key| is_of(key) && !wanted.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.table.remove_element(&name, key));
        wanted.into_iter().for_each(|(key, element)| self.table.put_element(&name, key, element));
    }

    fn enter(&mut self, chain: ChainId, uses: usize) {
        let users = self.chains.entry(chain).or_default();
        *users += uses;
        self.doomed_chains.remove(&chain);
        let name = chain.name();
        if !self.table.desired().chains.contains_key(&name) {
            self.table.put_chain(&name, chain.render(&self.settings));
        }
    }

    fn leave(&mut self, chain: ChainId, uses: usize, now: Instant) {
        let Some(users) = self.chains.get_mut(&chain) else { return };
        *users -= uses;
        if *users == 0 {
            self.chains.remove(&chain);
            self.doomed_chains.insert(chain, now + GRACE);
        }
    }

    /// Gives what several Services claim to the first of them by name. `kept`: what is in the table of Services of which
    /// it has not what is wanted.
    pub(super) fn settle(&mut self, desired: &Desired, kept: &HashMap<NamespacedName, Arc<[ServicePort]>>) {
        if self.contested.is_empty() {
            return;
        }
        let all: BTreeMap<&NamespacedName, &Arc<[ServicePort]>> =
            desired.services().iter().chain(kept).collect();
        let mut winners: HashMap<Place, Arc<Entries>> = HashMap::new();
        let mut claims: HashMap<Place, usize> = HashMap::new();
        for ports in all.into_values() {
            let entries = Arc::new(Entries::of(ports, &self.settings));
            for place in self.contested.keys().filter(|place| entries.elements.contains_key(*place)) {
                *claims.entry(place.clone()).or_default() += 1;
                winners.entry(place.clone()).or_insert_with(|| Arc::clone(&entries));
            }
        }
        for (place, goes) in std::mem::take(&mut self.contested) {
            let winner = winners.get(&place).map(|entries| &**entries);
            let (set, key) = &place;
            match winner.and_then(|entries| entries.elements.get(&place)) {
                Some(element) => self.table.put_element(&Arc::from(*set), key.clone(), element.clone()),
                None => self.retire(place.clone(), goes),
            }
            if *set == FIREWALL_IPS {
                self.settle_sources(key, winner);
            }
            if claims.get(&place).is_some_and(|claims| *claims > 1) {
                self.contested.insert(place, goes);
            }
        }
    }

    /// Removes what no packet can look for any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        let due: Vec<Place> =
            self.doomed.iter().filter(|(_, at)| **at <= now).map(|(p, _)| p.clone()).collect();
        for place in due {
            self.doomed.remove(&place);
            self.table.remove_element(&Arc::from(place.0), &place.1);
        }
        let due: Vec<Arc<str>> =
            self.doomed_own_chains.iter().filter(|(_, at)| **at <= now).map(|(c, _)| Arc::clone(c)).collect();
        for chain in due {
            self.doomed_own_chains.remove(&chain);
            self.table.remove_chain(&chain);
        }
        let due: Vec<ChainId> =
            self.doomed_chains.iter().filter(|(_, at)| **at <= now).map(|(chain, _)| *chain).collect();
        for chain in due {
            self.doomed_chains.remove(&chain);
            self.table.remove_chain(&chain.name());
        }
    }

    /// When there is something to sweep.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        let again = self.forgotten.values().map(|(due, _)| *due).min();
        let chains = self.doomed_chains.values().chain(self.doomed_own_chains.values());
        self.doomed.values().chain(chains).copied().chain(again).min()
    }
}
