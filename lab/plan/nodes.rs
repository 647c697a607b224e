//! Nodes of the plan: the user's, those that pods and EndpointSlices name, and additional ones up to the minimum number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses::{AddressPool, Family, nth};
use super::{ClusterPlan, NodePlan, PlanOptions};
use crate::cluster_objects::{ClusterObjects, LabObject};
use crate::error::{Error, Result};

pub(super) fn plan(
    cluster: &ClusterObjects,
    before: &ClusterPlan,
    options: &PlanOptions,
) -> Result<Vec<NodePlan>> {
    let families = options.families.list();
    let mut objects: Vec<Node> = Vec::new();
    for object in cluster.objects() {
        if let LabObject::Node(node) = object {
            objects.push(node.clone());
        }
    }
    let mut names: Vec<String> = cluster.objects().flat_map(node_names).collect();
    names.extend(before.nodes.iter().map(|node| node.name.clone()));
    for name in names {
        push_missing(&mut objects, &name);
    }
    for index in 1.. {
        if objects.len() >= options.nodes.max(1) {
            break;
        }
        push_missing(&mut objects, &format!("node-{index}"));
    }
    let mut nodes: Vec<NodePlan> =
        objects.into_iter().map(|object| given(object, before)).collect::<Result<_>>()?;
    for &family in families {
        allocate(&mut nodes, family)?;
    }
    for node in &mut nodes {
        node.ports.clone_from(&options.node_echo_ports);
        fill_in(node);
    }
    Ok(nodes)
}

/// Returns a sort key for natural order: `node-2` before `node-10`.
fn natural_order(name: &str) -> (String, u64, String) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[stem.len()..].parse().unwrap_or(0);
    (stem.to_owned(), number, name.to_owned())
}

fn push_missing(nodes: &mut Vec<Node>, name: &str) {
    if !nodes.iter().any(|node| node.metadata.name.as_deref() == Some(name)) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        nodes.push(Node { metadata, ..Default::default() });
    }
}

/// Returns the nodes that an object names.
fn node_names(object: &LabObject) -> Vec<String> {
    match object {
        LabObject::Pod(pod) => pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect(),
        LabObject::EndpointSlice(slice) => {
            slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.node_name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns a node with the addresses and CIDRs of the user's object or of the previous plan.
fn given(object: Node, before: &ClusterPlan) -> Result<NodePlan> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let wrong = |message: String| Error::plan(format!("Node {name}"), message);
    if name == "outside" {
        return Err(wrong("name is reserved for the outside host; expected another name".into()));
    }
    let listed = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut addresses = Vec::new();
    for address in listed.filter(|address| address.type_ == "InternalIP") {
        let parsed = address.address.parse::<IpAddr>();
        let invalid = |_| wrong(format!("expected an IP address, found {:?}", address.address));
        addresses.push(parsed.map_err(invalid)?);
    }
    let cidrs = object.spec.iter().flat_map(|spec| {
        let several = spec.pod_cidrs.iter().flatten();
        several.chain(spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty)))
    });
    let mut pod_cidrs = Vec::new();
    for cidr in cidrs {
        pod_cidrs.push(cidr.parse::<IpNet>().map_err(|_| wrong(format!("expected a CIDR, found {cidr:?}")))?);
    }
    if let Some(previous) = before.node(&name) {
        if addresses.is_empty() {
            addresses.clone_from(&previous.addresses);
        }
        if pod_cidrs.is_empty() {
            pod_cidrs.clone_from(&previous.pod_cidrs);
        }
    }
    Ok(NodePlan { name, addresses, pod_cidrs, ports: BTreeSet::new(), object })
}

/// Allocates an address and a pod CIDR of a family for each node that has none.
fn allocate(nodes: &mut [NodePlan], family: Family) -> Result<()> {
    let underlay = match family {
        Family::V4 => "192.168.77.0/24",
        Family::V6 => "fd00:77::/64",
    };
    let mut pool = AddressPool::new(underlay.parse().expect("the lab's ranges are well-formed"), 11);
    nodes.iter().flat_map(|node| &node.addresses).for_each(|address| pool.reserve(*address));
    let taken: Vec<IpNet> = nodes.iter().flat_map(|node| node.pod_cidrs.clone()).collect();
    let overlaps = |net: &IpNet| taken.iter().any(|t| t.contains(net) || net.contains(t));
    let mut free = (1..=254_u8).map(|index| pod_cidr(family, index)).filter(|net| !overlaps(net));
    // The result depends on the nodes' names, not on the order of the objects that name them.
    let mut nodes: Vec<&mut NodePlan> = nodes.iter_mut().collect();
    nodes.sort_by_cached_key(|node| natural_order(&node.name));
    for node in nodes {
        let full = |what: &str| Error::plan(format!("Node {}", node.name), format!("no free {what}"));
        if !node.addresses.iter().any(|address| Family::from_ip(*address) == family) {
            let address = pool.take().ok_or_else(|| full("node address"))?;
            node.addresses.push(address);
        }
        if !node.pod_cidrs.iter().any(|net| Family::from_ip(net.addr()) == family) {
            let net = free.next().ok_or_else(|| full("pod CIDR"))?;
            node.pod_cidrs.push(net);
        }
    }
    Ok(())
}

fn pod_cidr(family: Family, index: u8) -> IpNet {
    let text = match family {
        Family::V4 => format!("10.244.{index}.0/24"),
        Family::V6 => format!("fd00:10:244:{index:x}::/64"),
    };
    text.parse().expect("the lab's ranges are well-formed")
}

fn fill_in(node: &mut NodePlan) {
    let object = &mut node.object;
    let labels = object.metadata.labels.get_or_insert_default();
    labels.entry("kubernetes.io/hostname".into()).or_insert_with(|| node.name.clone());
    let spec = object.spec.get_or_insert_default();
    spec.pod_cidrs = Some(node.pod_cidrs.iter().map(IpNet::to_string).collect());
    spec.pod_cidr = node.pod_cidrs.first().map(IpNet::to_string);
    let status = object.status.get_or_insert_default();
    let addresses = status.addresses.get_or_insert_default();
    addresses.retain(|address| address.type_ != "InternalIP");
    let internal = node.addresses.iter();
    let internal = internal.map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() });
    addresses.extend(internal);
    if !addresses.iter().any(|address| address.type_ == "Hostname") {
        addresses.push(NodeAddress { type_: "Hostname".into(), address: node.name.clone() });
    }
    status.conditions.get_or_insert_with(|| {
        vec![NodeCondition { type_: "Ready".into(), status: "True".into(), ..Default::default() }]
    });
}

impl NodePlan {
    /// Returns all addresses from which packets of the node can come: its own, those of its bridge, and those that it has in an overlay,
    /// which are the network addresses of its pod CIDRs.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let overlay = self.pod_cidrs.iter().map(IpNet::network).collect();
        [self.addresses.clone(), self.bridge_addresses(), overlay].concat()
    }

    /// Returns the addresses of the node's bridge, the first of each pod CIDR.
    pub fn bridge_addresses(&self) -> Vec<IpAddr> {
        self.pod_cidrs.iter().filter_map(|net| nth(net.trunc(), 1)).collect()
    }
}
