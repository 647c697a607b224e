//! The policy table: applies changes of compiled policies to the desired tables. This is the only file that writes to
//! them; all others return the chains, sets and elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, DesiredTable, Element, Key, Set, TableFamily, Verdict};

use super::base_chains::{base_chains, base_counters, ports_chain};
use super::base_sets::{base_sets, pick_up_element};
use super::bridge_table;
use super::edit::{ChainWithSets, ElementEdit, SetEdit, SetElements, TableEdit, TableEdits};
use super::group_sets::GroupSets;
use super::interface_elements::InterfaceElements;
use super::interfaces::interface_sets;
use super::label::{self, DropLabels};
use super::layouts::{Changed, EvaluationCounts, LayoutContext, Layouts};
use super::member_sets::named_port_edits;
use super::names::{NODE_PROFILES, OTHER_PROTOCOLS, PICKED_UP, POSTROUTING_PORTS, TABLE};
use super::options::PolicyOptions;
use super::peer_phases;
use super::peers::Peers;
use super::pending_removals::PendingRemovals;
use super::pod_elements::pod_elements;
use super::priority::profiles;
use super::profile_chain::node_chain_name;
use super::profile_numbers::ProfileNumbers;
use super::shared_sets::SharedSets;
use crate::compile::{CompiledPolicies, PolicyChanges, PolicyId, Profile, RulesChange};
use crate::interfaces::PodInterface;

/// The desired tables of compiled policies.
#[derive(Debug)]
pub struct PolicyTable {
    table: DesiredTable,
    /// The table of the bridge family, which distinguishes the ports of bridges.
    bridge: DesiredTable,
    options: PolicyOptions,
    shared_sets: SharedSets,
    group_sets: GroupSets,
    layouts: Layouts,
    labels: Arc<BTreeMap<Arc<str>, DropLabels>>,
    numbers: ProfileNumbers,
    peers: Peers,
    /// What is removed when the kernel has accepted the table.
    pending: PendingRemovals,
    /// Groups of peers to be removed when the kernel has accepted rules that do not match them.
    removed_groups: Option<PolicyChanges>,
    /// The kernel has accepted the table as it is. It never looks up what it has rejected.
    is_accepted: bool,
    /// The new groups of peers of the next changes are written.
    is_prepared: bool,
}

impl PolicyTable {
    /// Returns the tables without any policy.
    pub fn new(options: PolicyOptions) -> Self {
        let mut this = PolicyTable {
            table: DesiredTable::new(TableFamily::Inet, TABLE),
            bridge: DesiredTable::new(TableFamily::Bridge, TABLE),
            options,
            shared_sets: SharedSets::default(),
            group_sets: GroupSets::default(),
            layouts: Layouts::default(),
            labels: Arc::default(),
            numbers: ProfileNumbers::default(),
            peers: Peers::default(),
            pending: PendingRemovals::default(),
            removed_groups: None,
            is_accepted: false,
            is_prepared: false,
        };
        this.put_inet_objects();
        this.put_bridge_objects();
        this
    }

    /// Returns the tables for compiled policies.
    pub fn from_compiled(options: PolicyOptions, compiled: &CompiledPolicies) -> Self {
        let mut this = PolicyTable::new(options);
        this.apply(&PolicyChanges::all(compiled), compiled);
        this
    }

    /// Returns the desired table of the inet family.
    pub fn table(&self) -> &DesiredTable {
        &self.table
    }

    /// Returns the desired table of the bridge family.
    pub fn bridge(&self) -> &DesiredTable {
        &self.bridge
    }

    /// Returns both tables to commit them, that of the inet family first.
    pub fn tables_mut(&mut self) -> [&mut DesiredTable; 2] {
        [&mut self.table, &mut self.bridge]
    }

    /// Sets whether untracked TCP connections are picked up in their middle. If not, such a packet is evaluated as the
    /// first of a new connection.
    pub fn set_pick_up(&mut self, on: bool) {
        let (key, element) = pick_up_element();
        self.edit_element(ElementEdit { set: PICKED_UP.into(), key, element: on.then_some(element) });
    }

    /// Sets the interfaces by which pods are matched. `compiled` is the state of the table.
    pub fn set_interfaces(&mut self, interfaces: &[PodInterface], compiled: &CompiledPolicies) {
        let elements = InterfaceElements::new(interfaces, compiled);
        replace_elements(&mut self.table, elements.inet(&self.numbers));
        replace_elements(&mut self.bridge, elements.bridge());
        match elements.has_ingress_ports() {
            true => self.table.put_chain(&POSTROUTING_PORTS.into(), ports_chain()),
            false => self.table.remove_chain(POSTROUTING_PORTS),
        }
    }

    /// Returns the metric labels of each counter, by its name.
    pub fn labels(&self) -> &Arc<BTreeMap<Arc<str>, DropLabels>> {
        &self.labels
    }

    /// Returns the numbers of profiles by their evaluation, and of identities and classes of peers.
    pub fn evaluation_counts(&self) -> EvaluationCounts {
        EvaluationCounts { identities: self.peers.len(), ..self.layouts.counts() }
    }

    /// Returns the profile with a number.
    pub(super) fn profile(&self, number: u32) -> Option<&Arc<Profile>> {
        self.numbers.profile(number)
    }

    /// Returns the options.
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    /// Adds the groups of peers that changed rules will match, before [`Self::apply`] applies the changes. `compiled` is the state
    /// after the changes. Returns true if the table must be written before; otherwise, nothing changed.
    pub fn prepare(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) -> bool {
        let additions = peer_phases::additions(changes);
        if !self.is_accepted || !peer_phases::has_groups(&additions) {
            return false;
        }
        self.change_groups(&additions, compiled);
        self.is_prepared = true;
        true
    }

    /// Applies changes of compiled policies. `compiled` is the state after the changes. After [`Self::accepted`], the removal
    /// of what packets may still look up is left to the next call of it.
    pub fn apply(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        let was_accepted = std::mem::take(&mut self.is_accepted);
        let was_prepared = std::mem::take(&mut self.is_prepared);
        self.remove_groups(compiled);
        self.remove_pending();
        let mut edits = TableEdits::default();
        let table = &mut self.table;
        let mut edit = |edit| edit_element(table, edit);
        let identities = if was_accepted {
            self.removed_groups = Some(peer_phases::removal(changes)).filter(peer_phases::has_groups);
            self.peers.apply(&peer_phases::main(changes, !was_prepared), &mut edit)
        } else {
            self.peers.apply(changes, &mut edit)
        };
        changes.named_ports.iter().flat_map(named_port_edits).for_each(|edit| self.edit_set(edit));
        changes.rules.iter().for_each(|change| self.count_denials(change));
        changes.profiles_added.iter().for_each(|profile| self.add_profile(profile));
        for change in &changes.addresses {
            let edits = pod_elements(change, &self.numbers, &self.options);
            edits.into_iter().for_each(|edit| self.edit_element(edit));
        }
        changes.profiles_removed.iter().for_each(|profile| self.remove_profile(profile));
        let changed = Layouts::changed(changes, compiled);
        let context = LayoutContext { peers: &self.peers, compiled, options: &self.options };
        self.layouts.apply(&changed, &changes.profiles_removed, &identities, &context, &mut edits);
        self.edit_all(edits);
        // After all chains, which use the sets.
        let edits = self.group_sets.take_changes(&self.peers, &identities);
        self.edit_all(edits);
        if !was_accepted {
            self.remove_pending();
        }
    }

    /// Records that the kernel has accepted the table, and removes what is not used any longer. Returns true if that must be
    /// written, after packets in progress have been evaluated; then more may have to be removed.
    pub fn accepted(&mut self, compiled: &CompiledPolicies) -> bool {
        self.is_accepted = true;
        let has_removed = self.remove_pending();
        self.remove_groups(compiled) || has_removed
    }

    /// Removes groups of peers that rules do not match any longer. Returns true if there are any.
    fn remove_groups(&mut self, compiled: &CompiledPolicies) -> bool {
        let removed = self.removed_groups.take();
        removed.iter().for_each(|removal| self.change_groups(removal, compiled));
        removed.is_some()
    }

    /// Adds or removes groups of peers that no rule matches.
    fn change_groups(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        let mut edits = TableEdits::default();
        let table = &mut self.table;
        let identities = self.peers.apply(changes, &mut |edit| edit_element(table, edit));
        let context = LayoutContext { peers: &self.peers, compiled, options: &self.options };
        self.layouts.apply(&Changed::default(), &[], &identities, &context, &mut edits);
        self.edit_all(edits);
        let edits = self.group_sets.take_changes(&self.peers, &identities);
        self.edit_all(edits);
    }

    fn remove_pending(&mut self) -> bool {
        let (counters, any) = std::mem::take(&mut self.pending).apply(&mut self.table);
        if counters.iter().any(|name| self.labels.contains_key(name)) {
            let labels = Arc::make_mut(&mut self.labels);
            counters.iter().for_each(|name| drop(labels.remove(name)));
        }
        any
    }

    /// Adds or removes the counter of a ClusterNetworkPolicy's denials.
    fn count_denials(&mut self, change: &RulesChange) {
        let id = &change.id;
        if let PolicyId::Network(_) = id.policy {
            return;
        }
        let labels = DropLabels { direction: id.direction.as_str(), policy: id.policy.to_string() };
        match &change.after {
            Some(_) => self.put_counter(&id.name(), &id.describe(), labels),
            None => self.pending.add_counter(id.name().into()),
        }
    }

    /// Adds the number and the counter of a profile.
    fn add_profile(&mut self, profile: &Arc<Profile>) {
        if !profile.network.is_empty() {
            let direction = profile.direction.as_str();
            let labels = DropLabels { direction, policy: label::names(&profile.network) };
            self.put_counter(&profile.name(), &profile.describe(), labels);
        }
        let key = Key::new().number(self.numbers.add(profile));
        let chains =
            [(profiles(profile.direction), Some(profile.name())), (NODE_PROFILES, node_chain_name(profile))];
        for (map, chain) in chains {
            let Some(chain) = chain else { continue };
            let element = Some(Element::verdict(Verdict::goto(chain)));
            self.edit_element(ElementEdit { set: map.into(), key: key.clone(), element });
        }
    }

    fn remove_profile(&mut self, profile: &Profile) {
        if let Some(number) = self.numbers.remove(profile) {
            for map in [profiles(profile.direction), NODE_PROFILES] {
                self.pending.add_element(map.into(), Key::new().number(number));
            }
        }
        self.pending.add_counter(profile.name().into());
    }

    fn edit_all(&mut self, edits: TableEdits) {
        let TableEdits { edits, retired } = edits;
        for edit in edits {
            match edit {
                TableEdit::PutChain(chain) => self.put_chain_with_sets(chain),
                TableEdit::RemoveChain(name) => self.remove_chain_with_sets(&name),
                TableEdit::Set(edit) => self.edit_set(edit),
            }
        }
        retired.into_iter().for_each(|(set, key)| self.pending.add_element(set, key));
    }

    fn put_inet_objects(&mut self) {
        self.table.set_comment("NetworkPolicy, by portcullis");
        put_sets(&mut self.table, base_sets(&self.options));
        put_sets(&mut self.table, interface_sets());
        for (name, comment) in base_counters(&self.options) {
            self.put_counter(name, comment, DropLabels { direction: "", policy: name.to_owned() });
        }
        let chains = base_chains(&self.options);
        put_chains(&mut self.table, chains.into_iter().map(|(name, chain)| (name.into(), chain)));
    }

    fn put_bridge_objects(&mut self) {
        self.bridge.set_comment("NetworkPolicy for ports of bridges, by portcullis");
        put_sets(&mut self.bridge, bridge_table::sets());
        for (name, comment) in bridge_table::COUNTERS {
            self.bridge.put_counter(&name.into(), Some(comment));
        }
        let labels = DropLabels { direction: "", policy: OTHER_PROTOCOLS.to_owned() };
        Arc::make_mut(&mut self.labels).insert(OTHER_PROTOCOLS.into(), labels);
        let chains = bridge_table::chains(&self.options);
        put_chains(&mut self.bridge, chains.into_iter().map(|(name, chain)| (name.into(), chain)));
    }

    fn put_chain_with_sets(&mut self, rendered: ChainWithSets) {
        let ChainWithSets { name, chain, sets, groups } = rendered;
        self.group_sets.assign(&name, groups);
        self.shared_sets.assign(&name, sets).into_iter().for_each(|edit| self.edit_set(edit));
        self.pending.keep_chain(&name);
        self.table.put_chain(&name, chain);
    }

    fn remove_chain_with_sets(&mut self, name: &Arc<str>) {
        self.group_sets.assign(name, BTreeMap::new());
        let edits = self.shared_sets.assign(name, BTreeMap::new());
        edits.into_iter().for_each(|edit| self.edit_set(edit));
        self.pending.add_chain(Arc::clone(name));
    }

    fn put_counter(&mut self, name: &str, comment: &str, labels: DropLabels) {
        let name: Arc<str> = name.into();
        self.pending.keep_counter(&name);
        self.table.put_counter(&name, Some(comment));
        Arc::make_mut(&mut self.labels).insert(name, labels);
    }

    fn edit_set(&mut self, edit: SetEdit) {
        match edit {
            SetEdit::Put(name, set) => {
                self.pending.keep_set(&name);
                self.table.put_set(&name, set);
            }
            SetEdit::Remove(name) => self.pending.add_set(name),
            SetEdit::Element(edit) => self.edit_element(edit),
        }
    }

    fn edit_element(&mut self, edit: ElementEdit) {
        edit_element(&mut self.table, edit);
    }
}

fn edit_element(table: &mut DesiredTable, ElementEdit { set, key, element }: ElementEdit) {
    match element {
        Some(element) => table.put_element(&set, key, element),
        None => table.remove_element(&set, &key),
    }
}

fn put_sets(table: &mut DesiredTable, sets: impl IntoIterator<Item = (Arc<str>, Set)>) {
    sets.into_iter().for_each(|(name, set)| table.put_set(&name, set));
}

fn put_chains(table: &mut DesiredTable, chains: impl IntoIterator<Item = (Arc<str>, Chain)>) {
    chains.into_iter().for_each(|(name, chain)| table.put_chain(&name, chain));
}

/// Replaces the elements of existing sets.
fn replace_elements(table: &mut DesiredTable, all: Vec<SetElements>) {
    for SetElements { set: name, elements } in all {
        if let Some(set) = table.desired().sets.get(&name) {
            let set = Set::with_elements(set.spec.clone(), elements);
            table.put_set(&name, set);
        }
    }
}
