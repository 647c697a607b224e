//! What all netfilter families share: the subsystem in the message type, and the fixed header.

use crate::attribute::Writer;
use crate::family::Family;

/// The families under `NETLINK_NETFILTER` (`NFNL_SUBSYS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Tracked connections.
    Conntrack = 1,
    /// Sets of addresses and ports for iptables.
    Ipset = 6,
    /// Named counters.
    Acct = 7,
    /// Tables, chains, rules, sets.
    NfTables = 10,
}

/// Bytes of the fixed header (`struct nfgenmsg`): family, version, resource in network order.
pub const HEADER: usize = 4;

/// The message type for a subsystem's `message`.
pub const fn kind(subsystem: Subsystem, message: u8) -> u16 {
    (subsystem as u16) << 8 | message as u16
}

impl Writer<'_> {
    /// Writes the fixed header. `None` is `AF_UNSPEC`, which for most requests means every family.
    pub fn netfilter_header(&mut self, family: Option<Family>) -> &mut Self {
        // Version 0 (NFNETLINK_V0), the only one that every kernel takes. For conntrack it also says that the
        // family alone never makes a delete request a flush of that family.
        self.netfilter_resource(family.map_or(libc::AF_UNSPEC as u8, Family::number), 0)
    }

    /// Writes the fixed header with a family's number (`NFPROTO_*`) and a resource, whose meaning is the
    /// message's.
    pub fn netfilter_resource(&mut self, family: u8, resource: u16) -> &mut Self {
        let [high, low] = resource.to_be_bytes();
        self.raw(&[family, 0, high, low])
    }
}
