//! Source address of the default route.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_core::{DecodeError, ParseableParametrized};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteLwEnCapType, RouteNextHop, RouteType};

use super::{HEADER, all_of_table, no_table_is_empty};
use crate::error::Result;
use crate::family::Family;
use crate::message::Message;
use crate::route::message::attributes;
use crate::route::{Address, Link, Rtnetlink};

impl Rtnetlink {
    /// Returns the address of this node, chosen as in Kubernetes (`ResolveBindAddress` in k8s.io/apimachinery): the
    /// first global unicast address of `family` on the link of the default route; with several default routes, that of
    /// the most preferred one with such an address. If no such link has one, the loopback's address is used (unnumbered
    /// links, RFC 5549). `None` without a default route, or without such an address.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if links, addresses or routes change faster than they can be
    /// read.
    pub fn default_route_source(&mut self, family: Family) -> Result<Option<IpAddr>> {
        let request = all_of_table(family, RouteHeader::RT_TABLE_MAIN);
        let routes =
            self.dump("list the routes", libc::RTM_GETROUTE, &request, |message| parse(message, family));
        let routes = no_table_is_empty(routes)?;
        if routes.is_empty() {
            return Ok(None);
        }
        let links = self.links()?;
        let names: HashMap<u32, String> = links.iter().map(|link| (link.index, link.name.clone())).collect();
        let addresses = self.addresses_of_links(&[family], &names)?;
        Ok(source(routes, &links, &addresses))
    }
}

/// A default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    /// The index of its link.
    link: u32,
    /// The metric; lower is preferred.
    priority: u32,
}

/// Parses a default route of the main table to another host; `None` for any other route. As kube-proxy reads
/// `/proc/net/route` and `/proc/net/ipv6_route`: an IPv6 default route needs a gateway, an IPv4 one does not, and of
/// several next hops the first one is used.
pub(super) fn parse(message: &Message<'_>, family: Family) -> Result<Option<DefaultRoute>, DecodeError> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let header = RouteHeader::parse(message.payload)?;
    let is_default = header.address_family == family.into()
        && header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast;
    if !is_default {
        return Ok(None);
    }
    let (mut table, mut priority, mut hop) = (u32::from(header.table), 0, NextHop::default());
    for attribute in attributes(message, HEADER, &NEEDED) {
        let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
        match RouteAttribute::parse_with_param(&attribute?, parameters)? {
            RouteAttribute::Priority(metric) => priority = metric,
            RouteAttribute::Table(number) => table = number,
            RouteAttribute::MultiPath(hops) => {
                hop = NextHop::from(hops.first().ok_or("RTA_MULTIPATH has no next hop")?);
            }
            other => hop.update(&other),
        }
    }
    let needs_gateway = family == Family::V6;
    Ok(match hop.link {
        Some(link)
            if table == u32::from(RouteHeader::RT_TABLE_MAIN) && (hop.has_gateway || !needs_gateway) =>
        {
            Some(DefaultRoute { link, priority })
        }
        _ => None,
    })
}

/// The attributes that are parsed.
const NEEDED: [u16; 6] = [
    libc::RTA_OIF,
    libc::RTA_GATEWAY,
    libc::RTA_VIA,
    libc::RTA_PRIORITY,
    libc::RTA_MULTIPATH,
    libc::RTA_TABLE,
];

/// The next hop of a route.
#[derive(Clone, Copy, Debug, Default)]
struct NextHop {
    link: Option<u32>,
    has_gateway: bool,
}

impl NextHop {
    fn update(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(link) => self.link = Some(*link),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => self.has_gateway = true,
            _ => {}
        }
    }
}

impl From<&RouteNextHop> for NextHop {
    fn from(hop: &RouteNextHop) -> Self {
        let mut this = NextHop { link: Some(hop.interface_index), has_gateway: false };
        hop.attributes.iter().for_each(|attribute| this.update(attribute));
        this
    }
}

/// Returns the address for [`Rtnetlink::default_route_source`].
fn source(mut routes: Vec<DefaultRoute>, links: &[Link], addresses: &[Address]) -> Option<IpAddr> {
    routes.sort_by_key(|route| route.priority);
    let global_on = |index: u32| {
        let mut here = addresses.iter().filter(move |address| address.index == index);
        here.find_map(|address| Some(address.address.addr()).filter(is_global_unicast))
    };
    let up = |index: u32| links.iter().any(|link| link.index == index && link.is_up());
    let by_route = routes.iter().filter(|route| up(route.link)).find_map(|route| global_on(route.link));
    by_route.or_else(|| links.iter().filter(|link| link.is_loopback()).find_map(|link| global_on(link.index)))
}

/// Returns true for global unicast addresses as in Go's `net.IP.IsGlobalUnicast`, which kube-proxy uses: private and
/// unique local addresses are global.
fn is_global_unicast(address: &IpAddr) -> bool {
    let is_limited = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !is_limited && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const UP: u32 = libc::IFF_UP as u32;
    const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

    fn link(index: u32, flags: u32) -> Link {
        Link {
            index,
            name: format!("link{index}"),
            flags,
            kind: None,
            controller: None,
            peer: None,
            mac: None,
            mtu: 1500,
            alias: None,
            is_operational: true,
            has_hairpin: false,
        }
    }

    fn address(index: u32, address: &str) -> Address {
        let address = address.parse().expect("a network in the test");
        Address { index, interface: format!("link{index}"), address, scope: 0, flags: 0 }
    }

    #[test]
    fn source_is_the_address_that_kube_proxy_chooses() {
        let links = [link(1, UP | LOOPBACK), link(2, UP), link(3, UP), link(4, 0)];
        let lan = address(2, "192.0.2.7/24");
        // (case, routes as (link, priority), addresses, picked)
        type Row<'a> = (&'a str, &'a [(u32, u32)], Vec<Address>, Option<&'a str>);
        let rows: [Row; 9] = [
            (
                "the default route's link",
                &[(2, 100)],
                vec![address(3, "10.0.0.1/8"), lan.clone()],
                Some("192.0.2.7"),
            ),
            ("another link's address is no substitute", &[(3, 0)], vec![lan.clone()], None),
            (
                "the lower metric wins",
                &[(3, 200), (2, 100)],
                vec![address(3, "10.0.0.1/8"), lan.clone()],
                Some("192.0.2.7"),
            ),
            (
                "the next route if the first link has no address",
                &[(3, 0), (2, 100)],
                vec![lan.clone()],
                Some("192.0.2.7"),
            ),
            ("a link that is down", &[(4, 0)], vec![address(4, "192.0.2.8/24")], None),
            (
                "the first address of the link",
                &[(2, 0)],
                vec![address(2, "10.0.0.9/8"), lan.clone()],
                Some("10.0.0.9"),
            ),
            (
                "link-local skipped",
                &[(2, 0)],
                vec![address(2, "fe80::1/64"), address(2, "fd00::1/64")],
                Some("fd00::1"),
            ),
            (
                "169.254 skipped",
                &[(2, 0)],
                vec![address(2, "169.254.1.1/16"), lan.clone()],
                Some("192.0.2.7"),
            ),
            (
                "unnumbered link: the loopback's global address",
                &[(2, 0)],
                vec![address(1, "127.0.0.1/8"), address(1, "203.0.113.5/32"), address(2, "169.254.1.1/16")],
                Some("203.0.113.5"),
            ),
        ];
        for (case, routes, addresses, picked) in rows {
            let routes = routes.iter().map(|&(link, priority)| DefaultRoute { link, priority }).collect();
            let found = source(routes, &links, &addresses).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), picked, "{case}");
        }
    }

    #[test]
    fn only_default_routes_of_the_main_table_count() {
        let (main, unicast) = (libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
        // A gateway of the family's address length, which some routes have as an attribute and some in their next hops.
        let gateway_address = |family| match family {
            Family::V4 => Ipv4Addr::new(10, 0, 0, 1).octets().to_vec(),
            Family::V6 => Ipv6Addr::LOCALHOST.octets().to_vec(),
        };
        let next_hop = |link: u32, family| {
            let gateway = gateway_address(family);
            let attribute = [&(4 + gateway.len() as u16).to_ne_bytes()[..], &[5, 0], &gateway].concat();
            [&(8 + attribute.len() as u16).to_ne_bytes()[..], &[0, 0], &link.to_ne_bytes(), &attribute]
                .concat()
        };
        // (case, family, destination length, table, type, gateway, hops, link)
        type Row<'a> = (&'a str, Family, u8, u8, u8, bool, &'a [u32], Option<u32>);
        let rows: [Row; 9] = [
            ("with a gateway", Family::V4, 0, main, unicast, true, &[], Some(2)),
            ("without a gateway", Family::V4, 0, main, unicast, false, &[], Some(2)),
            ("IPv6 with a gateway", Family::V6, 0, main, unicast, true, &[], Some(2)),
            ("IPv6 without a gateway", Family::V6, 0, main, unicast, false, &[], None),
            ("a network", Family::V4, 8, main, unicast, true, &[], None),
            ("another table", Family::V4, 0, 100, unicast, true, &[], None),
            ("a black hole", Family::V4, 0, main, libc::RTN_BLACKHOLE, false, &[], None),
            ("several hops", Family::V4, 0, main, unicast, false, &[7, 8], Some(7)),
            ("several hops, IPv6", Family::V6, 0, main, unicast, false, &[7, 8], Some(7)),
        ];
        for (case, family, length, table, kind, gateway, hops, link) in rows {
            let batch = crate::message::Batch::with_message("test", libc::RTM_NEWROUTE, 0, |message| {
                message.raw(&[family.number(), length, 0, 0, table, 0, 0, kind, 0, 0, 0, 0]);
                message.u32(libc::RTA_TABLE, table.into()).u32(libc::RTA_PRIORITY, 5);
                match hops {
                    [] => message.u32(libc::RTA_OIF, 2),
                    hops => {
                        let hops: Vec<u8> = hops.iter().flat_map(|link| next_hop(*link, family)).collect();
                        message.bytes(libc::RTA_MULTIPATH, &hops)
                    }
                };
                if gateway {
                    message.bytes(libc::RTA_GATEWAY, &gateway_address(family));
                }
            });
            let batch = batch.expect("short attributes");
            let message = crate::message::Messages::new(batch.bytes()).next().expect("one").expect("whole");
            let expected = link.map(|link| DefaultRoute { link, priority: 5 });
            assert_eq!(parse(&message, family).expect("well formed"), expected, "{case}");
        }
    }
}
