use std::net::IpAddr;

use super::address::Address;
use super::link::Link;
use super::u32_at;
use crate::attribute::{Attributes, Malformed};
use crate::family::Family;
use crate::message::Message;

/// Bytes of `struct rtmsg`: u8 family, destination length, source length, tos, table, protocol, scope, type;
/// u32 flags.
const HEADER: usize = 12;
const TABLE_AT: usize = 4;
const TYPE_AT: usize = 7;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;

/// A way out of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    /// The link it leaves by.
    pub(super) link: u32,
    /// The metric; less is preferred.
    pub(super) priority: u32,
}

/// The header of a request for the main table's routes of a family. Kernels before 4.20 send all tables.
pub(super) fn request(family: Family) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family.number();
    header[TABLE_AT] = libc::RT_TABLE_MAIN;
    header
}

/// Reads a route, if it is a default route of the main table that leads to another host. As upstream reads
/// `/proc/net/route` and `/proc/net/ipv6_route`: an IPv6 default route counts only with a gateway, an IPv4
/// one also without, and of several next hops the first one counts.
pub(super) fn parse(message: &Message<'_>, family: Family) -> Result<Option<DefaultRoute>, Malformed> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let (header, attributes) = message.split::<HEADER>()?;
    let mut table = u32::from(header[TABLE_AT]);
    let is_default = header[0] == family.number() && header[1] == 0 && header[TYPE_AT] == libc::RTN_UNICAST;
    if !is_default {
        return Ok(None);
    }
    let (mut priority, mut hop) = (0, Hop::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            RTA_PRIORITY => priority = attribute.u32()?,
            RTA_TABLE => table = attribute.u32()?,
            RTA_MULTIPATH => hop = Hop::first_of(attribute.payload)?,
            _ => hop.read(attribute.kind, || attribute.u32())?,
        }
    }
    let leads_out = family == Family::V4 || hop.gateway;
    Ok(match hop.link {
        Some(link) if table == u32::from(libc::RT_TABLE_MAIN) && leads_out => {
            Some(DefaultRoute { link, priority })
        }
        _ => None,
    })
}

/// Where a route's packets go next.
#[derive(Clone, Copy, Debug, Default)]
struct Hop {
    link: Option<u32>,
    gateway: bool,
}

impl Hop {
    fn read(&mut self, kind: u16, link: impl FnOnce() -> Result<u32, Malformed>) -> Result<(), Malformed> {
        match kind {
            RTA_OIF => self.link = Some(link()?),
            RTA_GATEWAY | RTA_VIA => self.gateway = true,
            _ => {}
        }
        Ok(())
    }

    /// Reads the first `struct rtnexthop`: u16 length, u8 flags, u8 hops, i32 link, attributes.
    fn first_of(hops: &[u8]) -> Result<Self, Malformed> {
        const FIXED: usize = 8;
        let announced =
            hops.first_chunk::<2>().map_or(FIXED, |bytes| usize::from(u16::from_ne_bytes(*bytes)));
        if announced < FIXED || announced > hops.len() {
            return Err(Malformed::Length { what: "next hop", announced, present: hops.len() });
        }
        let mut hop = Hop { link: Some(u32_at(hops, 4)), gateway: false };
        for attribute in Attributes::new(&hops[FIXED..announced]) {
            let attribute = attribute?;
            hop.read(attribute.kind, || attribute.u32())?;
        }
        Ok(hop)
    }
}

/// Picks the node's address; see [`Rtnetlink::default_route_source`](super::Rtnetlink::default_route_source).
pub(super) fn source(mut routes: Vec<DefaultRoute>, links: &[Link], addresses: &[Address]) -> Option<IpAddr> {
    routes.sort_by_key(|route| route.priority);
    let global_on = |index: u32| {
        let mut here = addresses.iter().filter(move |address| address.index == index);
        here.find_map(|address| Some(address.address.addr()).filter(is_global_unicast))
    };
    let up = |index: u32| links.iter().any(|link| link.index == index && link.is_up());
    let by_route = routes.iter().filter(|route| up(route.link)).find_map(|route| global_on(route.link));
    by_route.or_else(|| links.iter().filter(|link| link.is_loopback()).find_map(|link| global_on(link.index)))
}

/// Go's `net.IP.IsGlobalUnicast`, by which upstream judges: private and unique local addresses are global.
fn is_global_unicast(address: &IpAddr) -> bool {
    let elsewhere = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !elsewhere && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: u32 = libc::IFF_UP as u32;
    const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

    fn link(index: u32, flags: u32) -> Link {
        Link { index, name: format!("link{index}"), flags, kind: None, controller: None, peer: None }
    }

    fn address(index: u32, address: &str) -> Address {
        let address = address.parse().expect("a network in the test");
        Address { index, interface: format!("link{index}"), address, scope: 0, flags: 0 }
    }

    #[test]
    fn picks_the_address_upstream_picks() {
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
        let hop = |link: u32| {
            [&16u16.to_ne_bytes()[..], &[0, 0], &link.to_ne_bytes()[..], &[8, 0, 5, 0, 10, 0, 0, 1]].concat()
        };
        let hops = [hop(7), hop(8)].concat();
        // (case, family, destination length, table, type, gateway, hops, link)
        type Row<'a> = (&'a str, Family, u8, u8, u8, bool, &'a [u8], Option<u32>);
        let rows: [Row; 9] = [
            ("with a gateway", Family::V4, 0, main, unicast, true, &[], Some(2)),
            ("straight onto the link", Family::V4, 0, main, unicast, false, &[], Some(2)),
            ("IPv6 with a gateway", Family::V6, 0, main, unicast, true, &[], Some(2)),
            ("IPv6 straight onto the link", Family::V6, 0, main, unicast, false, &[], None),
            ("a network", Family::V4, 8, main, unicast, true, &[], None),
            ("another table", Family::V4, 0, 100, unicast, true, &[], None),
            ("a black hole", Family::V4, 0, main, libc::RTN_BLACKHOLE, false, &[], None),
            ("several hops", Family::V4, 0, main, unicast, false, &hops, Some(7)),
            ("several hops, IPv6", Family::V6, 0, main, unicast, false, &hops, Some(7)),
        ];
        for (case, family, length, table, kind, gateway, hops, link) in rows {
            let batch = crate::message::Batch::with_message("test", libc::RTM_NEWROUTE, 0, |message| {
                message.raw(&[family.number(), length, 0, 0, table, 0, 0, kind, 0, 0, 0, 0]);
                message.u32(RTA_TABLE, table.into()).u32(RTA_PRIORITY, 5);
                match hops {
                    [] => message.u32(RTA_OIF, 2),
                    hops => message.bytes(RTA_MULTIPATH, hops),
                };
                if gateway {
                    message.bytes(RTA_GATEWAY, &[10, 0, 0, 1]);
                }
            });
            let batch = batch.expect("short attributes");
            let message = crate::message::Messages::new(batch.bytes()).next().expect("one").expect("whole");
            let expected = link.map(|link| DefaultRoute { link, priority: 5 });
            assert_eq!(parse(&message, family), Ok(expected), "{case}");
        }
    }
}
