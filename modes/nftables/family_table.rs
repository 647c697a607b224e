//! The table of one family, as it follows Services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::nf_tables::{Element, Key, ManagedTable, Table, TableFamily};

use super::base_chains;
use super::dispatch::{Dispatch, LABELED};
use super::entries::{Entries, Labeled, Place};
use super::label::Label;
use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, ENDPOINTS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, INSIDE_IPS,
    INSIDE_NODE_PORTS, NODE_PORT_ENDPOINTS, SERVICE_IPS, SERVICE_NODE_PORTS, TABLE,
};
use super::settings::Settings;
use crate::iptables::{Host, Options};

/// How long what a packet under way may still look for stays, when nothing new leads to it any more.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Maps that a packet looks into after another one led it there.
const LOOKED_UP_LATER: [&str; 6] =
    [ENDPOINTS, NODE_PORT_ENDPOINTS, INSIDE_IPS, INSIDE_NODE_PORTS, AFFINE_IPS, AFFINE_NODE_PORTS];

/// The place of the label that leads on to a Service's own chain, of which this is the place.
fn label_of((set, key): &Place) -> Option<Place> {
    let set = match *set {
        AFFINE_IPS => SERVICE_IPS,
        AFFINE_NODE_PORTS => SERVICE_NODE_PORTS,
        _ => return None,
    };
    Some((set, key.clone()))
}

/// The place of a Service's own chain, if this is the place of a label that leads on to it.
fn own_of((set, key): &Place) -> Option<Place> {
    let set = match *set {
        SERVICE_IPS => AFFINE_IPS,
        SERVICE_NODE_PORTS => AFFINE_NODE_PORTS,
        _ => return None,
    };
    Some((set, key.clone()))
}

/// A family's table, with all Services that were put into it.
#[derive(Debug)]
pub struct FamilyTable {
    settings: Settings,
    pub(super) table: ManagedTable,
    /// How many elements of each map have each label.
    labels: BTreeMap<Labeled, usize>,
    /// The chains by which each map's labels are compared.
    dispatches: BTreeMap<&'static str, BTreeSet<Arc<str>>>,
    /// Maps that have more or fewer labels than these know.
    stale: BTreeSet<&'static str>,
    /// How many Services have each endpoint that talks to itself.
    hairpins: HashMap<Key, usize>,
    /// Elements that more than one Service claims or claimed, and when they may go if none does any more.
    contested: HashMap<Place, Instant>,
    /// What is to go, and when.
    doomed: BTreeMap<Place, Instant>,
    doomed_labels: BTreeMap<Labeled, Instant>,
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
        let mut new = FamilyTable {
            settings,
            table,
            labels: BTreeMap::new(),
            dispatches: BTreeMap::new(),
            stale: LABELED.into(),
            hairpins: HashMap::new(),
            contested: HashMap::new(),
            doomed: BTreeMap::new(),
            doomed_labels: BTreeMap::new(),
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
        let (before, after) = (Entries::of(before, &self.settings), Entries::of(after, &self.settings));
        // What comes is there before what goes is missed.
        for (label, uses) in &after.labels {
            self.enter(*label, *uses);
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
        for (label, uses) in &before.labels {
            self.leave(*label, *uses, now);
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
    fn claim(&mut self, place: &Place, now: Instant) {
        let goes_with_another =
            place.0 == HAIRPIN || label_of(place).is_some() || self.is_of_contested(place);
        if !goes_with_another && self.is_there(place) {
            self.contested.insert(place.clone(), now + GRACE);
        }
    }

    fn put(&mut self, place: &Place, element: &Element) {
        let (set, key) = place;
        if self.is_of_contested(place) {
            return;
        }
        if *set == HAIRPIN {
            *self.hairpins.entry(key.clone()).or_default() += 1;
        }
        self.doomed.remove(place);
        if *set == FIREWALL_SOURCES {
            self.make_room(key);
        }
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
        let (set, key) = &place;
        let is_looked_up_later = match *set {
            // Others may have the address now, and other ranges.
            FIREWALL_SOURCES => !self.is_there(&(FIREWALL_IPS, self.firewalled(key))),
            set => LOOKED_UP_LATER.contains(&set),
        };
        if is_looked_up_later {
            self.doomed.insert(place, at);
        } else {
            self.doomed.remove(&place);
            self.table.remove_element(&Arc::from(place.0), &place.1);
        }
    }

    /// The address and port that a source may use.
    fn firewalled(&self, source: &Key) -> Key {
        let length = source.bytes().len() - self.settings.address().length();
        Key::new().part(&source.bytes()[..length])
    }

    /// Removes what was left of an address's sources, as the kernel takes no ranges that overlap.
    fn make_room(&mut self, source: &Key) {
        let address = self.firewalled(source);
        let from = (FIREWALL_SOURCES, address.clone());
        let is_of = |(set, key): &Place| *set == FIREWALL_SOURCES && key.bytes().starts_with(address.bytes());
        let left: Vec<Place> =
            self.doomed.range(from..).map(|(place, _)| place.clone()).take_while(is_of).collect();
        for place in left {
            self.doomed.remove(&place);
            self.table.remove_element(&Arc::from(place.0), &place.1);
        }
    }

    /// Whether it is of the one that gets what several Services claim: the chain of its own that it may have; and who may
    /// use the address and port, as the kernel takes no ranges that overlap. (In the order of places, the address comes
    /// first.)
    fn is_of_contested(&self, place: &Place) -> bool {
        if let Some(label) = label_of(place) {
            return self.contested.contains_key(&label);
        }
        let (set, key) = place;
        let is_of =
            |(claimed, address): &Place| *claimed == FIREWALL_IPS && key.bytes().starts_with(address.bytes());
        *set == FIREWALL_SOURCES && self.contested.keys().any(is_of)
    }

    fn settle_place(&mut self, place: Place, winner: Option<&Entries>, goes: Instant) {
        match winner.and_then(|entries| entries.elements.get(&place)) {
            Some(element) => {
                self.doomed.remove(&place);
                self.table.put_element(&Arc::from(place.0), place.1, element.clone());
            }
            None if self.is_there(&place) => self.retire(place, goes),
            None => {}
        }
    }

    /// Gives an address and port the sources that may use it.
    fn settle_sources(&mut self, address: &Key, of_winner: Option<&Entries>, at: Instant) {
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
        gone.into_iter().for_each(|key| self.retire((FIREWALL_SOURCES, key), at));
        for (key, element) in wanted {
            self.doomed.remove(&(FIREWALL_SOURCES, key.clone()));
            self.table.put_element(&name, key, element);
        }
    }

    fn enter(&mut self, label: Labeled, uses: usize) {
        let users = self.labels.entry(label).or_default();
        if *users == 0 && self.doomed_labels.remove(&label).is_none() {
            self.stale.insert(label.0);
        }
        *users += uses;
    }

    fn leave(&mut self, label: Labeled, uses: usize, now: Instant) {
        let Some(users) = self.labels.get_mut(&label) else { return };
        *users -= uses;
        if *users == 0 {
            self.labels.remove(&label);
            self.doomed_labels.insert(label, now + GRACE);
        }
    }

    /// Compares the labels that there are now, or were a moment ago.
    fn dispatch(&mut self) {
        for map in std::mem::take(&mut self.stale) {
            let labels = self.labels.keys().chain(self.doomed_labels.keys());
            let labels: BTreeSet<Label> =
                labels.filter(|(of, _)| *of == map).map(|(_, label)| *label).collect();
            let chains = Dispatch::of(map, &self.settings).chains(&labels);
            let are: BTreeSet<Arc<str>> = chains.keys().cloned().collect();
            let were = self.dispatches.remove(map).unwrap_or_default();
            were.difference(&are).for_each(|name| self.table.remove_chain(name));
            chains.into_iter().for_each(|(name, chain)| self.table.put_chain(&name, chain));
            self.dispatches.insert(map, are);
        }
    }

    /// Ends a step: gives what several Services claim to the first of them by name, and compares the labels that there
    /// are now. `kept`: what is in the table of Services of which it has not what is wanted.
    pub(super) fn settle(&mut self, desired: &Desired, kept: &HashMap<NamespacedName, Arc<[ServicePort]>>) {
        self.dispatch();
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
            for place in [Some(place.clone()), own_of(&place)].into_iter().flatten() {
                self.settle_place(place, winner, goes);
            }
            if *set == FIREWALL_IPS {
                self.settle_sources(key, winner, goes);
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
        let due: Vec<Labeled> =
            self.doomed_labels.iter().filter(|(_, at)| **at <= now).map(|(label, _)| *label).collect();
        for label in due {
            self.doomed_labels.remove(&label);
            self.stale.insert(label.0);
        }
    }

    /// When there is something to sweep.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        let again = self.forgotten.values().map(|(due, _)| *due).min();
        let chains = self.doomed_labels.values().chain(self.doomed_own_chains.values());
        self.doomed.values().chain(chains).copied().chain(again).min()
    }
}
