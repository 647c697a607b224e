//! Routes of the main table that forward packets to other hosts, or reject them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{HEADER, all_of_table, no_table_is_empty};
use crate::attribute::{Malformed, Writer};
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::Message;
use crate::route::Rtnetlink;

/// `RTNH_F_ONLINK`: the gateway is on the link, whatever the link's addresses.
const ONLINK: u32 = 4;

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The destinations.
    pub destination: IpNet,
    /// Where packets go.
    pub target: RouteTarget,
    /// The metric: of several routes to the same destinations, the one with the lowest is used.
    pub metric: u32,
}

/// Where the packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteTarget {
    /// To a gateway.
    Gateway {
        /// The index of the link.
        link: u32,
        /// The address of the gateway.
        address: IpAddr,
        /// The gateway is on the link, whatever the link's addresses (`onlink`).
        is_onlink: bool,
    },
    /// To hosts that are on the link.
    Link(u32),
    /// Rejected with an ICMP error.
    Unreachable,
}

impl Route {
    /// Returns the metric of IPv6 routes for which none is given (`IP6_RT_PRIO_USER`), and 0 for IPv4.
    pub fn default_metric(family: Family) -> u32 {
        match family {
            Family::V4 => 0,
            Family::V6 => 1024,
        }
    }

    /// Writes the message that adds the route, or deletes it.
    pub(in crate::route) fn write(&self, protocol: u8, message: &mut Writer<'_>) {
        let family = Family::from_address(self.destination.addr());
        let (kind, flags) = match self.target {
            RouteTarget::Gateway { is_onlink: true, .. } => (libc::RTN_UNICAST, ONLINK),
            RouteTarget::Gateway { .. } | RouteTarget::Link(_) => (libc::RTN_UNICAST, 0),
            RouteTarget::Unreachable => (libc::RTN_UNREACHABLE, 0),
        };
        let scope = match self.target {
            RouteTarget::Link(_) if family == Family::V4 => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let length = self.destination.prefix_len();
        message.raw(&[family.number(), length, 0, 0, libc::RT_TABLE_MAIN, protocol, scope, kind]);
        message.raw(&flags.to_ne_bytes());
        message.address(libc::RTA_DST, self.destination.network());
        match self.target {
            RouteTarget::Gateway { link, address, .. } => {
                message.address(libc::RTA_GATEWAY, address).u32(libc::RTA_OIF, link);
            }
            RouteTarget::Link(link) => _ = message.u32(libc::RTA_OIF, link),
            RouteTarget::Unreachable => {}
        }
        if self.metric != 0 {
            message.u32(libc::RTA_PRIORITY, self.metric);
        }
    }

    /// Parses a `RTM_NEWROUTE` or `RTM_DELROUTE` message of the main table, and returns the route with its protocol; `None` for
    /// any other message, for other types of routes, and for routes with several gateways.
    pub(in crate::route) fn parse(message: &Message<'_>) -> Result<Option<(Self, u8)>, Malformed> {
        if !matches!(message.kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE) {
            return Ok(None);
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let [family, length, source_length, tos, table, protocol, _, kind, a, b, c, d] = *header;
        let flags = u32::from_ne_bytes([a, b, c, d]);
        let Some(family) = Family::from_number(family) else { return Ok(None) };
        let (mut destination, mut link, mut gateway) = (None, None, None);
        let (mut table, mut metric) = (u32::from(table), 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::RTA_DST => destination = Some(attribute.address()?),
                libc::RTA_OIF => link = Some(attribute.u32()?),
                libc::RTA_GATEWAY => gateway = Some(attribute.address()?),
                libc::RTA_PRIORITY => metric = attribute.u32()?,
                libc::RTA_TABLE => table = attribute.u32()?,
                libc::RTA_MULTIPATH => return Ok(None),
                _ => {}
            }
        }
        let target = match (kind, link, gateway) {
            (libc::RTN_UNREACHABLE, ..) => RouteTarget::Unreachable,
            (libc::RTN_UNICAST, Some(link), Some(address)) => {
                RouteTarget::Gateway { link, address, is_onlink: flags & ONLINK != 0 }
            }
            (libc::RTN_UNICAST, Some(link), None) => RouteTarget::Link(link),
            _ => return Ok(None),
        };
        let any: IpAddr = match family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let Ok(destination) = IpNet::new(destination.unwrap_or(any), length) else { return Ok(None) };
        let is_plain = table == u32::from(libc::RT_TABLE_MAIN) && source_length == 0 && tos == 0;
        Ok(is_plain.then_some((Route { destination, target, metric }, protocol)))
    }
}

impl Rtnetlink {
    /// Returns the routes of the main table with their protocols: all, or those of one protocol.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if routes change faster than they can be read.
    pub fn routes(&mut self, protocol: Option<u8>) -> Result<Vec<(Route, u8)>> {
        const ACTION: &str = "list the routes";
        let mut all = Vec::new();
        for family in Family::ALL {
            let mut request = all_of_table(family, libc::RT_TABLE_MAIN);
            // Kernels before 4.20 ignore it.
            request.header.protocol = protocol.unwrap_or_default().into();
            let routes = self.dump_messages(ACTION, libc::RTM_GETROUTE, &request, |message| {
                let route = Route::parse(message).during(ACTION)?;
                Ok(route.filter(|(_, of)| protocol.is_none_or(|protocol| protocol == *of)))
            });
            all.extend(no_table_is_empty(routes)?);
        }
        Ok(all)
    }
}
