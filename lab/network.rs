//! The lab's network: namespaces, links, addresses and routes, as `ip` commands.
//!
//! ```text
//!  pod ns            node ns                          outside ns
//!  eth0 ──── vethN ─ cni0 (bridge, pod CIDR's .1)     underlay (bridge, 192.168.77.2)
//!                    eth0 (192.168.77.11) ─────────── upN
//!                    routes to the other nodes' CIDRs  all of 198.51.100.0/24 is its own
//! ```
//! The outside host has the bridge that connects the nodes, and is their default gateway. It does not forward, so packets
//! that a node sends out towards a Service's address are dropped there, as in most networks.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::announce::announce;
use crate::error::{Error, Result};
use crate::link_readiness::wait_until_reachable;
use crate::netns::{NetNs, ip_batch};
use crate::plan::addresses::{Family, nth};
use crate::plan::{ClusterPlan, NodePlan, PodPlan};
use crate::pod_network::PluginWiring;

/// Addresses of the outside host: on the underlay, the default source address of probes, and its whole range.
struct Outside {
    underlay: &'static str,
    client: &'static str,
    range: &'static str,
}

fn outside(family: Family) -> Outside {
    match family {
        Family::V4 => Outside { underlay: "192.168.77.2", client: "198.51.100.10", range: "198.51.100.0/24" },
        Family::V6 => {
            Outside { underlay: "fd00:77::2", client: "2001:db8:100::10", range: "2001:db8:100::/64" }
        }
    }
}

/// Returns the prefix length of the underlay network.
fn underlay_prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Names of a lab's network namespaces.
#[derive(Debug, Clone)]
pub(crate) struct NetNsNames {
    pub(crate) prefix: String,
}

impl NetNsNames {
    pub(crate) fn node(&self, node: &str) -> NetNs {
        NetNs::new(format!("{}{node}", self.prefix))
    }

    pub(crate) fn outside(&self) -> NetNs {
        NetNs::new(format!("{}outside", self.prefix))
    }

    /// Returns the namespace of a pod. `_` separates its namespace and name, which cannot contain one.
    pub(crate) fn pod(&self, pod: &PodPlan) -> NetNs {
        if pod.host_network {
            return self.node(&pod.node);
        }
        NetNs::new(format!("{}{}", self.prefix, pod.name.replacen('/', "_", 1)))
    }
}

/// How pods are connected.
#[derive(Debug)]
pub(crate) enum Wiring {
    /// By the lab, with a bridge on each node and routes between nodes.
    Independent(VethNames),
    /// By the plugins of the daemons.
    Plugins(PluginWiring),
}

/// Names of the nodes' ends of the pods' veth pairs, by pod. They are numbered, because interface names are short.
#[derive(Debug, Default)]
pub(crate) struct VethNames {
    next: usize,
    by_pod: BTreeMap<String, String>,
}

/// Creates and connects the namespaces of nodes. `has_own_wiring`: pods are connected by the lab.
pub(crate) fn build(plan: &ClusterPlan, names: &NetNsNames, has_own_wiring: bool) -> Result<()> {
    let mut namespaces = vec![names.outside()];
    namespaces.extend(plan.nodes.iter().map(|node| names.node(&node.name)));
    create(&namespaces)?;
    set_outside_sysctls(&names.outside())?;
    for node in &plan.nodes {
        set_node_sysctls(&names.node(&node.name))?;
    }
    names
        .outside()
        .ip(&["link set lo up".into(), "link add underlay type bridge mcast_snooping 0".into()])?;
    let uplinks = plan.nodes.iter().enumerate().map(|(index, node)| {
        let netns = names.node(&node.name);
        format!("link add up{index} type veth peer name eth0 netns {}", netns.name())
    });
    names.outside().ip(&uplinks.collect::<Vec<_>>())?;
    for node in &plan.nodes {
        let bridge = if has_own_wiring { bridge_lines(node) } else { Vec::new() };
        names.node(&node.name).ip(&[bridge, node_lines(node, plan, has_own_wiring)].concat())?;
    }
    names.outside().ip(&outside_lines(plan))?;
    for node in &plan.nodes {
        let others = plan.nodes.iter().filter(|other| other.name != node.name);
        let mut neighbours: Vec<IpAddr> = others.flat_map(|other| other.addresses.clone()).collect();
        neighbours
            .extend(families(node).filter_map(|family| outside(family).underlay.parse::<IpAddr>().ok()));
        // A node of one family has no route to addresses of the other.
        neighbours.retain(|neighbour| address_of(node, Family::from_ip(*neighbour)).is_some());
        wait_until_reachable(&names.node(&node.name), &neighbours);
    }
    Ok(())
}

/// Creates the namespaces of pods and connects them to their nodes.
pub(crate) fn add_pods(
    pods: &[&PodPlan],
    plan: &ClusterPlan,
    names: &NetNsNames,
    wiring: &mut Wiring,
) -> Result<()> {
    let namespaces: Vec<NetNs> = pods.iter().map(|pod| names.pod(pod)).collect();
    create(&namespaces)?;
    for netns in &namespaces {
        set_host_sysctls(netns)?;
    }
    match wiring {
        Wiring::Independent(veths) => connect_pods(pods, plan, names, veths),
        Wiring::Plugins(plugins) => {
            let loopback = ["link set lo up".to_owned()];
            for (pod, netns) in pods.iter().zip(&namespaces) {
                let node = plan.node(&pod.node).expect("a planned pod is on a planned node");
                netns.ip(&loopback)?;
                plugins.add(pod, node, names)?;
            }
            Ok(())
        }
    }
}

fn connect_pods(
    pods: &[&PodPlan],
    plan: &ClusterPlan,
    names: &NetNsNames,
    veths: &mut VethNames,
) -> Result<()> {
    for node in &plan.nodes {
        let mut lines = Vec::new();
        for pod in pods.iter().filter(|pod| pod.node == node.name) {
            let veth = format!("veth{}", veths.next);
            veths.next += 1;
            lines.push(format!("link add {veth} type veth peer name eth0 netns {}", names.pod(pod).name()));
            // Hairpin mode: a Service may route a pod's connection back to the same pod.
            lines.push(format!("link set {veth} master cni0 up"));
            lines.push(format!("link set {veth} type bridge_slave hairpin on"));
            lines.extend(outside_pod_cidrs(pod, node).map(|ip| format!("route replace {ip} dev cni0")));
            veths.by_pod.insert(pod.name.clone(), veth);
        }
        names.node(&node.name).ip(&lines)?;
    }
    for pod in pods {
        let node = plan.node(&pod.node).expect("a planned pod is on a planned node");
        names.pod(pod).ip(&pod_lines(pod, node))?;
    }
    let others = |pod: &PodPlan| plan.nodes.iter().filter(|node| node.name != pod.node).collect::<Vec<_>>();
    for pod in pods {
        let home = plan.node(&pod.node).expect("a planned pod is on a planned node");
        let routes: Vec<String> =
            outside_pod_cidrs(pod, home).filter_map(|ip| route_via(ip.into(), home)).collect();
        for node in others(pod).into_iter().filter(|_| !routes.is_empty()) {
            names.node(&node.name).ip(&routes)?;
        }
        outside_pod_cidrs(pod, home).try_for_each(|ip| route_from_outside(names, ip.into(), home))?;
        let has = |ip: &IpAddr| pod.addresses.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        wait_until_reachable(
            &names.pod(pod),
            &home.bridge_addresses().into_iter().filter(has).collect::<Vec<_>>(),
        );
        announce(&names.pod(pod), &pod.addresses)?;
    }
    Ok(())
}

/// Deletes the links and namespaces of pods.
pub(crate) fn remove_pods(pods: &[&PodPlan], names: &NetNsNames, wiring: &mut Wiring) -> Result<()> {
    for pod in pods {
        match wiring {
            Wiring::Independent(veths) => {
                if let Some(veth) = veths.by_pod.remove(&pod.name) {
                    names.node(&pod.node).ip(&[format!("link del {veth}")])?;
                }
            }
            Wiring::Plugins(plugins) => plugins.remove(pod, names)?,
        }
    }
    let lines: Vec<String> = pods.iter().map(|pod| format!("netns del {}", names.pod(pod).name())).collect();
    ip_batch(&[], &lines)
}

/// Routes traffic of the outside host to a network through a node.
pub(crate) fn route_from_outside(names: &NetNsNames, to: IpNet, node: &NodePlan) -> Result<()> {
    let line = route_via(to, node).ok_or_else(|| {
        Error::plan(format!("Node {}", node.name), format!("has no address of the family of {to}"))
    })?;
    names.outside().ip(&[format!("{line} src {}", outside(Family::from_ip(to.addr())).client)])
}

/// Returns the `ip route` command for `to` through the node.
fn route_via(to: IpNet, node: &NodePlan) -> Option<String> {
    let gateway = address_of(node, Family::from_ip(to.addr()))?;
    Some(format!("route replace {to} via {gateway}"))
}

fn create(namespaces: &[NetNs]) -> Result<()> {
    let lines: Vec<String> = namespaces.iter().map(|netns| format!("netns add {}", netns.name())).collect();
    ip_batch(&[], &lines)
}

fn address_of(node: &NodePlan, family: Family) -> Option<IpAddr> {
    node.addresses.iter().copied().find(|address| Family::from_ip(*address) == family)
}

/// Returns the addresses of a pod outside of its node's pod CIDRs.
fn outside_pod_cidrs(pod: &PodPlan, node: &NodePlan) -> impl Iterator<Item = IpAddr> {
    let covered = |address: &IpAddr| node.pod_cidrs.iter().any(|net| net.contains(address));
    pod.addresses.iter().copied().filter(move |address| !covered(address))
}

fn families(node: &NodePlan) -> impl Iterator<Item = Family> {
    Family::BOTH.into_iter().filter(|family| address_of(node, *family).is_some())
}

fn bridge_lines(node: &NodePlan) -> Vec<String> {
    let mut lines = vec![
        // Without an explicit link-layer address, a bridge uses the lowest of its ports', which changes as pods are added.
        "link add cni0 address 02:00:0a:f4:00:01 type bridge mcast_snooping 0".to_owned(),
        "link set cni0 up".to_owned(),
    ];
    for net in &node.pod_cidrs {
        if let Some(own) = nth(net.trunc(), 1) {
            lines.push(format!("address add {own}/{} dev cni0{}", net.prefix_len(), nodad(own)));
        }
    }
    lines
}

/// Returns the commands for a node. `has_own_wiring`: the lab adds the routes to pods of other nodes.
fn node_lines(node: &NodePlan, plan: &ClusterPlan, has_own_wiring: bool) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    for &address in &node.addresses {
        let prefix = underlay_prefix(Family::from_ip(address));
        lines.push(format!("address add {address}/{prefix} dev eth0{}", nodad(address)));
    }
    lines.push("link set eth0 up".to_owned());
    for family in families(node) {
        let gateway = outside(family).underlay;
        // On-link, because a node's address may be of any network.
        lines.push(format!("route add {gateway} dev eth0"));
        lines.push(format!("route add default via {gateway}"));
        for other in plan.nodes.iter().filter(|other| other.name != node.name) {
            let Some(address) = address_of(other, family) else { continue };
            lines.push(format!("route add {address} dev eth0"));
            if !has_own_wiring {
                continue;
            }
            let cidrs = other.pod_cidrs.iter().filter(|net| Family::from_ip(net.addr()) == family);
            lines.extend(cidrs.map(|net| format!("route add {} via {address}", net.trunc())));
        }
    }
    lines
}

fn outside_lines(plan: &ClusterPlan) -> Vec<String> {
    let mut lines = vec!["link set underlay up".to_owned()];
    for family in Family::BOTH {
        let Outside { underlay, client, range } = outside(family);
        let prefix = underlay_prefix(family);
        let nodad = if family == Family::V6 { " nodad" } else { "" };
        lines.push(format!("address add {underlay}/{prefix} dev underlay{nodad}"));
        lines.push(format!("address add {client}/{} dev lo{nodad}", family.host_prefix()));
        // The whole range is local, so that a probe may use any source address of it.
        lines.push(format!("route add local {range} dev lo"));
    }
    let more = plan.outside.0.iter();
    lines.extend(
        more.map(|&ip| format!("address add {ip}/{} dev lo{}", Family::from_ip(ip).host_prefix(), nodad(ip))),
    );
    for (index, node) in plan.nodes.iter().enumerate() {
        lines.push(format!("link set up{index} master underlay up"));
        for &address in &node.addresses {
            let client = outside(Family::from_ip(address)).client;
            lines.push(format!("route add {address} dev underlay src {client}"));
            let cidrs = node.pod_cidrs.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4());
            lines.extend(cidrs.map(|net| format!("route add {} via {address} src {client}", net.trunc())));
        }
    }
    lines
}

fn pod_lines(pod: &PodPlan, node: &NodePlan) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    for &address in &pod.addresses {
        let family = Family::from_ip(address);
        let own = node.pod_cidrs.iter().find(|net| Family::from_ip(net.addr()) == family);
        let covering = own.filter(|net| net.contains(&address));
        let prefix = covering.map_or(family.host_prefix(), IpNet::prefix_len);
        lines.push(format!("address add {address}/{prefix} dev eth0{}", nodad(address)));
        if let Some(gateway) = own.and_then(|net| nth(net.trunc(), 1)) {
            if covering.is_none() {
                lines.push(format!("route add {gateway} dev eth0"));
            }
            lines.push(format!("route add default via {gateway}"));
        }
    }
    lines
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Sysctls of every namespace: no reverse path filter, no duplicate address detection, no rate limit for ICMP errors, and
/// neighbour solicitations every 50 ms for 3 s.
const HOST: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/neigh/default/retrans_time_ms", "50"),
    ("ipv4/neigh/default/mcast_solicit", "60"),
    ("ipv6/neigh/default/retrans_time_ms", "50"),
    ("ipv6/neigh/default/mcast_solicit", "60"),
    ("ipv4/icmp_ratemask", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    // A list of types. The empty list cannot be written, and type 255 is not used.
    ("ipv6/icmp/ratemask", "255"),
];

/// Additional sysctls of nodes. Those of bridges exist only if the kernel has br_netfilter.
const NODE: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("bridge/bridge-nf-call-iptables", "1"),
    ("bridge/bridge-nf-call-ip6tables", "1"),
];

/// Additional sysctls of the outside host. IPv6 needs `ip_nonlocal_bind` to bind to any address of a local range.
const OUTSIDE: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "0"),
    ("ipv6/ip_nonlocal_bind", "1"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
];

fn set_host_sysctls(netns: &NetNs) -> Result<()> {
    netns.run(|| write_sysctls(HOST))?
}

fn set_node_sysctls(netns: &NetNs) -> Result<()> {
    netns.run(|| write_sysctls(HOST).and_then(|()| write_sysctls(NODE)))?
}

fn set_outside_sysctls(netns: &NetNs) -> Result<()> {
    netns.run(|| write_sysctls(HOST).and_then(|()| write_sysctls(OUTSIDE)))?
}

/// Writes the sysctls that this kernel has, in the namespace of the calling thread.
fn write_sysctls(sysctls: &[(&str, &str)]) -> Result<()> {
    for (name, value) in sysctls {
        let path = Path::new("/proc/sys/net").join(name);
        if path.exists() {
            fs::write(&path, value).map_err(Error::file("cannot set", &path))?;
        }
    }
    Ok(())
}

/// Returns the default source addresses of probes from outside.
pub(crate) fn outside_clients() -> Vec<IpAddr> {
    let parse = |family| outside(family).client.parse().expect("the lab's addresses are well-formed");
    Family::BOTH.into_iter().map(parse).collect()
}
