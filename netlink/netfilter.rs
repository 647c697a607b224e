//! Message types and the fixed header of all netfilter families (nfnetlink).

use crate::attribute::Writer;
use crate::family::Family;

/// Subsystems of `NETLINK_NETFILTER` (`NFNL_SUBSYS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Connection tracking.
    Conntrack = 1,
    /// NFLOG (`NFNL_SUBSYS_ULOG`).
    Log = 4,
    /// IP sets.
    Ipset = 6,
    /// Accounting objects (nfacct).
    Acct = 7,
    /// nf_tables.
    NfTables = 10,
}

/// Bytes of the fixed header (`struct nfgenmsg`): family, version, resource in network order.
pub const HEADER: usize = 4;

/// Returns the message type of a subsystem's `message`.
pub const fn kind(subsystem: Subsystem, message: u8) -> u16 {
    (subsystem as u16) << 8 | message as u16
}

impl Writer<'_> {
    /// Writes the fixed header. `None` is `AF_UNSPEC`, which for most requests means every family.
    pub fn netfilter_header(&mut self, family: Option<Family>) -> &mut Self {
        // Version 0 (NFNETLINK_V0), which every kernel accepts. For conntrack it also prevents that a delete request
        // with nothing but a family flushes that family.
        self.netfilter_resource(family.map_or(libc::AF_UNSPEC as u8, Family::number), 0)
    }

    /// Writes the fixed header with a family's number (`NFPROTO_*`) and a resource id, whose meaning depends on the
    /// message.
    pub fn netfilter_resource(&mut self, family: u8, resource: u16) -> &mut Self {
        let [high, low] = resource.to_be_bytes();
        self.raw(&[family, 0, high, low])
    }
}
