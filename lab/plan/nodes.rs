//! The nodes: the user's, those that pods and slices name, and as many more as are asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses::{AddressPool, Family, nth};
use super::{NodePlan, Plan, PlanOptions};
use crate::cluster::{Cluster, Object};
use crate::error::{Error, Result};

pub(super) fn plan(cluster: &Cluster, before: &Plan, options: &PlanOptions) -> Result<Vec<NodePlan>> {
    let families = options.families.list();
    let mut objects: Vec<Node> = Vec::new();
    for object in cluster.objects() {
        if let Object::Node(node) = object {
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

/// A key that sorts names as people count: `node-2` before `node-10`.
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

/// The nodes that an object says it is on.
fn node_names(object: &Object) -> Vec<String> {
    match object {
        Object::Pod(pod) => pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect(),
        Object::EndpointSlice(slice) => {
            slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.node_name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// A node with what the user gave it, or the earlier plan.
fn given(object: Node, before: &Plan) -> Result<NodePlan> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let wrong = |message: String| Error::plan(format!("Node {name}"), message);
    if name == "outside" {
        return Err(wrong("the lab keeps this name for the host outside of the cluster; rename it".into()));
    }
    let listed = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut addresses = Vec::new();
    for address in listed.filter(|address| address.type_ == "InternalIP") {
        let parsed = address.address.parse::<IpAddr>();
        addresses.push(parsed.map_err(|_| wrong(format!("{:?} is no IP address", address.address)))?);
    }
    let cidrs = object.spec.iter().flat_map(|spec| {
        let several = spec.pod_cidrs.iter().flatten();
        several.chain(spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty)))
    });
    let mut pod_cidrs = Vec::new();
    for cidr in cidrs {
        pod_cidrs.push(cidr.parse::<IpNet>().map_err(|_| wrong(format!("{cidr:?} is no CIDR")))?);
    }
    if let Some(twin) = before.node(&name) {
        if addresses.is_empty() {
            addresses.clone_from(&twin.addresses);
        }
        if pod_cidrs.is_empty() {
            pod_cidrs.clone_from(&twin.pod_cidrs);
        }
    }
    Ok(NodePlan { name, addresses, pod_cidrs, ports: BTreeSet::new(), object })
}

/// Gives each node that lacks them an address and a pod CIDR of a family.
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
    // Names decide, not the order of the objects that mention the nodes.
    let mut nodes: Vec<&mut NodePlan> = nodes.iter_mut().collect();
    nodes.sort_by_cached_key(|node| natural_order(&node.name));
    for node in nodes {
        let full = |what: &str| Error::plan(format!("Node {}", node.name), format!("no {what} is left"));
        if !node.addresses.iter().any(|address| Family::of(*address) == family) {
            let address = pool.take().ok_or_else(|| full("node address"))?;
            node.addresses.push(address);
        }
        if !node.pod_cidrs.iter().any(|net| Family::of(net.addr()) == family) {
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
    /// The node's own addresses in its pod CIDRs, which its bridge has.
    pub fn bridge(&self) -> Vec<IpAddr> {
        self.pod_cidrs.iter().filter_map(|net| nth(net.trunc(), 1)).collect()
    }
}
