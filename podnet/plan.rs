//! This node's part of the pod network.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_cluster::Name;

use crate::mode::PodNetworkMode;
use crate::wiring::Wiring;

/// This node's part of the pod network, once its routes are programmed. Egress rules and the CNI configuration follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetworkPlan {
    /// The name of the node.
    pub node: Name,
    /// How pods of different nodes reach each other.
    pub mode: PodNetworkMode,
    /// How pods are connected to the node.
    pub wiring: Wiring,
    /// The pod CIDRs of the node, at most one of each family, without host bits.
    pub pod_cidrs: Vec<IpNet>,
    /// The pod CIDRs of all nodes, including this one, without those that are rejected because they overlap with others.
    pub cluster_pod_cidrs: Arc<BTreeSet<IpNet>>,
    /// The MTU of pods' interfaces.
    pub mtu: u32,
    /// The interfaces to the other nodes: one of each family of the pod CIDRs, which may be the same.
    pub uplinks: Vec<Uplink>,
}

/// The interface by which a node reaches the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The index of the interface.
    pub index: u32,
    /// The name of the interface.
    pub name: String,
    /// The MTU of the interface.
    pub mtu: u32,
    /// The address of the node on it, an internal IP of the Node object.
    pub address: IpAddr,
}
