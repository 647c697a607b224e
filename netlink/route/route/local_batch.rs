//! Addresses that are local by a route alone: packets to them are delivered, and connections that this machine opens to
//! them have another source address.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, ParseableParametrized};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteProtocol, RouteType,
};

use super::{HEADER, LOCAL_TABLE, all_of_table, local, no_table_is_empty};
use crate::batches::Batches;
use crate::error::Result;
use crate::family::Family;
use crate::message::{CREATE, Message};
use crate::route::Rtnetlink;
use crate::route::message::attributes;

/// Protocol of our routes, by which they are found again: a number that is unassigned in `/etc/iproute2/rt_protos`.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x70);

/// The link of the routes. It is always up.
const LOOPBACK: &str = "lo";

/// Routes of local addresses to add and to remove, executed in order by [`Rtnetlink::change_local_routes`].
#[derive(Debug)]
pub struct LocalRouteBatch {
    requests: Batches,
    loopback: u32,
}

impl LocalRouteBatch {
    /// Makes the kernel deliver packets to `address` locally, and makes connections to it without a bound source leave
    /// from `source`, which must be an address of this machine: `ip route prepend local ADDRESS dev lo src SOURCE`.
    pub fn add(&mut self, address: IpAddr, source: IpAddr) {
        self.push("add a route of a local address", libc::RTM_NEWROUTE, CREATE, address, Some(source));
    }

    /// Removes that route.
    pub fn remove(&mut self, address: IpAddr) {
        self.push("delete the route of a local address", libc::RTM_DELROUTE, 0, address, None);
    }

    fn push(&mut self, action: &'static str, kind: u16, flags: u16, address: IpAddr, source: Option<IpAddr>) {
        let mut route = local(address, self.loopback);
        route.header.protocol = PROTOCOL;
        route.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        let pushed = self.requests.push(action, kind, flags, |message| _ = message.emit(&route));
        pushed.expect("attributes of 16 bytes are short");
    }
}

impl Rtnetlink {
    /// Returns an empty batch.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected), usually without privilege.
    pub fn local_route_batch(&mut self) -> Result<LocalRouteBatch> {
        let loopback = self.link_index(LOOPBACK)?.unwrap_or(1);
        Ok(LocalRouteBatch { requests: Batches::new(), loopback })
    }

    /// Executes a batch. Adding an existing route and removing a missing one are no errors.
    ///
    /// # Errors
    /// The kernel's first rejection: `EINVAL` if the source is no address of this machine, `EPERM` without
    /// CAP_NET_ADMIN.
    pub fn change_local_routes(&mut self, batch: &mut LocalRouteBatch) -> Result<()> {
        self.socket.transact_all("change routes of local addresses", &mut batch.requests, |_, error| {
            match error.errno() {
                Some(libc::EEXIST | libc::ESRCH) => Ok(()),
                _ => Err(error),
            }
        })
    }

    /// Returns the addresses with routes of [`LocalRouteBatch::add`], whichever process added them.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if routes change faster than they can be read.
    pub fn local_route_addresses(&mut self) -> Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let request = all_of_table(family, LOCAL_TABLE);
            let routes =
                self.dump("list the routes", libc::RTM_GETROUTE, &request, |message| parse(message, family));
            all.extend(no_table_is_empty(routes)?);
        }
        Ok(all)
    }
}

/// Returns the address of one of our routes; `None` for any other route.
pub(super) fn parse(message: &Message<'_>, family: Family) -> Result<Option<IpAddr>, DecodeError> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let header = RouteHeader::parse(message.payload)?;
    let is_ours = header.protocol == PROTOCOL && header.kind == RouteType::Local;
    if !is_ours || header.address_family != family.into() {
        return Ok(None);
    }
    let (mut address, mut table) = (None, u32::from(header.table));
    for attribute in attributes(message, HEADER, &[libc::RTA_DST, libc::RTA_TABLE]) {
        let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
        match RouteAttribute::parse_with_param(&attribute?, parameters)? {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => address = Some(ip.into()),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => address = Some(ip.into()),
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    Ok(address.filter(|_| table == u32::from(LOCAL_TABLE)))
}
