//! Routes: the default route's source address, and routes of local addresses.

mod add_local;
mod default_source;
mod forwarding;
mod host_route;
mod local_batch;
mod lookup;
mod of_link;

pub use forwarding::{Route, RouteTarget};
pub use local_batch::LocalRouteBatch;
pub use lookup::{FoundRoute, RouteLookup};

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};

use crate::Family;
use crate::error::Result;

/// Length of `struct rtmsg`.
const HEADER: usize = 12;

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u8 = libc::RT_TABLE_LOCAL;

/// Returns a request for all routes of a family's table. Kernels before 4.20 return those of all tables.
fn all_of_table(family: Family, table: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader { address_family: family.into(), table, ..RouteHeader::default() };
    message
}

/// Returns a route by which packets to an address are delivered locally.
fn local(address: IpAddr, link: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: Family::from_address(address).into(),
        destination_prefix_length: if address.is_ipv4() { 32 } else { 128 },
        table: LOCAL_TABLE,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(address.into()), RouteAttribute::Oif(link)];
    message
}

/// Treats `ENOENT` as an empty list: with strict checking, the kernel rejects a dump of a table that has never had a
/// route (`FIB table does not exist`).
fn no_table_is_empty<T>(routes: Result<Vec<T>>) -> Result<Vec<T>> {
    match routes {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        routes => routes,
    }
}

/// Parses a message in all ways, for tests with random bytes.
#[cfg(test)]
pub(super) fn parse_random_bytes(message: &crate::message::Message<'_>, family: Family) {
    let _ = default_source::parse(message, family);
    let _ = local_batch::parse(message, family);
    let _ = of_link::parse(message);
    let _ = Route::parse(message);
}
