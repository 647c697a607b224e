//! The host's end of the wiring "ptp".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portcullis_netlink::route::{InterfaceBatch, Ipv4Setting, NeighbourState, PodRoute};

use super::{Identity, PodInterface};
use crate::ROUTE_PROTOCOL;

/// The gateway of IPv4. No interface has this address; the pod's neighbour entry has the Ethernet address of the node.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The gateway of IPv6, which each interface of a pod has on the node.
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The prefix length of link-local addresses.
const LINK_LOCAL: u8 = 64;

/// Settings of IPv4 on the host's end.
pub(super) const IPV4_SETTINGS: [(Ipv4Setting, u32); 2] =
    [(Ipv4Setting::ProxyArp, 1), (Ipv4Setting::ReversePathFilter, 1)];

/// Returns the gateway of an address's family.
pub(super) fn gateway(address: IpNet) -> IpAddr {
    match address {
        IpNet::V4(_) => GATEWAY_V4.into(),
        IpNet::V6(_) => GATEWAY_V6.into(),
    }
}

/// Returns the address that the host's end must have: the gateway of IPv6, for pods with an IPv6 address.
pub(super) fn host_address(pod: &PodInterface<'_>) -> Option<IpNet> {
    pod.has_ipv6().then(|| IpNet::new(GATEWAY_V6.into(), LINK_LOCAL).expect("64 of 128 bits"))
}

/// Sets the host's end up, with routes and neighbours of the pod's addresses.
pub(super) fn add_host_side(
    batch: &mut InterfaceBatch,
    pod: &PodInterface<'_>,
    identity: &Identity,
    link: u32,
) {
    batch.set_up(link);
    if let Some(address) = host_address(pod) {
        batch.add_address(link, address);
    }
    for address in pod.addresses {
        let destination = IpNet::from(address.addr());
        batch.replace_route(&PodRoute { destination, gateway: None, link, protocol: ROUTE_PROTOCOL });
        batch.replace_neighbour(link, address.addr(), identity.pod_mac, NeighbourState::Reachable);
    }
}
