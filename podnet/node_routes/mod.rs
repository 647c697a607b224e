//! Routes, neighbours and FDB entries for the pods of all nodes, from the Nodes and facts about this node. Pure.
//!
//! ```text
//! Nodes ─┬─► claims: who may use a pod CIDR ─┐
//!        └─► addresses of nodes              ├─► objects of a node ─► difference ─► one batch
//! own links, reserved addresses ─────────────┘
//! ```
//!
//! - **Same link** (`host-gw`, `cross-subnet`): a route by way of the node's address.
//! - **Overlay** (`vxlan`, `cross-subnet`): an address that no other host has stands for the VTEP of the node. The route goes by way of it, a
//!   permanent neighbour maps it to the VTEP's MAC address, which follows from the node's name, and an FDB entry maps that to the node's
//!   address. Nothing is learned, and nothing is flooded.
//! - **This node**: an `unreachable` route for its own pod CIDR with a high metric, so that packets to addresses without a pod end here
//!   and do not follow the default route.
//!
//! An update costs what it changes. The result depends on the Nodes, and not on the order in which they become known.

mod claims;
mod evaluation;
mod net_map;
mod object;
mod object_text;
mod own_network;
mod problem;
mod small_set;
#[cfg(test)]
mod tests;
mod vtep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Name;
use portcullis_cluster::node::Node;

use claims::{Claims, Conflict, Rank};
use evaluation::Evaluation;
use net_map::NetMap;
pub use object::{Forwarding, ForwardingChange, ForwardingChanges, ForwardingKey, ForwardingObject};
pub use own_network::{OwnNetwork, underlay};
use own_network::{family_index, first_of_each_family};
pub use problem::{NodeProblem, Reserved};
use small_set::SmallSet;
pub use vtep::vtep_mac;

/// The metric of the `unreachable` route for the own pod CIDR: higher than that of any route to pods.
pub const UNREACHABLE_METRIC: u32 = 4096;

/// The wanted routes, neighbours and FDB entries of this node.
#[derive(Debug)]
pub struct NodeRoutes {
    own: OwnNetwork,
    nodes: BTreeMap<Name, Member>,
    claims: Claims,
    /// The claims that other claims prevent.
    conflicts: BTreeMap<(Name, IpNet), Conflict>,
    /// The addresses of all nodes, and whose they are.
    addresses: NetMap<SmallSet<Name>>,
    reserved: NetMap<Reserved>,
    wanted: Forwarding,
    problems: BTreeMap<Name, Vec<NodeProblem>>,
    /// The pod CIDRs that are in use.
    accepted: BTreeSet<IpNet>,
}

/// A node, and what is programmed for it.
#[derive(Debug)]
struct Member {
    created: i64,
    pod_cidrs: Box<[IpNet]>,
    /// The first internal IP of each family.
    internal: [Option<IpAddr>; 2],
    /// All addresses.
    ips: Box<[IpAddr]>,
    keys: Box<[ForwardingKey]>,
    accepted: Box<[IpNet]>,
}

impl NodeRoutes {
    /// Creates it without nodes.
    pub fn new(own: OwnNetwork) -> Self {
        let reserved = reserved_map(&own);
        NodeRoutes {
            own,
            nodes: BTreeMap::new(),
            claims: Claims::default(),
            conflicts: BTreeMap::new(),
            addresses: NetMap::default(),
            reserved,
            wanted: Forwarding::new(),
            problems: BTreeMap::new(),
            accepted: BTreeSet::new(),
        }
    }

    /// Returns everything that the kernel should have.
    pub fn wanted(&self) -> &Forwarding {
        &self.wanted
    }

    /// Returns the problems of nodes, by name.
    pub fn problems(&self) -> &BTreeMap<Name, Vec<NodeProblem>> {
        &self.problems
    }

    /// Returns the pod CIDRs of all nodes, without those that are rejected.
    pub fn pod_cidrs(&self) -> &BTreeSet<IpNet> {
        &self.accepted
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true if there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns true if the node is known.
    pub fn contains(&self, node: &Name) -> bool {
        self.nodes.contains_key(node)
    }

    /// Returns the node for which an object is wanted.
    pub fn node_of(&self, key: &ForwardingKey) -> Option<&Name> {
        self.nodes.iter().find(|(_, member)| member.keys.contains(key)).map(|(name, _)| name)
    }

    /// Returns the nodes for which objects are wanted, by the key of the object.
    pub fn nodes_by_key(&self) -> BTreeMap<ForwardingKey, &Name> {
        let keys = |(name, member)| -> Vec<(ForwardingKey, &Name)> {
            let member: &Member = member;
            member.keys.iter().map(|key| (*key, name)).collect()
        };
        self.nodes.iter().flat_map(keys).collect()
    }

    /// Returns the families over which the overlay reaches the other nodes, IPv4 first.
    pub fn underlays(&self) -> [bool; 2] {
        let Some(own) = self.nodes.get(&self.own.node) else { return [false; 2] };
        let mut families = [false; 2];
        // Alone, a node is ready for the others.
        for member in self.nodes.values() {
            if let Some(family) = underlay(own.internal, member.internal) {
                families[family_index(family)] = true;
            }
        }
        families
    }

    /// Returns the first internal IP of each family of this node.
    pub fn internal_ips(&self) -> [Option<IpAddr>; 2] {
        self.nodes.get(&self.own.node).map_or([None; 2], |own| own.internal)
    }

    /// Returns the pod CIDRs of this node.
    pub fn own_pod_cidrs(&self) -> &[IpNet] {
        self.nodes.get(&self.own.node).map_or(&[], |own| &own.pod_cidrs)
    }

    /// Returns the facts about this node.
    pub fn own(&self) -> &OwnNetwork {
        &self.own
    }

    /// Replaces the facts about this node, of which the name does not change.
    pub fn set_own(&mut self, own: OwnNetwork) -> ForwardingChanges {
        if own == self.own {
            return ForwardingChanges::default();
        }
        self.reserved = reserved_map(&own);
        self.own = own;
        let touched = self.nodes.values().flat_map(|member| member.pod_cidrs.iter().copied()).collect();
        let names = self.nodes.keys().cloned().collect();
        self.evaluate_all(touched, names)
    }

    /// Updates nodes: `None` for one that was deleted.
    pub fn update<'a>(
        &mut self,
        nodes: impl IntoIterator<Item = (Name, Option<&'a Node>)>,
    ) -> ForwardingChanges {
        let (mut touched, mut names) = (BTreeSet::new(), BTreeSet::new());
        let own_before = self.nodes.get(&self.own.node).map(|member| member.internal);
        let mut changes = ForwardingChanges::default();
        for (name, node) in nodes {
            self.replace(&name, node, &mut touched, &mut changes);
            names.insert(name);
        }
        if self.nodes.get(&self.own.node).map(|member| member.internal) != own_before {
            // The ways to all nodes depend on the addresses of this one.
            names.extend(self.nodes.keys().cloned());
        }
        changes.extend(self.evaluate_all(touched, names));
        changes
    }

    /// Replaces a node and its claims, and records the blocks that may be decided differently.
    fn replace(
        &mut self,
        name: &Name,
        node: Option<&Node>,
        touched: &mut BTreeSet<IpNet>,
        changes: &mut ForwardingChanges,
    ) {
        let mut keys = Box::default();
        let mut accepted = Box::default();
        if let Some(before) = self.nodes.remove(name) {
            let rank = self.rank(name, before.created);
            for cidr in &before.pod_cidrs {
                self.claims.remove(cidr, &rank);
                self.conflicts.remove(&(name.clone(), *cidr));
                touched.insert(*cidr);
            }
            for ip in &before.ips {
                self.set_address(name, *ip, false, touched);
            }
            (keys, accepted) = (before.keys, before.accepted);
        }
        let Some(node) = node else {
            keys.into_iter().for_each(|key| changes.set(&mut self.wanted, key, None));
            accepted.iter().for_each(|cidr| _ = self.accepted.remove(cidr));
            self.problems.remove(name);
            return;
        };
        let member = Member {
            created: node.created.unwrap_or(i64::MAX),
            pod_cidrs: node.pod_cidrs.iter().map(IpNet::trunc).collect(),
            internal: first_of_each_family(&node.internal_ips),
            ips: node.ips().collect(),
            keys,
            accepted,
        };
        let rank = self.rank(name, member.created);
        for cidr in &member.pod_cidrs {
            self.claims.add(*cidr, rank.clone());
            touched.insert(*cidr);
        }
        for ip in &member.ips {
            self.set_address(name, *ip, true, touched);
        }
        self.nodes.insert(name.clone(), member);
    }

    fn set_address(&mut self, node: &Name, address: IpAddr, is_present: bool, touched: &mut BTreeSet<IpNet>) {
        let block = IpNet::from(address);
        if is_present {
            self.addresses.entry(block).insert(node.clone());
        } else if let Some(owners) = self.addresses.get_mut(&block) {
            owners.remove(node);
            if owners.is_empty() {
                self.addresses.remove(&block);
            }
        }
        touched.extend(self.claims.containing(block));
    }

    fn rank(&self, name: &Name, created: i64) -> Rank {
        Rank { is_other: *name != self.own.node, created, name: name.clone() }
    }

    /// Decides claims again that are connected with these blocks, and evaluates these nodes and those of the claims.
    fn evaluate_all(&mut self, touched: BTreeSet<IpNet>, mut names: BTreeSet<Name>) -> ForwardingChanges {
        let roots: BTreeSet<IpNet> = touched.into_iter().map(|cidr| self.claims.root(cidr)).collect();
        for root in roots {
            let decided = self.claims.decide(root, |_, cidr| self.reserved_in(cidr).is_none());
            for (cidr, rank, conflict) in decided {
                let key = (rank.name.clone(), cidr);
                match conflict {
                    Some(conflict) => _ = self.conflicts.insert(key, conflict),
                    None => _ = self.conflicts.remove(&key),
                }
                names.insert(rank.name.clone());
            }
        }
        let evaluated: Vec<(Name, Evaluation)> =
            names.into_iter().filter_map(|name| self.evaluate(&name).map(|found| (name, found))).collect();
        let mut changes = ForwardingChanges::default();
        // What moves from one node to another is replaced, so it is removed from all nodes first.
        for (name, evaluation) in &evaluated {
            self.remove_stale(name, evaluation, &mut changes);
        }
        for (name, evaluation) in evaluated {
            self.set(name, evaluation, &mut changes);
        }
        changes
    }

    fn remove_stale(&mut self, name: &Name, evaluation: &Evaluation, changes: &mut ForwardingChanges) {
        let member = self.nodes.get_mut(name).expect("it was evaluated");
        let keys: Box<[ForwardingKey]> = evaluation.objects.iter().map(ForwardingObject::key).collect();
        for key in std::mem::replace(&mut member.keys, keys) {
            if !member.keys.contains(&key) {
                changes.set(&mut self.wanted, key, None);
            }
        }
        for cidr in std::mem::replace(&mut member.accepted, evaluation.accepted.as_slice().into()) {
            self.accepted.remove(&cidr);
        }
    }

    fn set(&mut self, name: Name, evaluation: Evaluation, changes: &mut ForwardingChanges) {
        for object in evaluation.objects {
            changes.set(&mut self.wanted, object.key(), Some(object));
        }
        self.accepted.extend(evaluation.accepted);
        match evaluation.problems.is_empty() {
            true => _ = self.problems.remove(&name),
            false => _ = self.problems.insert(name, evaluation.problems),
        }
    }
}

fn reserved_map(own: &OwnNetwork) -> NetMap<Reserved> {
    let mut map = NetMap::default();
    for (net, owner) in &own.reserved {
        *map.entry(net.trunc()) = owner.clone();
    }
    map
}
