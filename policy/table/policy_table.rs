//! The policy table: applies changes of compiled policies to the desired tables. This is the only file that writes to
//! them; all others return the chains, sets and elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, DesiredTable, Set, TableFamily};

use super::base_chains::{base_chains, base_counters};
use super::base_sets::{base_sets, pick_up_element};
use super::bridge_table;
use super::edit::{ChainWithSets, ElementEdit, SetEdit, SetElements};
use super::interface_elements::InterfaceElements;
use super::interfaces::interface_sets;
use super::label::{self, DropLabels};
use super::member_sets::{named_port_edits, peer_set_edits};
use super::names::{OTHER_PROTOCOLS, PICKED_UP, TABLE};
use super::options::PolicyOptions;
use super::pod_elements::pod_elements;
use super::profile_chain::{node_chain_name, profile_chains};
use super::rules::policy_chain;
use super::shared_sets::SharedSets;
use super::tiers::Tiers;
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
    tiers: Tiers,
    labels: Arc<BTreeMap<Arc<str>, DropLabels>>,
}

impl PolicyTable {
    /// Returns the tables without any policy.
    pub fn new(options: PolicyOptions) -> Self {
        let mut this = PolicyTable {
            table: DesiredTable::new(TableFamily::Inet, TABLE),
            bridge: DesiredTable::new(TableFamily::Bridge, TABLE),
            options,
            shared_sets: SharedSets::default(),
            tiers: Tiers::default(),
            labels: Arc::default(),
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
        replace_elements(&mut self.table, elements.inet());
        replace_elements(&mut self.bridge, elements.bridge());
    }

    /// Returns the metric labels of each counter, by its name.
    pub fn labels(&self) -> &Arc<BTreeMap<Arc<str>, DropLabels>> {
        &self.labels
    }

    /// Returns the options.
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    /// Applies changes of compiled policies. `compiled` is the state after the changes.
    pub fn apply(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        changes.sets.iter().flat_map(peer_set_edits).for_each(|edit| self.edit_set(edit));
        changes.named_ports.iter().flat_map(named_port_edits).for_each(|edit| self.edit_set(edit));
        changes.rules.iter().for_each(|change| self.change_rules(change, compiled));
        changes.profiles_added.iter().for_each(|profile| self.add_profile(profile, compiled));
        for change in &changes.addresses {
            pod_elements(change, &self.options).into_iter().for_each(|edit| self.edit_element(edit));
        }
        changes.profiles_removed.iter().for_each(|profile| self.remove_profile(profile));
    }

    fn change_rules(&mut self, change: &RulesChange, compiled: &CompiledPolicies) {
        let id = &change.id;
        match (&id.policy, &change.after) {
            (PolicyId::Network(_), Some(rules)) => {
                self.put_chain_with_sets(policy_chain(id, rules, &self.options));
            }
            (PolicyId::Network(_), None) => self.remove_chain_with_sets(&id.name()),
            // The chains of ClusterNetworkPolicies are those of their tiers.
            (PolicyId::Cluster(_), after) => {
                let labels = DropLabels { direction: id.direction.as_str(), policy: id.policy.to_string() };
                match after {
                    Some(_) => self.put_counter(&id.name(), &id.describe(), labels),
                    None => self.remove_counter(&id.name()),
                }
                for tier in self.tiers.with_rules(id) {
                    self.put_chain_with_sets(tier.chain(compiled, &self.options));
                }
            }
        }
    }

    fn add_profile(&mut self, profile: &Profile, compiled: &CompiledPolicies) {
        for tier in self.tiers.add_profile(profile) {
            self.put_chain_with_sets(tier.chain(compiled, &self.options));
        }
        if !profile.network.is_empty() {
            let direction = profile.direction.as_str();
            let labels = DropLabels { direction, policy: label::names(&profile.network) };
            self.put_counter(&profile.name(), &profile.describe(), labels);
        }
        put_chains(&mut self.table, profile_chains(profile, &self.options));
    }

    fn remove_profile(&mut self, profile: &Profile) {
        let name = profile.name();
        self.table.remove_chain(&name);
        self.remove_counter(&name);
        if let Some(name) = node_chain_name(profile) {
            self.table.remove_chain(&name);
        }
        for tier in self.tiers.remove_profile(profile) {
            self.remove_chain_with_sets(&tier.name());
        }
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
        let ChainWithSets { name, chain, sets } = rendered;
        self.shared_sets.assign(&name, sets).into_iter().for_each(|edit| self.edit_set(edit));
        self.table.put_chain(&name, chain);
    }

    fn remove_chain_with_sets(&mut self, name: &str) {
        let edits = self.shared_sets.assign(&name.into(), BTreeMap::new());
        edits.into_iter().for_each(|edit| self.edit_set(edit));
        self.table.remove_chain(name);
    }

    fn put_counter(&mut self, name: &str, comment: &str, labels: DropLabels) {
        let name: Arc<str> = name.into();
        self.table.put_counter(&name, Some(comment));
        Arc::make_mut(&mut self.labels).insert(name, labels);
    }

    fn remove_counter(&mut self, name: &str) {
        self.table.remove_counter(name);
        if self.labels.contains_key(name) {
            Arc::make_mut(&mut self.labels).remove(name);
        }
    }

    fn edit_set(&mut self, edit: SetEdit) {
        match edit {
            SetEdit::Put(name, set) => self.table.put_set(&name, set),
            SetEdit::Remove(name) => self.table.remove_set(&name),
            SetEdit::Element(edit) => self.edit_element(edit),
        }
    }

    fn edit_element(&mut self, edit: ElementEdit) {
        let ElementEdit { set, key, element } = edit;
        match element {
            Some(element) => self.table.put_element(&set, key, element),
            None => self.table.remove_element(&set, &key),
        }
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
