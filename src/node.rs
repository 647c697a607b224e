//! Options that follow from the configuration and this node's Node object.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::node::Node;
use portcullis_cluster::{Family, Index, Name};
use portcullis_modes::ipvs::IpvsOptions;
use portcullis_policy::interfaces::PodInterfaces;
use portcullis_policy::table::{self, PolicyTable};
use portcullis_policy::{Compiler, Scope};

use crate::config::{Config, Established, NetworkPolicy, ProxyMode, UnknownPods};
use crate::proxy_modes;

/// Returns the name of this node in the cluster: as configured, or the host name in lower case.
///
/// # Errors
/// The host name cannot be read or is empty.
pub fn name(config: &Config) -> std::io::Result<Name> {
    if let Some(name) = &config.hostname_override {
        return Ok(Name::new(name));
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase();
    if name.is_empty() {
        return Err(std::io::Error::other("the host name is empty; set --hostname-override"));
    }
    Ok(Name::new(&name))
}

/// Returns the node's primary addresses, at most one per family: `--bind-address` unless it is unspecified, else that of the
/// Node object (internal before external), else the source address of the default route.
pub fn primary_ips(
    config: &Config,
    node: Option<&Node>,
    default_route: impl Fn(Family) -> Option<IpAddr>,
) -> Box<[IpAddr]> {
    let bound = Some(config.bind_address).filter(|ip| !ip.is_unspecified());
    let primary_ip = |family: Family| {
        let same = |ip: &IpAddr| Family::from_address(*ip) == family;
        let known = || node.and_then(|node| node.ips().find(same));
        bound.filter(same).or_else(known).or_else(|| default_route(family).filter(|_| node.is_none()))
    };
    let primary = Family::from_address(config.bind_address);
    let both = if primary == Family::V4 { Family::BOTH } else { [Family::V6, Family::V4] };
    both.into_iter().filter_map(primary_ip).collect()
}

/// Returns the options that all modes share.
pub fn options(config: &Config, node: Option<&Node>) -> portcullis_modes::Options {
    portcullis_modes::Options {
        masquerade_all: config.masquerade.all,
        masquerade_bit: config.masquerade.bit.get(),
        detect_local: config.detect_local.resolve(node.map(|node| &*node.pod_cidrs).unwrap_or_default()),
        node_port_addresses: config.node_port_addresses.clone(),
        localhost_node_ports: proxy_modes::driver(config.mode).has_localhost_node_ports(config),
        conntrack_tcp_liberal: config.conntrack.tcp_be_liberal,
        service_counters: config.nftables.service_counters,
    }
}

/// Returns the options of IPVS mode.
pub fn ipvs_options(config: &Config) -> IpvsOptions {
    IpvsOptions {
        scheduler: config.ipvs.scheduler,
        exclude_cidrs: config.ipvs.exclude_cidrs.iter().copied().collect(),
    }
}

/// Returns the CIDRs of all ServiceCIDRs, sorted; empty for modes that do not use them.
pub fn service_cidrs(mode: ProxyMode, index: &Index) -> Box<[IpNet]> {
    if !mode.uses_service_cidrs() {
        return Box::default();
    }
    let mut cidrs: Vec<IpNet> = index.service_cidrs().flat_map(|of| of.cidrs.iter().copied()).collect();
    cidrs.sort();
    cidrs.dedup();
    cidrs.into()
}

/// Returns the options of the NetworkPolicy table.
pub fn policy_options(config: &NetworkPolicy, node: Option<&Node>) -> table::PolicyOptions {
    let ranges = node.map(|node| node.pod_cidrs.to_vec()).unwrap_or_default();
    table::PolicyOptions {
        audit: config.audit,
        terminates_connections: config.established == Established::Cut && !config.audit,
        log: config.log.map(|log| table::DropLog { group: log.group, rate: log.rate }),
        unknown_pods: match config.unknown_pods {
            UnknownPods::Deny if !ranges.is_empty() => table::UnknownPods::Deny { ranges },
            _ => table::UnknownPods::Allow,
        },
        observed: None,
    }
}

/// Returns the tables that enforce a cluster's policies on a node. `is_this_machine`: the node is this machine, so pods are
/// also matched by their interfaces.
pub fn policies(config: &NetworkPolicy, name: Name, index: &Index, is_this_machine: bool) -> PolicyTable {
    let node = index.node(&name);
    if lacks_pod_ranges(config, node) {
        tracing::warn!(node = %name, "the Node object has no pod CIDRs; unknown pods are not denied");
    }
    let compiler = Compiler::new(Scope::Node(name)).with_overlay(config.has_overlay).with_index(index);
    let mut table = PolicyTable::from_compiled(policy_options(config, node), compiler.compiled());
    let mut interfaces = PodInterfaces::default();
    if is_this_machine {
        if let Err(error) = interfaces.scan(compiler.compiled()) {
            tracing::warn!(%error, "cannot look up the interfaces of pods; matching pods by their addresses only");
        }
        table.set_interfaces(interfaces.found(), compiler.compiled());
    }
    table
}

/// Returns true if unknown pods should be denied and the pod CIDRs of the node are not known.
pub fn lacks_pod_ranges(config: &NetworkPolicy, node: Option<&Node>) -> bool {
    config.unknown_pods == UnknownPods::Deny && node.is_none_or(|node| node.pod_cidrs.is_empty())
}
