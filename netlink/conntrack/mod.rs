//! Conntrack: lists and deletes tracked connections (flows), and creates some for tests.
//!
//! # Filters in the kernel
//! Since Linux 5.8 a dump accepts a filter (`CTA_FILTER`); older kernels ignore it and list all flows of the family. This crate
//! checks each flow again, so only the cost differs.
//!
//! Recent kernels (6.18 is one, 6.1 is not) accept the same filter for a *delete*. An error here would be a disaster: a delete
//! request without a tuple flushes the table, and kernels before 5.8 ignore the attribute with the filter. Hence three rules:
//! 1. No filtered delete is sent before the kernel has shown that it supports them. The test request is a filtered delete that
//!    no kernel can apply. It has an impossible filter flag, for which a kernel with filters rejects it (`EOPNOTSUPP` or
//!    `EINVAL`), and the complete tuple of a flow that cannot exist, which any other kernel does not find (`ENOENT`).
//! 2. A filtered delete always has an original tuple, so a kernel that ignored the filter would search for one flow with this
//!    tuple: it would reject the tuple as incomplete, or delete one flow that the filter matches.
//! 3. The kernel gets only those conditions that it applies correctly. As of 6.18 it inverts the comparison of IPv6 addresses
//!    (observed: it deletes the flows of all *other* addresses) and ignores ports of protocols other than TCP and UDP; some
//!    versions treat zone 0 as any zone. Filters with such conditions use the other method.
//!
//! The other method is a dump and single deletes, each by original tuple, zone and id, so that a new flow with the tuple of an
//! expired one stays.

mod create;
mod delete;
mod dump;
mod established;
mod events;
mod filter;
mod flow;

pub use delete::{DeleteCounts, DeleteMethod};
pub use events::{ConnectionEvent, ConnectionEvents, DirectionCounter, FlowCounters};
pub use filter::{Filter, TupleFilter};
pub(crate) use flow::original_tuple;
pub use flow::{Flow, Tuple, status};

use crate::Family;
use crate::error::Result;
use crate::socket::{NetlinkProtocol, Socket};

const IPCTNL_MSG_CT_NEW: u8 = 0;
const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;
const IPCTNL_MSG_CT_GET_STATS: u8 = 5;

/// `CTA_*`, the attributes of a flow.
mod attributes {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOCOL_INFO: u16 = 4;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const MARK: u16 = 8;
    pub(super) const COUNTERS_ORIG: u16 = 9;
    pub(super) const COUNTERS_REPLY: u16 = 10;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const TIMESTAMP: u16 = 20;
    pub(super) const FILTER: u16 = 25;
}

/// The tracked connections of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    /// The socket for requests and dumps.
    socket: Socket,
    /// The socket for deletes during a dump on the other one.
    deleting: Socket,
    /// Whether the kernel supports filtered deletes; `None` before the test request.
    filtered_delete: Option<bool>,
}

impl Conntrack {
    /// Opens the conntrack table of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if there is no netfilter netlink.
    pub fn open() -> Result<Self> {
        Ok(Conntrack {
            socket: Socket::open(NetlinkProtocol::Netfilter)?,
            deleting: Socket::open(NetlinkProtocol::Netfilter)?,
            filtered_delete: None,
        })
    }

    /// Calls `each` for every flow of these families and protocols (none: all), while the kernel sends them. A flow may be
    /// listed twice if the table changes meanwhile.
    ///
    /// # Errors
    /// The error of `each`, or of the kernel: `EINVAL` without nf_conntrack_netlink, `EPERM` without
    /// CAP_NET_ADMIN.
    pub fn dump(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        mut each: impl FnMut(&Flow) -> Result<()>,
    ) -> Result<()> {
        for request in self.requests(families, protocols) {
            request.send(&mut self.socket, &mut |flow| {
                if dump::wanted(flow, families, protocols) { each(flow) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    fn requests(&mut self, families: &[Family], protocols: &[u8]) -> Vec<dump::DumpRequest> {
        dump::covering(families, protocols, || dump::entries(&mut self.socket))
    }
}
