//! The differences between the kernel's table and the desired one, by Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::nf_tables::{Chain, Element, Key, Set, Table, UnknownObjects, reachable_chains};

use super::dispatch_by_count::CountMaps;
use super::endpoint_map::{EndpointMap, FrontendKey};
use super::names::{
    AFFINITY, CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, LOCAL_IPS, LOCAL_NODE_PORTS,
    NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS, SERVICE_IPS, SERVICE_NODE_PORTS,
};
use super::render::render;
use super::service_elements::ServiceElements;
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// The owner of an object that differs. The order of the values is the order of the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiffOwner {
    /// Objects that exist with or without Services, and shared chains.
    Shared,
    /// Objects in the kernel that are not desired.
    Unexpected,
    /// Objects of a Service.
    Service(NamespacedName),
}

/// The differences in one chain, set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDiff {
    /// The owner of the object.
    pub owner: DiffOwner,
    /// The kind and name of the object.
    pub object: String,
    /// The lines in the kernel that differ.
    pub found: Vec<String>,
    /// The wanted lines that differ.
    pub wanted: Vec<String>,
}

/// Compares `found`, the kernel's table of a family, with the desired one. Returns nothing if they are equal.
pub fn diff_table(
    desired: &Desired,
    family: Family,
    options: &Options,
    node: &NodeFacts,
    found: Option<&(Table, UnknownObjects)>,
) -> Vec<ObjectDiff> {
    let table = render(desired, family, options, node);
    let none = (Table::new(table.family, &table.name), UnknownObjects::new());
    let (found, unknown) = found.unwrap_or(&none);
    let mut diff = TableDiff {
        owners: Owners::new(desired, &Settings::new(family, options, node)),
        lines: BTreeMap::new(),
    };
    unknown
        .iter()
        .for_each(|object| diff.lines_of(DiffOwner::Unexpected, "unknown objects").0.push(object.clone()));
    for name in names(&found.chains, &table.chains) {
        diff.add_chain(name, found.chains.get(name), table.chains.get(name));
    }
    for name in names(&found.sets, &table.sets) {
        diff.add_set(name, found.sets.get(name), table.sets.get(name));
    }
    diff.into_objects()
}

/// Returns the rules that a family has for a Service, by object: its elements, the rules that look them up, and the chains to which
/// these lead.
pub fn service_rules(
    desired: &Desired,
    family: Family,
    options: &Options,
    node: &NodeFacts,
    service: &NamespacedName,
) -> Vec<(String, Vec<String>)> {
    let table = render(desired, family, options, node);
    let owners = Owners::new(desired, &Settings::new(family, options, node));
    let owner = Some(DiffOwner::Service(service.clone()));
    let mut rules = Vec::new();
    for (name, set) in &table.sets {
        let own = set.elements.iter().filter(|(key, _)| owners.of_element(name, key) == owner);
        let mut lines: Vec<String> = own.map(|(key, element)| set.line(&key, &element).to_string()).collect();
        if !lines.is_empty() {
            lines.sort_unstable();
            let kind = if set.spec.is_map() { "map" } else { "set" };
            rules.push((format!("{kind} {name}"), lines));
        }
    }
    let sets: BTreeSet<String> =
        rules.iter().filter_map(|(object, _)| Some(format!("@{}", object.split_once(' ')?.1))).collect();
    let is_lookup = |line: &String| line.split(' ').any(|word| sets.contains(word));
    for (name, chain) in &table.chains {
        let lines: Vec<String> = trimmed(&chain.to_string()).into_iter().filter(is_lookup).collect();
        if !lines.is_empty() {
            rules.push((format!("chain {name}"), lines));
        }
    }
    let lines: Vec<String> = rules.iter().flat_map(|(_, lines)| lines.clone()).collect();
    for chain in reachable_chains(&table, &lines) {
        // The whole chain, in place of its lookups.
        rules.retain(|(object, _)| *object != chain.0);
        rules.push(chain);
    }
    rules
}

fn names<'a, T>(
    found: &'a BTreeMap<Arc<str>, T>,
    desired: &'a BTreeMap<Arc<str>, T>,
) -> BTreeSet<&'a Arc<str>> {
    found.keys().chain(desired.keys()).collect()
}

/// The lines in the kernel, and the desired lines.
type Lines = (Vec<String>, Vec<String>);

struct TableDiff {
    owners: Owners,
    lines: BTreeMap<(DiffOwner, String), Lines>,
}

impl TableDiff {
    fn lines_of(&mut self, owner: DiffOwner, object: impl fmt::Display) -> &mut Lines {
        self.lines.entry((owner, object.to_string())).or_default()
    }

    fn add_chain(&mut self, name: &Arc<str>, found: Option<&Chain>, desired: Option<&Chain>) {
        let contents = |chain: Option<&Chain>| chain.map(|chain| (chain.base, chain.rules.clone()));
        if contents(found) == contents(desired) {
            return;
        }
        let owner = if desired.is_some() { DiffOwner::Shared } else { DiffOwner::Unexpected };
        let lines = |chain: Option<&Chain>| chain.map(ToString::to_string).unwrap_or_default();
        let object = format!("chain {name}{}", note(found.is_some(), desired.is_some()));
        *self.lines_of(owner, object) = (trimmed(&lines(found)), trimmed(&lines(desired)));
    }

    fn add_set(&mut self, name: &Arc<str>, found: Option<&Set>, desired: Option<&Set>) {
        let spec = |set: Option<&Set>| {
            set.map(|set| trimmed(&Set::new(set.spec.clone()).to_string())).unwrap_or_default()
        };
        let kind = if desired.or(found).is_some_and(|set| set.spec.is_map()) { "map" } else { "set" };
        if spec(found) != spec(desired) {
            let owner = if desired.is_some() { DiffOwner::Shared } else { DiffOwner::Unexpected };
            let object = format!("{kind} {name}{}", note(found.is_some(), desired.is_some()));
            *self.lines_of(owner, object) = (spec(found), spec(desired));
        }
        // Rules write the session-affinity entries.
        if &**name == AFFINITY {
            return;
        }
        let object = format!("{kind} {name}");
        let elements = |set: Option<&Set>| -> BTreeMap<Key, String> {
            let Some(set) = set else { return BTreeMap::new() };
            let line = |(key, element): (Key, Element)| (key.clone(), set.line(&key, &element).to_string());
            set.elements.iter().map(line).collect()
        };
        let (found, desired) = (elements(found), elements(desired));
        for (key, line) in found.iter().filter(|(key, line)| desired.get(*key) != Some(*line)) {
            let owner = self.owners.of_element(name, key).unwrap_or(DiffOwner::Unexpected);
            self.lines_of(owner, &object).0.push(line.clone());
        }
        for (key, line) in desired.iter().filter(|(key, line)| found.get(*key) != Some(*line)) {
            let owner = self.owners.of_element(name, key).unwrap_or(DiffOwner::Shared);
            self.lines_of(owner, &object).1.push(line.clone());
        }
    }

    fn into_objects(self) -> Vec<ObjectDiff> {
        let diff = |((owner, object), (found, wanted))| ObjectDiff { owner, object, found, wanted };
        self.lines.into_iter().map(diff).collect()
    }
}

fn note(is_found: bool, is_desired: bool) -> &'static str {
    match (is_found, is_desired) {
        (false, _) => " (missing)",
        (_, false) => " (unexpected)",
        _ => "",
    }
}

fn trimmed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// The Services that own elements.
#[derive(Default)]
struct Owners {
    /// By set and key.
    elements: HashMap<(Arc<str>, Key), NamespacedName>,
    /// By the start of a key: address, protocol and port; protocol and node port; or cluster IP.
    frontends: HashMap<Key, NamespacedName>,
    /// The lengths of these starts.
    lengths: FrontendLengths,
}

#[derive(Default)]
struct FrontendLengths {
    address: usize,
    node_port: usize,
    cluster_ip: usize,
}

impl Owners {
    fn new(desired: &Desired, settings: &Settings) -> Self {
        let lengths = FrontendLengths {
            address: FrontendKey::Address.length(settings),
            node_port: FrontendKey::NodePort.length(settings),
            cluster_ip: settings.address().length(),
        };
        let mut owners = Owners { lengths, ..Owners::default() };
        for (name, ports) in desired.services() {
            let service = ServiceElements::new(ports, settings);
            for (set, key) in service.elements.into_keys() {
                let set = set.name();
                if let Some(frontend) = owners.frontend(&set, &key) {
                    owners.frontends.entry(frontend).or_insert_with(|| name.clone());
                }
                owners.elements.entry((set, key)).or_insert_with(|| name.clone());
            }
        }
        owners
    }

    /// Returns the part of an element's key that identifies its frontend.
    fn frontend(&self, set: &str, key: &Key) -> Option<Key> {
        let FrontendLengths { address, node_port, cluster_ip } = self.lengths;
        let length = match set {
            SERVICE_IPS | LOCAL_IPS | NO_ENDPOINTS | FIREWALL_IPS | FIREWALL_SOURCES => address,
            SERVICE_NODE_PORTS | LOCAL_NODE_PORTS | NO_ENDPOINT_NODE_PORTS => node_port,
            CLUSTER_IPS => cluster_ip,
            _ => {
                let map =
                    FrontendKey::of_affinity_map(set).or_else(|| Some(EndpointMap::from_name(set)?.key));
                match map.or_else(|| Some(CountMaps::from_frontends(set)?.key))? {
                    FrontendKey::Address => address,
                    FrontendKey::NodePort => node_port,
                }
            }
        };
        Some(Key::new().part(key.bytes().get(..length)?))
    }

    fn of_element(&self, set: &Arc<str>, key: &Key) -> Option<DiffOwner> {
        let exact = self.elements.get(&(Arc::clone(set), key.clone()));
        let owner = exact.or_else(|| self.frontends.get(&self.frontend(set, key)?))?;
        Some(DiffOwner::Service(owner.clone()))
    }
}

impl fmt::Display for DiffOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiffOwner::Shared => f.write_str("base rules"),
            DiffOwner::Unexpected => f.write_str("objects of no Service"),
            DiffOwner::Service(name) => write!(f, "{name}"),
        }
    }
}
