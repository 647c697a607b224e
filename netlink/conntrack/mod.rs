//! Tracked connections: list them, delete exactly the stale ones, put some in place for a test.
//!
//! # Which kernel filters what
//! Since 5.8 a dump takes a filter (`CTA_FILTER`); older kernels ignore it and list everything of the family.
//! Every flow is checked again here, so both give the same flows, and only the cost differs.
//!
//! Recent kernels (6.18 is one, 6.1 is not) take the same filter for a *delete*, and here a misunderstanding
//! would be a disaster: a delete request without a tuple flushes the table, and kernels before 5.8 don't know
//! the attribute that says "only these". Hence three rules:
//! 1. No filtered delete is sent before the kernel has shown that it knows them. The request is a filtered
//!    delete that no kernel can carry out: with an impossible filter flag, for which a kernel that knows
//!    filters refuses it (`EOPNOTSUPP` or `EINVAL`), and with the full name of one flow that cannot exist,
//!    which any other looks for and does not find (`ENOENT`).
//! 2. A filtered delete always carries an original tuple, so a kernel that ignored the filter would look for
//!    one flow of that name: it would find the name incomplete, or delete one flow that was meant.
//! 3. Only those conditions are left to the kernel that it gets right. As of 6.18 it inverts the comparison
//!    of IPv6 addresses (seen: the flows of all *other* addresses vanish) and ignores ports of anything but
//!    TCP and UDP; and some versions take zone 0 for any zone. Filters with such conditions go the other way.
//!
//! The other way is a dump and single deletes, each by original tuple, zone and id, so that a flow which took
//! the place of a vanished one stays.

mod create;
mod delete;
mod dump;
mod established;
mod filter;
mod flow;

pub use delete::{DeleteCounts, DeleteMethod};
pub use filter::{Filter, TupleFilter};
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
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
}

/// The tracked connections of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    /// For requests and dumps.
    socket: Socket,
    /// For deletes while a dump is under way on the other.
    deleting: Socket,
    /// Whether the kernel knows filtered deletes; `None` until asked.
    filtered_delete: Option<bool>,
}

impl Conntrack {
    /// Opens the connections of the calling thread's network namespace.
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

    /// Gives every flow of these families and protocols to `each`, as the kernel sends them; nothing is
    /// collected. No protocols means all of them. A flow may come twice when others change meanwhile.
    ///
    /// # Errors
    /// What `each` returns, or that of the kernel: `EINVAL` without nf_conntrack_netlink, `EPERM` without
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
