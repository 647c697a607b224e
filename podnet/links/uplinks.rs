//! The interfaces to the other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::route::{Address, Link, Route, RouteTarget, Rtnetlink};
use portcullis_netlink::{Family as NetlinkFamily, Result};

use super::vtep_links::VTEP_LINKS;
use crate::ROUTE_PROTOCOL;
use crate::plan::Uplink;

/// The header of the overlay, in bytes: Ethernet, VXLAN, UDP, and IPv4 or IPv6.
const OVERHEAD: [u32; 2] = [14 + 8 + 8 + 20, 14 + 8 + 8 + 40];

/// The links of this node, as far as the ways to other nodes depend on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnLinks {
    /// The interface to the other nodes over IPv4 and over IPv6.
    pub uplinks: [Option<Uplink>; 2],
    /// The blocks of addresses that are on a link, with the index of the link.
    pub on_link: Vec<(IpNet, u32)>,
    /// The gateways of the default routes.
    pub gateways: BTreeSet<IpAddr>,
}

impl OwnLinks {
    /// Reads the links. `internal`: the first internal IP of each family in the Node object. The uplink is the link that has it; if none
    /// has it, as behind some kinds of NAT, that of the default route.
    ///
    /// # Errors
    /// [`Error::Interrupted`](portcullis_netlink::Error::Interrupted) if links, addresses or routes change faster than they can be read.
    pub fn read(rtnetlink: &mut Rtnetlink, internal: [Option<IpAddr>; 2]) -> Result<Self> {
        let links: BTreeMap<u32, Link> =
            rtnetlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let addresses = rtnetlink.addresses(&NetlinkFamily::ALL)?;
        let routes = rtnetlink.routes(None)?;
        let routes = routes.into_iter().filter(|(_, protocol)| *protocol != ROUTE_PROTOCOL);
        let routes: Vec<Route> = routes.map(|(route, _)| route).collect();
        let on_link = routes.iter().filter_map(|route| match route.target {
            RouteTarget::Link(link) if links.get(&link).is_some_and(has_neighbours) => {
                Some((route.destination, link))
            }
            _ => None,
        });
        let on_link = on_link.filter(|(net, _)| !is_link_local(net)).collect();
        let mut defaults: Vec<&Route> =
            routes.iter().filter(|route| route.destination.prefix_len() == 0).collect();
        defaults.sort_by_key(|route| route.metric);
        let gateways = defaults.iter().filter_map(|route| match route.target {
            RouteTarget::Gateway { address, .. } => Some(address),
            _ => None,
        });
        let gateways = gateways.collect();
        let mut uplinks = [None, None];
        for (family, (uplink, internal)) in Family::BOTH.into_iter().zip(uplinks.iter_mut().zip(internal)) {
            let Some(internal) = internal else { continue };
            let Some((index, address)) = uplink_of(family, internal, &addresses, &defaults) else { continue };
            let Some(link) = links.get(&index) else { continue };
            *uplink = Some(Uplink { index, name: link.name.clone(), mtu: link.mtu, address });
        }
        Ok(OwnLinks { uplinks, on_link, gateways })
    }

    /// Keeps the last known uplink of families (`missing`) of which none was found, and the blocks of addresses on it.
    pub fn keep_missing(&mut self, last: &OwnLinks, missing: [bool; 2]) {
        for (family, (uplink, (before, missing))) in
            Family::BOTH.into_iter().zip(self.uplinks.iter_mut().zip(last.uplinks.iter().zip(missing)))
        {
            if missing && let Some(before) = before {
                let is_on_it =
                    |(net, link): &&(IpNet, u32)| *link == before.index && Family::from_net(net) == family;
                self.on_link.extend(last.on_link.iter().filter(is_on_it));
                *uplink = Some(before.clone());
            }
        }
        self.on_link.sort_unstable();
        self.on_link.dedup();
    }
}

/// Returns the link and address by which other nodes reach this one.
fn uplink_of(
    family: Family,
    internal: IpAddr,
    addresses: &[Address],
    defaults: &[&Route],
) -> Option<(u32, IpAddr)> {
    let own = addresses.iter().find(|address| address.address.addr() == internal);
    own.map(|address| (address.index, internal)).or_else(|| {
        let of_family = |net: &IpNet| Family::from_net(net) == family;
        let route = defaults.iter().find(|route| of_family(&route.destination))?;
        let (RouteTarget::Gateway { link, .. } | RouteTarget::Link(link)) = route.target else { return None };
        let is_global =
            |address: &&Address| address.index == link && address.scope == 0 && of_family(&address.address);
        addresses.iter().find(is_global).map(|address| (link, address.address.addr()))
    })
}

/// Returns true if hosts on the link are found by ARP or neighbour discovery, so that one of them can be a gateway. Overlays and
/// point-to-point links (WireGuard) forward only what they are configured for.
fn has_neighbours(link: &Link) -> bool {
    let without = (libc::IFF_LOOPBACK | libc::IFF_NOARP | libc::IFF_POINTOPOINT) as u32;
    link.flags & without == 0 && !VTEP_LINKS.iter().any(|vtep| vtep.name == link.name)
}

fn is_link_local(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

/// Returns the MTU of pods' interfaces: that of the smallest uplink, minus the header of the overlay if packets may be encapsulated;
/// `None` without an uplink.
pub fn pod_mtu(uplinks: &[Option<Uplink>; 2], has_overlay: bool) -> Option<u32> {
    let smallest = uplinks.iter().flatten().map(|uplink| uplink.mtu).min()?;
    // The overlay uses IPv6 only between nodes of which one has no IPv4 address.
    let underlay = usize::from(uplinks[0].is_none());
    Some(smallest.saturating_sub(if has_overlay { OVERHEAD[underlay] } else { 0 }))
}

/// Returns the MTU of the VXLAN link over a family.
pub(super) fn vtep_mtu(uplink: &Uplink) -> u32 {
    uplink.mtu.saturating_sub(OVERHEAD[usize::from(uplink.address.is_ipv6())])
}
