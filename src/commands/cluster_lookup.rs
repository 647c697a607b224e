//! The cluster as `explain` and `policy` see it: objects, compiled policies, and the owners of addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Index, Name, NamespacedName, Protocol};
use portcullis_policy::{CompiledPolicies, Compiler, Connection, Evaluation, Scope};

use super::explain::PodNetworkLookup;
use crate::config::{Config, nearest};
pub(crate) use crate::truncated_list::listed;
use crate::{host, node, unknown_object};

/// A port number and its protocol.
pub(crate) type PortNumber = (u16, Protocol);

/// The objects of a cluster, its compiled policies, and the configuration.
pub(crate) struct ClusterLookup<'a> {
    pub(crate) config: &'a Config,
    pub(crate) index: &'a Index,
    compiler: Compiler,
    /// This machine's node name and addresses, if it is a node of the cluster.
    this_machine: Option<(Name, Vec<IpAddr>)>,
    /// The pod network; `None` without `--pod-network`.
    pub(crate) pod_network: Option<PodNetworkLookup<'a>>,
}

/// The address on which NodeLocal DNSCache listens on every node, by its documentation.
const NODE_LOCAL_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

impl<'a> ClusterLookup<'a> {
    /// Returns the cluster of an index.
    pub(crate) fn new(config: &'a Config, index: &'a Index) -> Self {
        let has_overlay = config.pod_network.as_ref().is_some_and(|network| network.mode.has_overlay());
        let compiler = Compiler::new(Scope::Cluster).with_overlay(has_overlay).with_index(index);
        ClusterLookup {
            config,
            index,
            compiler,
            this_machine: this_machine(config, index),
            pod_network: PodNetworkLookup::new(config, index),
        }
    }

    /// Returns the compiled policies.
    pub(crate) fn compiled(&self) -> &CompiledPolicies {
        self.compiler.compiled()
    }

    /// Returns true if there is any policy.
    pub(crate) fn has_policies(&self) -> bool {
        self.index.network_policies().next().is_some()
            || self.index.cluster_network_policies().next().is_some()
    }

    /// Returns true if a node is this machine.
    pub(crate) fn is_this_machine(&self, node: &Name) -> bool {
        self.this_machine.as_ref().is_some_and(|(name, _)| name == node)
    }

    /// Returns the Services as a node serves them.
    pub(crate) fn desired(&self, node: &Name) -> Desired {
        Desired::new(node.clone())
            .with_external_cidrs(&self.config.external_address_cidrs)
            .with_index(self.index)
    }

    /// Returns the pod with this address that is not on the host network.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.compiled().pod_at(address).and_then(|pod| self.index.pod(&pod.key))
    }

    /// Returns the node that has an address by its Node object or as the gateway of its pods; the first by name of several.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<Name> {
        let having = self.index.nodes().filter(|node| node.ips().any(|ip| ip == address));
        let by_object = having.map(|node| &node.name).min();
        let by_gateway = || {
            let names = self.index.nodes().map(|node| &node.name);
            names.filter(|name| self.is_unlisted_address_of(name, address)).min()
        };
        by_object.or_else(by_gateway).cloned()
    }

    /// Returns true if an address that no pod has belongs to a node although its Node object does not list it: the first address
    /// of its pod CIDR, which is the gateway of its pods with most network plugins, or any address of this machine if it is that
    /// node.
    pub(crate) fn is_unlisted_address_of(&self, node: &Name, address: IpAddr) -> bool {
        let gateway = || {
            let node = self.index.node(node);
            let cidrs = node.into_iter().flat_map(|node| node.pod_cidrs.iter());
            cidrs.map(first_address).any(|gateway| gateway == Some(address))
        };
        let of_this_machine = || {
            self.this_machine
                .as_ref()
                .is_some_and(|(name, addresses)| name == node && addresses.contains(&address))
        };
        self.pod_at(address).is_none() && (gateway() || of_this_machine())
    }

    /// Returns true if an address is local on a node. Includes addresses that every node has, such as that of NodeLocal
    /// DNSCache.
    pub(crate) fn is_own_address(&self, node: &Name, address: IpAddr) -> bool {
        let listed = || self.index.node(node).is_some_and(|node| node.ips().any(|ip| ip == address));
        address == NODE_LOCAL_DNS || listed() || self.is_unlisted_address_of(node, address)
    }

    /// Evaluates the policies for a connection, with the addresses of nodes known.
    pub(crate) fn evaluate(&self, connection: Connection) -> Evaluation {
        self.compiled()
            .evaluate_with_node_addresses(connection, &|node, address| self.is_own_address(node, address))
    }

    /// Returns the node of the pod that has an address, or the node that has it.
    pub(crate) fn node_of_address(&self, address: IpAddr) -> Option<Name> {
        self.pod_at(address).map_or_else(|| self.node_at(address), |pod| pod.node.clone())
    }

    /// Returns the first address of a node in a family.
    pub(crate) fn node_address(&self, node: &Name, family: Family) -> Option<IpAddr> {
        self.index.node(node)?.ips().find(|ip| Family::from_address(*ip) == family)
    }

    /// Returns the primary addresses of a node.
    pub(crate) fn primary_ips(&self, node: &Name) -> Box<[IpAddr]> {
        node::primary_ips(self.config, self.index.node(node), |_| None)
    }

    /// Returns the known ports of pod addresses: named container ports, and target ports of Services.
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

    /// Returns the names of all nodes, sorted.
    pub(crate) fn node_names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.index.nodes().map(|node| node.name.clone()).collect();
        names.sort();
        names
    }

    /// Returns the error message for an object that does not exist, with a similar or existing name.
    pub(crate) fn unknown(&self, kind: &str, name: &NamespacedName, others: Vec<&NamespacedName>) -> String {
        unknown_object::message(kind, name, &others)
    }

    /// Returns the error message for a node that does not exist, with a similar or all existing names.
    pub(crate) fn unknown_node(&self, name: &Name) -> String {
        let names = self.node_names();
        match nearest(name.as_str(), names.iter().map(|name| name.as_str())) {
            Some(near) => format!("there is no node {name}; did you mean {near}?"),
            None if names.is_empty() => format!("there is no node {name}, nor any other Node object"),
            None => {
                format!("there is no node {name}; the nodes are {}", listed(names.iter().map(|n| n.as_str())))
            }
        }
    }
}

/// Returns the first host address of a CIDR, which network plugins usually assign to the bridge.
fn first_address(cidr: &IpNet) -> Option<IpAddr> {
    let first = match cidr.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network).checked_add(1)?).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network).checked_add(1)?).to_be_bytes()),
    };
    cidr.contains(&first).then_some(first)
}

/// Returns this machine's node name and addresses; `None` unless it has an address that the Node object lists, as the cluster
/// may not be this machine's.
fn this_machine(config: &Config, index: &Index) -> Option<(Name, Vec<IpAddr>)> {
    let name = node::name(config).ok()?;
    let node = index.node(&name)?;
    let addresses = host::addresses();
    node.ips().any(|ip| addresses.contains(&ip)).then_some((name, addresses))
}
