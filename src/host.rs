//! What is so on this machine: its addresses, and what its kernel and tools can do.

use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_modes::route_localnet;
use portcullis_netlink::nfacct::Counters;
use portcullis_netlink::route::Rtnetlink;

use crate::config::ProxyMode;

/// All addresses of this machine's interfaces, in the kernel's order, but for those of `kube-ipvs0`, which are
/// Services'. Empty, with a line in the log, where they cannot be read.
pub fn addresses() -> Vec<IpAddr> {
    let read = Rtnetlink::open().and_then(|mut i| i.addresses(&portcullis_netlink::Family::ALL));
    match read {
        Ok(addresses) => addresses
            .into_iter()
            .filter(|a| a.interface != DUMMY_INTERFACE)
            .map(|a| a.address.addr())
            .collect(),
        Err(error) => {
            tracing::error!(%error, "cannot read this machine's addresses");
            Vec::new()
        }
    }
}

/// The address that this machine's packets bear by default.
pub fn default_route_source(family: Family) -> Option<IpAddr> {
    let family = match family {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    };
    Rtnetlink::open().and_then(|mut i| i.default_route_source(family)).ok().flatten()
}

/// Makes the kernel count packets for the rules that name counters. Says whether it can.
pub fn ensure_nfacct() -> bool {
    let ensured = Counters::open().and_then(|mut counters| {
        counters.ensure(NFACCT_INVALID_DROPPED)?;
        counters.ensure(NFACCT_LOCALHOST_NODE_PORTS)
    });
    if let Err(error) = &ensured {
        tracing::info!(%error, "no nfacct counters here; the rules do without");
    }
    ensured.is_ok()
}

/// Whether this kernel has nfacct, without changing anything.
pub fn has_nfacct() -> bool {
    Counters::open().and_then(|mut counters| counters.available()).unwrap_or(false)
}

/// Whether this machine accepts packets to loopback addresses from other hosts, where the rules depend on it: with node
/// ports on localhost they always drop such packets.
pub fn accepts_loopback(options: &portcullis_modes::Options) -> bool {
    !options.serves_localhost_node_ports() && route_localnet::is_set()
}

/// Those of the addresses that the rules depend on: in ipvs mode all, for each serves node ports. Else none unless
/// node ports are served on some blocks only, so that a pod's new interface is no reason to look at the rules.
pub fn addresses_in_rules(
    mode: ProxyMode,
    options: &portcullis_modes::Options,
    all: &[IpAddr],
) -> Box<[IpAddr]> {
    match &options.node_port_addresses {
        _ if mode == ProxyMode::Ipvs => all.into(),
        portcullis_modes::NodePortAddresses::Cidrs(cidrs) => {
            all.iter().copied().filter(|ip| cidrs.iter().any(|c| c.contains(ip))).collect()
        }
        _ => Box::default(),
    }
}
