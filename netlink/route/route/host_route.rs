//! Routes to single addresses.

use std::net::IpAddr;

use super::HEADER;
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::Batch;
use crate::route::Rtnetlink;

const ACTION: &str = "look up the route to a single address";

/// `RTM_F_FIB_MATCH`: the response is the route of the table instead of the path of a packet.
const FIB_MATCH: u32 = 0x2000;

/// Positions in `struct rtmsg`.
const PREFIX_LENGTH: usize = 1;
const KIND: usize = 7;

impl Rtnetlink {
    /// Returns whether packets to an address follow a unicast route to this address alone (/32 or /128), in the network namespace of
    /// the socket.
    ///
    /// # Errors
    /// The lookup fails for another reason than that the address has no route, or a route that rejects packets.
    pub fn has_host_route(&mut self, address: IpAddr) -> Result<bool> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut batch = Batch::with_message(ACTION, libc::RTM_GETROUTE, 0, |message| {
            message.raw(&[Family::from_address(address).number(), length, 0, 0, 0, 0, 0, 0]);
            message.raw(&FIB_MATCH.to_ne_bytes());
            message.address(libc::RTA_DST, address);
        })?;
        let found = self.socket.query(ACTION, &mut batch, |message| {
            let (header, _) = message.split::<HEADER>().during(ACTION)?;
            Ok(header[PREFIX_LENGTH] == length && header[KIND] == libc::RTN_UNICAST)
        });
        match found {
            // No route; or one of type unreachable, prohibit or blackhole.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(false)
            }
            found => found,
        }
    }
}
