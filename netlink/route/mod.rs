//! rtnetlink: links, addresses, routes, and monitors of their changes.
//!
//! Messages have the types of the crate `netlink-packet-route` and travel over our own [`Socket`]. Each object has a
//! folder, each operation a file. When reading, only the attributes that are needed are parsed: most attributes of a link
//! are not, and a newer kernel may send some that the crate cannot parse.

mod address;
mod forwarding_batch;
mod forwarding_monitor;
mod interface_batch;
mod link;
mod message;
mod monitor;
mod neighbour;
#[expect(clippy::module_inception, reason = "the routes of rtnetlink, whose family has the same name")]
mod route;

pub use address::{Address, AddressBatch};
pub use forwarding_batch::ForwardingBatch;
pub use forwarding_monitor::{ForwardingEvent, ForwardingMonitor};
pub use interface_batch::{InterfaceBatch, Ipv4Setting, LinkSettings, NeighbourState, PodRoute};
pub use link::{ExistingVxlan, Link, LinkChange, LinkPeer, MacAddress, VethEnd, VxlanLink};
pub use monitor::{AddressEvent, AddressMonitor, LinkMonitor};
pub use neighbour::{FdbEntry, Neighbour};
pub use route::{FoundRoute, LocalRouteBatch, Route, RouteLookup, RouteTarget};

use netlink_packet_core::{DecodeError, Emitable};

use crate::error::{During, Error, Result};
use crate::message::{Batch, Message};
use crate::socket::{NetlinkProtocol, Socket};

/// Maximum number of dumps of a list that changes concurrently. On a node that starts a hundred pods, two or three are
/// needed.
const ATTEMPTS: usize = 10;

/// Links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
}

impl Rtnetlink {
    /// Opens a socket in the calling thread's network namespace. Reading needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        Ok(Rtnetlink { socket: Socket::open(NetlinkProtocol::Route)? })
    }

    /// Dumps objects and collects the results of `parse`. Repeats the dump if a concurrent change interrupted it.
    fn dump<T>(
        &mut self,
        action: &'static str,
        kind: u16,
        request: &impl Emitable,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>> {
        self.dump_messages(action, kind, request, |message| parse(message).during(action))
    }

    /// As [`Rtnetlink::dump`], with another type of error.
    fn dump_messages<T>(
        &mut self,
        action: &'static str,
        kind: u16,
        request: &impl Emitable,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        self.dump_batches(action, || message::batch(action, kind, 0, request), parse)
    }

    /// As [`Rtnetlink::dump_messages`], with a function that returns the request.
    fn dump_batches<T>(
        &mut self,
        action: &'static str,
        request: impl Fn() -> Result<Batch>,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            let mut collected = Vec::new();
            let mut batch = request()?;
            let result = self.socket.dump(action, &mut batch, |message| {
                collected.extend(parse(&message)?);
                Ok(())
            });
            match result {
                Ok(()) => return Ok(collected),
                Err(Error::Interrupted { .. } | Error::Truncated { .. }) if attempt < ATTEMPTS => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200), family in any::<bool>()) {
            let family = if family { Family::V6 } else { Family::V4 };
            for kind in [libc::RTM_NEWLINK, libc::RTM_NEWADDR, libc::RTM_NEWROUTE, libc::RTM_NEWNEIGH] {
                // A valid header, so that the random bytes reach the attributes.
                let mut payload = payload.clone();
                if let [first, destination_length, ..] = &mut payload[..] {
                    (*first, *destination_length) = (family.number(), 0);
                }
                if let Some(route_type) = payload.get_mut(7) {
                    *route_type = libc::RTN_UNICAST;
                }
                let message = Message { kind, flags: 0, sequence: 1, payload: &payload };
                let _ = Link::parse(&message);
                let _ = ExistingVxlan::parse(&message);
                neighbour::parse_random_bytes(&message);
                let _ = address::ParsedAddress::parse(&message);
                route::parse_random_bytes(&message, family);
            }
        }
    }
}
