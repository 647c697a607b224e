//! Routes through one link.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, ParseableParametrized};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteType, RouteVia,
};

use super::{HEADER, all_of_table, no_table_is_empty};
use crate::error::Result;
use crate::family::Family;
use crate::message::Message;
use crate::route::message::attributes;
use crate::route::{PodRoute, Rtnetlink};

/// The attributes that are parsed.
const NEEDED: [u16; 5] = [libc::RTA_DST, libc::RTA_OIF, libc::RTA_GATEWAY, libc::RTA_VIA, libc::RTA_TABLE];

impl Rtnetlink {
    /// Returns the routes of the main table through the link with this index, of both families, IPv4 first. Routes with several
    /// next hops are not among them.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if routes change faster than they can be read.
    pub fn link_routes(&mut self, index: u32) -> Result<Vec<PodRoute>> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            // The kernel filters by link; kernels before 4.20 return the routes of all links.
            let mut request = all_of_table(family, RouteHeader::RT_TABLE_MAIN);
            request.attributes.push(RouteAttribute::Oif(index));
            let listed = self.dump("list the routes of a link", libc::RTM_GETROUTE, &request, |message| {
                Ok(parse(message)?.filter(|route| route.link == index))
            });
            match listed {
                Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(Vec::new()),
                listed => routes.extend(no_table_is_empty(listed)?),
            }
        }
        Ok(routes)
    }
}

/// Parses a unicast route of the main table; `None` for any other.
pub(super) fn parse(message: &Message<'_>) -> Result<Option<PodRoute>, DecodeError> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let header = RouteHeader::parse(message.payload)?;
    let Some(family) = Family::from_number(u8::from(header.address_family)) else { return Ok(None) };
    if header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let (mut destination, mut gateway, mut link) = (None, None, None);
    let mut table = u32::from(header.table);
    for attribute in attributes(message, HEADER, &NEEDED) {
        let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
        match RouteAttribute::parse_with_param(&attribute?, parameters)? {
            RouteAttribute::Destination(address) => destination = ip(&address),
            RouteAttribute::Gateway(address) => gateway = ip(&address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(address)),
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    let Some(link) = link.filter(|_| table == u32::from(RouteHeader::RT_TABLE_MAIN)) else { return Ok(None) };
    let destination = destination.unwrap_or(match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    let destination = IpNet::new(destination, header.destination_prefix_length)
        .map_err(|_| format!("{destination} has a prefix length of {}", header.destination_prefix_length))?;
    Ok(Some(PodRoute { destination, gateway, link, protocol: header.protocol.into() }))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match *address {
        RouteAddress::Inet(address) => Some(address.into()),
        RouteAddress::Inet6(address) => Some(address.into()),
        _ => None,
    }
}
