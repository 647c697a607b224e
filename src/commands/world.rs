//! The cluster as `explain` and `policy` look at it: objects, compiled policies, and who has which address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Index, Name, NamespacedName, Protocol};
use portcullis_policy::{CompiledPolicies, Compiler, Connection, Evaluation, Scope};

use crate::config::{Config, nearest};
use crate::{host, node, truncated_list};

/// A port's number and its protocol.
pub(crate) type PortNumber = (u16, Protocol);

/// The cluster, and the configuration by which a node serves it.
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) index: &'a Index,
    compiler: Compiler,
    /// This machine's name as a node and its addresses, where the cluster has such a node.
    here: Option<(Name, Vec<IpAddr>)>,
}

/// Where NodeLocal DNSCache listens on every node, by its documentation.
const NODE_LOCAL_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

impl<'a> World<'a> {
    /// The world of an index.
    pub(crate) fn of(config: &'a Config, index: &'a Index) -> Self {
        let compiler = Compiler::from_index(Scope::Cluster, index);
        World { config, index, compiler, here: this_machine(config, index) }
    }

    /// What is enforced.
    pub(crate) fn compiled(&self) -> &CompiledPolicies {
        self.compiler.compiled()
    }

    /// Whether there is any policy.
    pub(crate) fn has_policies(&self) -> bool {
        self.index.network_policies().next().is_some()
            || self.index.cluster_network_policies().next().is_some()
    }

    /// What a node serves.
    pub(crate) fn desired(&self, node: Name) -> Desired {
        Desired::new(node).with_external_cidrs(&self.config.external_address_cidrs).with_index(self.index)
    }

    /// The pod that has an address of its own.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.compiled().pod_at(address).and_then(|pod| self.index.pod(&pod.key))
    }

    /// The node that has an address by its Node object, or on the bridge of its pods; the first by name of several.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<Name> {
        let having = self.index.nodes().filter(|node| node.ips().any(|ip| ip == address));
        let by_object = having.map(|node| node.name).min();
        by_object.or_else(|| {
            self.index.nodes().map(|node| node.name).filter(|name| self.is_of_node(*name, address)).min()
        })
    }

    /// Whether an address that no pod has is a node's, though its Node object does not list it: the address after the
    /// network's in its pod CIDR, which is the gateway of its pods with most network plugins, and all addresses of this machine
    /// where it is that node.
    pub(crate) fn is_of_node(&self, node: Name, address: IpAddr) -> bool {
        let gateway = || {
            let node = self.index.node(node);
            let cidrs = node.into_iter().flat_map(|node| node.pod_cidrs.iter());
            cidrs.map(second_address).any(|second| second == Some(address))
        };
        let of_this_machine = || {
            self.here.as_ref().is_some_and(|(here, addresses)| *here == node && addresses.contains(&address))
        };
        self.pod_at(address).is_none() && (gateway() || of_this_machine())
    }

    /// Whether an address is a node's as seen from that node: also where every node has it, as that of NodeLocal
    /// DNSCache.
    pub(crate) fn is_own_address(&self, node: Name, address: IpAddr) -> bool {
        let listed = || self.index.node(node).is_some_and(|node| node.ips().any(|ip| ip == address));
        address == NODE_LOCAL_DNS || listed() || self.is_of_node(node, address)
    }

    /// Judges a connection between addresses as a node does that knows its own.
    pub(crate) fn judge(&self, connection: Connection) -> Evaluation {
        self.compiled()
            .evaluate_with_node_addresses(connection, &|node, address| self.is_own_address(node, address))
    }

    /// Where an address is: the node of its pod, or the node itself.
    pub(crate) fn place_of(&self, address: IpAddr) -> Option<Name> {
        self.pod_at(address).map_or_else(|| self.node_at(address), |pod| pod.node)
    }

    /// A node's first address of a family.
    pub(crate) fn node_address(&self, node: Name, family: Family) -> Option<IpAddr> {
        self.index.node(node)?.ips().find(|ip| Family::from_address(*ip) == family)
    }

    /// The addresses that a node serves node ports on where only its primary ones count.
    pub(crate) fn primary_ips(&self, node: Name) -> Box<[IpAddr]> {
        node::primary_ips(self.config, self.index.node(node), |_| None)
    }

    /// Ports that are known of pods' addresses: those that the pods name, and those that Services lead to.
    pub(crate) fn ports_at(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<PortNumber> {
        let named = addresses.iter().filter_map(|address| self.pod_at(*address));
        let named = named.flat_map(|pod| pod.named_ports.iter()).map(|port| (port.port.get(), port.protocol));
        let mut ports: BTreeSet<PortNumber> = named.collect();
        for service in self.index.services() {
            for slice in self.index.slices_of(&service.key) {
                if slice.endpoints.iter().any(|endpoint| addresses.contains(&endpoint.address)) {
                    ports.extend(slice.ports.iter().map(|port| (port.port.get(), port.protocol)));
                }
            }
        }
        ports
    }

    /// All nodes' names, sorted.
    pub(crate) fn node_names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.index.nodes().map(|node| node.name).collect();
        names.sort();
        names
    }

    /// Says that there is no such thing, and what there is.
    pub(crate) fn unknown(&self, what: &str, name: &NamespacedName, others: Vec<&NamespacedName>) -> String {
        let mut message = format!("there is no {what} {name}");
        // Of names that are equally near, the first counts: mistakes are seldom in the first letter.
        let mut likely: Vec<&&NamespacedName> = others.iter().collect();
        likely.sort_by_key(|o| {
            (o.namespace != name.namespace, o.name.chars().next() != name.name.chars().next(), *o)
        });
        let all: Vec<String> = likely.iter().map(ToString::to_string).collect();
        let mut here: Vec<&str> =
            others.iter().filter(|other| other.namespace == name.namespace).map(|o| &*o.name).collect();
        here.sort_unstable();
        here.dedup();
        let elsewhere = others.iter().filter(|other| other.name == name.name).min();
        // A name of the same namespace is likelier than one that only looks like the whole.
        let near = nearest(&name.name, here.iter().copied()).map(|near| format!("{}/{near}", name.namespace));
        let near = near.or_else(|| elsewhere.map(ToString::to_string));
        let near =
            near.or_else(|| nearest(&name.to_string(), all.iter().map(String::as_str)).map(str::to_owned));
        match near {
            Some(near) => message.push_str(&format!("; did you mean {near}?")),
            None if here.is_empty() => {
                let namespaces: BTreeSet<&str> = others.iter().map(|o| o.namespace.as_str()).collect();
                message.push_str(&format!(
                    "; nothing of the sort is in namespace {}, but in {}",
                    name.namespace,
                    listed(namespaces)
                ));
            }
            None => message.push_str(&format!("; namespace {} has {}", name.namespace, listed(here))),
        }
        message
    }

    /// Says that there is no such node, and which there are.
    pub(crate) fn unknown_node(&self, name: Name) -> String {
        let names = self.node_names();
        match nearest(name.as_str(), names.iter().map(|name| name.as_str())) {
            Some(near) => format!("there is no node {name}; did you mean {near}?"),
            None => format!("there is no node {name}; there is {}", listed(names.iter().map(|n| n.as_str()))),
        }
    }
}

/// The address after the network's own, which bridges take as a rule.
fn second_address(cidr: &IpNet) -> Option<IpAddr> {
    let second = match cidr.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network).checked_add(1)?).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network).checked_add(1)?).to_be_bytes()),
    };
    cidr.contains(&second).then_some(second)
}

/// This machine's name as a node and its addresses; `None` unless it has an address that the Node object lists, as the
/// cluster asked about may be another than this machine's.
fn this_machine(config: &Config, index: &Index) -> Option<(Name, Vec<IpAddr>)> {
    let name = node::name(config).ok()?;
    let node = index.node(name)?;
    let addresses = host::addresses();
    node.ips().any(|ip| addresses.contains(&ip)).then_some((name, addresses))
}

/// How many names of a list are told.
const TOLD: usize = 8;

/// Some names, and how many more there are.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let listed = truncated_list::names(names, TOLD);
    if listed.is_empty() { "none".to_owned() } else { listed }
}
