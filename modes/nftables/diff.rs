//! How a table in the kernel differs from what a state asks for, Service by Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::nf_tables::{Chain, Key, Set, Table, UnknownObjects};

use super::endpoint_map::{EndpointMap, FrontendKey};
use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, AFFINITY, CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, LOCAL_IPS,
    LOCAL_NODE_PORTS, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS, SERVICE_IPS, SERVICE_NODE_PORTS,
};
use super::render::render;
use super::service_elements::ServiceElements;
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// Whose a difference is, in the order in which they are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiffOwner {
    /// What is there with or without Services, and the chains that they share.
    Shared,
    /// Nobody's that is wanted.
    Unexpected,
    /// A Service's.
    Service(NamespacedName),
}

/// What differs in one chain, set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDiff {
    /// Whose it is.
    pub subject: DiffOwner,
    /// The chain, set or map.
    pub place: String,
    /// Its lines in the kernel.
    pub found: Vec<String>,
    /// Its lines as they should be.
    pub wanted: Vec<String>,
}

/// How the table of a family differs, `found` being what the kernel has of it. Empty if it does not.
pub fn diff_table(
    desired: &Desired,
    family: Family,
    options: &Options,
    host: &NodeFacts,
    found: Option<&(Table, UnknownObjects)>,
) -> Vec<ObjectDiff> {
    let wanted = render(desired, family, options, host);
    let none = (Table::new(wanted.family, &wanted.name), UnknownObjects::new());
    let (found, foreign) = found.unwrap_or(&none);
    let mut all = Differences {
        owners: Owners::of(desired, &Settings::new(family, options, host)),
        lines: BTreeMap::new(),
    };
    foreign.iter().for_each(|what| {
        all.lines_of(DiffOwner::Unexpected, "what this mode has none of").0.push(what.clone())
    });
    for name in names(&found.chains, &wanted.chains) {
        all.chain(name, found.chains.get(name), wanted.chains.get(name));
    }
    for name in names(&found.sets, &wanted.sets) {
        all.set(name, found.sets.get(name), wanted.sets.get(name));
    }
    all.finish()
}

fn names<'a, T>(
    found: &'a BTreeMap<Arc<str>, T>,
    wanted: &'a BTreeMap<Arc<str>, T>,
) -> BTreeSet<&'a Arc<str>> {
    found.keys().chain(wanted.keys()).collect()
}

/// Lines in the kernel, and lines as they should be.
type Lines = (Vec<String>, Vec<String>);

struct Differences {
    owners: Owners,
    lines: BTreeMap<(DiffOwner, String), Lines>,
}

impl Differences {
    fn lines_of(&mut self, subject: DiffOwner, place: impl fmt::Display) -> &mut Lines {
        self.lines.entry((subject, place.to_string())).or_default()
    }

    fn chain(&mut self, name: &Arc<str>, found: Option<&Chain>, wanted: Option<&Chain>) {
        let parts = |chain: Option<&Chain>| chain.map(|chain| (chain.base, chain.rules.clone()));
        if parts(found) == parts(wanted) {
            return;
        }
        let subject = match (self.owners.chains.get(name), wanted) {
            (Some(owner), _) => DiffOwner::Service(owner.clone()),
            (None, Some(_)) => DiffOwner::Shared,
            (None, None) => DiffOwner::Unexpected,
        };
        let lines = |chain: Option<&Chain>| chain.map(ToString::to_string).unwrap_or_default();
        let place = format!("chain {name}{}", remark(found.is_some(), wanted.is_some()));
        *self.lines_of(subject, place) = (trimmed(&lines(found)), trimmed(&lines(wanted)));
    }

    fn set(&mut self, name: &Arc<str>, found: Option<&Set>, wanted: Option<&Set>) {
        let spec = |set: Option<&Set>| {
            set.map(|set| trimmed(&Set::new(set.spec.clone()).to_string())).unwrap_or_default()
        };
        let kind = if wanted.or(found).is_some_and(|set| set.spec.is_map()) { "map" } else { "set" };
        if spec(found) != spec(wanted) {
            let subject = if wanted.is_some() { DiffOwner::Shared } else { DiffOwner::Unexpected };
            let place = format!("{kind} {name}{}", remark(found.is_some(), wanted.is_some()));
            *self.lines_of(subject, place) = (spec(found), spec(wanted));
        }
        if &**name == AFFINITY {
            return; // what is in it, rules wrote
        }
        let place = format!("{kind} {name}");
        let elements = |set: Option<&Set>| -> BTreeMap<Key, String> {
            let Some(set) = set else { return BTreeMap::new() };
            set.elements
                .iter()
                .map(|(key, element)| (key.clone(), set.line(key, element).to_string()))
                .collect()
        };
        let (found, wanted) = (elements(found), elements(wanted));
        for (key, line) in found.iter().filter(|(key, line)| wanted.get(*key) != Some(*line)) {
            let subject = self.owners.of_element(name, key).unwrap_or(DiffOwner::Unexpected);
            self.lines_of(subject, &place).0.push(line.clone());
        }
        for (key, line) in wanted.iter().filter(|(key, line)| found.get(*key) != Some(*line)) {
            let subject = self.owners.of_element(name, key).unwrap_or(DiffOwner::Shared);
            self.lines_of(subject, &place).1.push(line.clone());
        }
    }

    fn finish(self) -> Vec<ObjectDiff> {
        let difference = |((subject, place), (found, wanted))| ObjectDiff { subject, place, found, wanted };
        self.lines.into_iter().map(difference).collect()
    }
}

fn remark(is_found: bool, is_wanted: bool) -> &'static str {
    match (is_found, is_wanted) {
        (false, _) => " (missing)",
        (_, false) => " (not wanted)",
        _ => "",
    }
}

fn trimmed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Which Services have what.
#[derive(Default)]
struct Owners {
    chains: HashMap<Arc<str>, NamespacedName>,
    /// By the set, and the key.
    elements: HashMap<(Arc<str>, Key), NamespacedName>,
    /// By an address, protocol and port; or protocol and node port; or a cluster IP.
    fronts: HashMap<Key, NamespacedName>,
    /// How long the first of these are, and the last.
    lengths: [usize; 3],
}

impl Owners {
    fn of(desired: &Desired, settings: &Settings) -> Self {
        let mut owners = Owners {
            lengths: [
                FrontendKey::Address.length(settings),
                FrontendKey::NodePort.length(settings),
                settings.address().length(),
            ],
            ..Owners::default()
        };
        for (name, ports) in desired.services() {
            let entries = ServiceElements::of(ports, settings);
            for chain in entries.own_chains.into_keys() {
                owners.chains.entry(chain).or_insert_with(|| name.clone());
            }
            for (set, key) in entries.elements.into_keys() {
                let set = set.name();
                if let Some(front) = owners.front(&set, &key) {
                    owners.fronts.entry(front).or_insert_with(|| name.clone());
                }
                owners.elements.entry((set, key)).or_insert_with(|| name.clone());
            }
        }
        owners
    }

    /// The address or node port that an element is about.
    fn front(&self, set: &str, key: &Key) -> Option<Key> {
        let [address, node_port, cluster_ip] = self.lengths;
        let length = match set {
            SERVICE_IPS | LOCAL_IPS | AFFINE_IPS | NO_ENDPOINTS | FIREWALL_IPS | FIREWALL_SOURCES => address,
            SERVICE_NODE_PORTS | LOCAL_NODE_PORTS | AFFINE_NODE_PORTS | NO_ENDPOINT_NODE_PORTS => node_port,
            CLUSTER_IPS => cluster_ip,
            _ => match EndpointMap::of_name(set)?.front {
                FrontendKey::Address => address,
                FrontendKey::NodePort => node_port,
            },
        };
        Some(Key::new().part(key.bytes().get(..length)?))
    }

    fn of_element(&self, set: &Arc<str>, key: &Key) -> Option<DiffOwner> {
        let exact = self.elements.get(&(Arc::clone(set), key.clone()));
        let owner = exact.or_else(|| self.fronts.get(&self.front(set, key)?))?;
        Some(DiffOwner::Service(owner.clone()))
    }
}

impl fmt::Display for DiffOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiffOwner::Shared => f.write_str("base rules"),
            DiffOwner::Unexpected => f.write_str("what no Service wants"),
            DiffOwner::Service(name) => write!(f, "{name}"),
        }
    }
}
