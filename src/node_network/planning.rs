//! What follows from the Nodes and the links of this node: its VXLAN links, the inputs of its routes, and its plan (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_podnet::links::{OwnLinks, VtepLinks, pod_mtu};
use portcullis_podnet::node_routes::{NodeRoutes, OwnNetwork, Reserved, vtep_mac};
use portcullis_podnet::{PodNetworkPlan, Uplink};

use crate::config::{Config, DetectLocal, DetectLocalMode, PodNetwork};

/// The error if there is no uplink.
pub const NO_UPLINK: &str = "no interface to the other nodes was found: none has an address of type InternalIP of the Node object, and \
                             there is no default route";

/// Returns the CIDRs of `--cluster-cidr`, which contain the pods of all nodes.
pub fn cluster_cidrs(config: &Config) -> Vec<IpNet> {
    match &config.detect_local {
        DetectLocalMode::Fixed(DetectLocal::Cidrs(cidrs)) => cidrs.to_vec(),
        _ => Vec::new(),
    }
}

/// Returns the families of which the Node object has an internal IP and no uplink was found.
pub fn missing_uplinks(routes: &NodeRoutes, own: &OwnLinks) -> [bool; 2] {
    let internal = routes.internal_ips();
    [0, 1].map(|at| internal[at].is_some() && own.uplinks[at].is_none())
}

/// Returns the VXLAN links that a node with these links needs.
pub fn vtep_links(routes: &NodeRoutes, settings: &PodNetwork, own: &OwnLinks) -> VtepLinks {
    let underlays = if settings.mode.has_overlay() { routes.underlays() } else { [false; 2] };
    VtepLinks::new(settings.vxlan, vtep_mac(&routes.own().node), own, underlays, routes.own_pod_cidrs())
}

/// Returns the facts about this node from which its routes follow. `vteps` are the indexes of the VXLAN links.
pub fn own_network(
    routes: &NodeRoutes,
    own: &OwnLinks,
    vteps: [Option<u32>; 2],
    reserved: &BTreeMap<IpNet, Reserved>,
) -> OwnNetwork {
    let mut reserved = reserved.clone();
    reserved.extend(own.gateways.iter().map(|gateway| (IpNet::from(*gateway), Reserved::Gateway)));
    let OwnNetwork { node, mode, .. } = routes.own();
    OwnNetwork { on_link: own.on_link.clone(), vteps, reserved, ..OwnNetwork::new(node.clone(), *mode) }
}

/// Returns this node's part of the pod network. `missing`: the families of whose uplink the last known one is used, as it was not found.
///
/// # Errors
/// Why the node is not ready.
pub fn plan(
    routes: &NodeRoutes,
    settings: &PodNetwork,
    uplinks: [Option<Uplink>; 2],
    missing: [bool; 2],
) -> Result<PodNetworkPlan, String> {
    let node = &routes.own().node;
    let pod_cidrs = routes.own_pod_cidrs().to_vec();
    if !routes.contains(node) {
        return Err(format!("the Node object of this node ({node}) does not exist"));
    }
    if pod_cidrs.is_empty() {
        return Err(
            "this node has no pod CIDRs (spec.podCIDRs); the controller manager assigns them with --allocate-node-cidrs"
                .to_owned(),
        );
    }
    if let Some(problem) = routes.problems().get(node).and_then(|problems| problems.first()) {
        return Err(format!("this node: {problem}"));
    }
    if is_without_uplink(settings, &pod_cidrs, &uplinks, missing) {
        return Err(NO_UPLINK.to_owned());
    }
    let mtu = pod_mtu(&uplinks, settings.mode.has_overlay()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let distinct = uplinks.into_iter().flatten().filter(|uplink| seen.insert((uplink.index, uplink.address)));
    Ok(PodNetworkPlan {
        node: node.clone(),
        mode: settings.mode,
        wiring: settings.wiring,
        pod_cidrs,
        cluster_pod_cidrs: Arc::new(routes.pod_cidrs().clone()),
        mtu: settings.mtu.map_or(mtu, std::num::NonZeroU32::get),
        uplinks: distinct.collect(),
    })
}

/// Returns true if other nodes cannot be reached over a family of the pod CIDRs. The overlay needs one of any family.
fn is_without_uplink(
    settings: &PodNetwork,
    pod_cidrs: &[IpNet],
    uplinks: &[Option<Uplink>; 2],
    missing: [bool; 2],
) -> bool {
    let has = |at: usize| uplinks[at].is_some() && !missing[at];
    match settings.mode.has_overlay() {
        true => !has(0) && !has(1),
        false => pod_cidrs.iter().any(|cidr| !has(usize::from(Family::from_net(cidr) == Family::V6))),
    }
}
