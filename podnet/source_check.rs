//! Packets of pods with a source address that is not theirs are dropped.
//!
//! ```text
//! prerouting ── from a pod's interface, IPv6 ── the route to the source is another one ─► count, drop
//! ```
//! With the wiring `ptp` the node has a route to each address of a pod through the interface of that pod, so the kernel's routes say which
//! sources are the pod's, also while the daemon is down. For IPv4 `rp_filter` of the interface does the same; the kernel has no such setting
//! for IPv6. Ports of a bridge are not distinguished by their routes.
//!
//! Link-local and unspecified sources pass: neighbour discovery uses them, and they are not routed.

use std::net::{IpAddr, Ipv6Addr};

use portcullis_netlink::nf_tables::{
    self, BaseChain, Chain, ChainKind, ChangeCounts, Comparison, DataType, DesiredTable, Element, Field,
    Hook, Key, Meta, Rule, Set, SetSpec, Table, TableFamily, UnknownObjects, Value, Verdict, delete_table,
};
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Error, Family, Result};

use crate::links::VTEP_PREFIX;
use crate::pod_interface::INTERFACE_PREFIX;

/// The name of the table, in the family `inet`.
pub const TABLE: &str = "portcullis-pod-sources";

/// The name of the chain.
const CHAIN: &str = "prerouting";

/// The counter of dropped packets.
const DROPPED: &str = "dropped";

/// The sources that are not checked.
const UNCHECKED: &str = "unchecked";

/// `raw`: before conntrack has an entry for the packet.
const PRIORITY: i32 = -300;

/// The table in the kernel of one network namespace, that of the calling thread.
#[derive(Debug)]
pub struct SourceCheck {
    socket: Socket,
    table: DesiredTable,
    is_wanted: bool,
}

impl SourceCheck {
    /// Opens the table. It changes nothing before [`SourceCheck::sync`]. `None` if the kernel has no nf_tables.
    ///
    /// # Errors
    /// The process lacks privilege.
    pub fn open() -> Result<Option<Self>> {
        let socket = nf_tables::open()?;
        Ok(socket.map(|socket| SourceCheck { socket, table: table(), is_wanted: false }))
    }

    /// Returns the socket that writes, whose port id distinguishes own changes from external ones.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Writes what differs, or deletes the table if it is not wanted.
    ///
    /// # Errors
    /// The kernel rejected the table: without `CONFIG_NFT_FIB_INET`, it has no lookups of routes.
    pub fn sync(&mut self, is_wanted: bool) -> Result<ChangeCounts> {
        self.is_wanted = is_wanted;
        self.table.invalidate();
        if is_wanted {
            return Ok(nf_tables::commit(&mut self.socket, &mut self.table)?.changes);
        }
        let is_deleted = delete_table(&mut self.socket, TableFamily::Inet, TABLE)?;
        Ok(ChangeCounts { chains: usize::from(is_deleted), ..ChangeCounts::default() })
    }

    /// Returns the table as it should be.
    pub fn desired(&self) -> &Table {
        self.table.desired()
    }

    /// Reads the kernel's table, with its objects that this program does not know; `None` if there is none.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn read(&mut self) -> Result<Option<(Table, UnknownObjects)>> {
        nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE)
    }
}

/// Reads the number of dropped packets; `None` if the table does not exist.
///
/// # Errors
/// The counter cannot be read.
pub fn dropped_packets() -> Result<Option<u64>> {
    let Some(mut socket) = nf_tables::open()? else { return Ok(None) };
    match nf_tables::read_counters(&mut socket, TableFamily::Inet, TABLE) {
        Ok(counters) => Ok(counters.get(DROPPED).map(|(packets, _)| *packets)),
        Err(Error::Rejected { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the table, which does not depend on pods (pure).
fn table() -> DesiredTable {
    let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
    table.set_comment("packets of pods with sources that are not theirs, by portcullis");
    table.put_counter(&DROPPED.into(), Some("packets of pods with sources that are not theirs"));
    let range = |first: Ipv6Addr, last: Ipv6Addr| {
        (Key::from(IpAddr::V6(first)), Element::range_to(IpAddr::V6(last).into()))
    };
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let end = Ipv6Addr::from(u128::from(link_local) | (u128::MAX >> 10));
    let spec = SetSpec::new(&[DataType::Ipv6Addr])
        .with_intervals()
        .with_comment("unspecified and link-local sources");
    let elements = [range(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED), range(link_local, end)];
    table.put_set(&UNCHECKED.into(), Set::with_elements(spec, elements));
    let interface = Field::Meta(Meta::IifName);
    let rule = Rule::new()
        .compare(interface, Comparison::Equal, Value::new(INTERFACE_PREFIX.as_bytes()))
        .compare(interface, Comparison::NotEqual, Value::new(VTEP_PREFIX.as_bytes()))
        .family(Family::V6)
        .is_not_in(&[Field::Source(Family::V6)], UNCHECKED)
        .without_source_route()
        .counter(DROPPED)
        .then(Verdict::Drop)
        .with_comment("sources that are not the pod's");
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: PRIORITY };
    table.put_chain(&CHAIN.into(), Chain { base: Some(base), ..Chain::new(vec![rule]) });
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_as_nft_lists_it() {
        let listed = table().desired().to_string();
        for line in [
            "type filter hook prerouting priority -300",
            "iifname \"pc*\" iifname != \"pc-*\" ip6 saddr != @unchecked fib saddr . iif oif missing counter name \"dropped\" drop",
            "elements = { ::,\n",
            "fe80::/10",
        ] {
            assert!(listed.contains(line), "{line} is not in {listed}");
        }
    }
}
