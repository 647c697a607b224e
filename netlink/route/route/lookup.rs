//! Lookup of the route of a packet, as `ip route get`.

use std::net::IpAddr;

use super::HEADER;
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::Batch;
use crate::route::Rtnetlink;

const ACTION: &str = "look up a route";

/// `RTM_F_LOOKUP_TABLE`: the response has the table in which the route was found (IPv4).
const LOOKUP_TABLE: u32 = 0x1000;
/// `RTA_MARK`.
const RTA_MARK: u16 = 16;

/// A packet to look up a route for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLookup {
    /// The destination address.
    pub destination: IpAddr,
    /// The source address, of the same family.
    pub source: Option<IpAddr>,
    /// The index of the interface that receives the packet; `None` for packets of this host.
    pub input: Option<u32>,
    /// The index of the interface that must send the packet, or that has the destination if that is link-local.
    pub output: Option<u32>,
    /// The packet mark.
    pub mark: u32,
}

/// The route of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundRoute {
    /// The type (`RTN_*`).
    pub kind: u8,
    /// The routing table.
    pub table: u32,
    /// The index of the output interface.
    pub output: Option<u32>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
}

impl FoundRoute {
    /// Returns true if the destination is an address of this host.
    pub fn is_local(&self) -> bool {
        self.kind == libc::RTN_LOCAL
    }
}

impl Rtnetlink {
    /// Looks up the route of a packet in the network namespace of the socket.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected) if the kernel would not route it: `ENETUNREACH` without a route,
    /// `EHOSTUNREACH` for a route of type unreachable, or if the interface does not forward (IPv4), `EACCES` for type
    /// prohibit, `EINVAL` for type blackhole or invalid addresses, `EXDEV` or `EINVAL`, depending on the kernel, if reverse
    /// path filtering drops it (IPv4).
    pub fn look_up_route(&mut self, lookup: &RouteLookup) -> Result<FoundRoute> {
        let length = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let family = Family::from_address(lookup.destination).number();
        let source_length = lookup.source.map_or(0, length);
        // IPv6 rejects the flag if requests are checked strictly.
        let flags = if lookup.destination.is_ipv4() { LOOKUP_TABLE } else { 0 };
        let mut batch = Batch::with_message(ACTION, libc::RTM_GETROUTE, 0, |message| {
            message.raw(&[family, length(lookup.destination), source_length, 0, 0, 0, 0, 0]);
            message.raw(&flags.to_ne_bytes());
            message.address(libc::RTA_DST, lookup.destination);
            if let Some(source) = lookup.source {
                message.address(libc::RTA_SRC, source);
            }
            if let Some(input) = lookup.input {
                message.u32(libc::RTA_IIF, input);
            }
            if let Some(output) = lookup.output {
                message.u32(libc::RTA_OIF, output);
            }
            if lookup.mark != 0 {
                message.u32(RTA_MARK, lookup.mark);
            }
        })?;
        self.socket.query(ACTION, &mut batch, |message| {
            let (header, attributes) = message.split::<HEADER>().during(ACTION)?;
            let mut found = FoundRoute { kind: header[7], table: header[4].into(), ..FoundRoute::default() };
            for attribute in attributes {
                let attribute = attribute.during(ACTION)?;
                match attribute.kind {
                    libc::RTA_OIF => found.output = Some(attribute.u32().during(ACTION)?),
                    libc::RTA_GATEWAY => found.gateway = Some(attribute.address().during(ACTION)?),
                    libc::RTA_PREFSRC => found.source = Some(attribute.address().during(ACTION)?),
                    libc::RTA_TABLE => found.table = attribute.u32().during(ACTION)?,
                    _ => {}
                }
            }
            Ok(found)
        })
    }
}
