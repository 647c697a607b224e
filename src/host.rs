//! Facts of this machine: its addresses, and the features of its kernel and tools.

use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_modes::route_localnet;
use portcullis_netlink::nfacct::Counters;
use portcullis_netlink::route::Rtnetlink;

use crate::config::ProxyMode;

/// Returns the addresses of this machine's interfaces, in the kernel's order, except those of `kube-ipvs0`, which belong to
/// Services. On an error, which is logged, it is empty.
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

/// Returns the source address of the default route.
pub fn default_route_source(family: Family) -> Option<IpAddr> {
    let family = match family {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    };
    Rtnetlink::open().and_then(|mut i| i.default_route_source(family)).ok().flatten()
}

/// Creates the nfacct counters that rules name. Returns true on success.
pub fn ensure_nfacct() -> bool {
    let ensured = Counters::open().and_then(|mut counters| {
        counters.ensure(NFACCT_INVALID_DROPPED)?;
        counters.ensure(NFACCT_LOCALHOST_NODE_PORTS)
    });
    if let Err(error) = &ensured {
        tracing::info!(%error, "cannot create nfacct counters; writing rules without them");
    }
    ensured.is_ok()
}

/// Returns true if this kernel has nfacct. Changes nothing.
pub fn has_nfacct() -> bool {
    Counters::open().and_then(|mut counters| counters.available()).unwrap_or(false)
}

/// Returns true if this machine accepts packets to loopback addresses from other hosts (`route_localnet`) and the rules
/// depend on it: with node ports on localhost they always drop such packets.
pub fn accepts_loopback(options: &portcullis_modes::Options) -> bool {
    route_localnet::needs_guard(options)
}

/// Returns the addresses that the rules depend on: in IPVS mode all, as each serves node ports. In the other modes those
/// within `--nodeport-addresses`, so that the interface of a new pod does not trigger a sync.
pub fn addresses_in_rules(
    mode: ProxyMode,
    options: &portcullis_modes::Options,
    all: &[IpAddr],
) -> Box<[IpAddr]> {
    if mode.has_node_ports_per_address() {
        return all.into();
    }
    let blocks = options.node_port_addresses.blocks();
    all.iter().copied().filter(|ip| blocks.iter().any(|block| block.contains(ip))).collect()
}
