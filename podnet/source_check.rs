//! Packets of pods with a source address that is not theirs are dropped.
//!
//! ```text
//! prerouting ── from a pod's interface (ptp), IPv6 ── the route to the source is another one ─► count, drop
//!            └─ from the bridge (bridge) ─────────── the route to the source is another one ─► count, drop
//! ```
//! The kernel's routes say which sources are allowed, also while the daemon is down.
//!
//! **ptp.** The node has a route to each address of a pod through the interface of that pod. For IPv4 `rp_filter` of the interface does the
//! same; the kernel has no such setting for IPv6.
//!
//! **bridge.** The node has one route through the bridge, to the pod CIDR, so sources outside of it are dropped. Pods of one node are not
//! distinguished: a pod may use the address of another one, as on each Ethernet. br_netfilter, without which no pod is added, passes packets
//! between ports through this chain too.
//!
//! Link-local and unspecified sources pass: neighbour discovery uses them, and they are not routed.

use std::net::{IpAddr, Ipv6Addr};

use portcullis_netlink::nf_tables::{
    self, BaseChain, Chain, ChainKind, ChangeCounts, Comparison, DataType, DesiredTable, Element, Field,
    Hook, Key, Meta, Rule, Set, SetSpec, Table, TableFamily, UnknownObjects, Value, Verdict, delete_table,
};
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Error, Family, Result};

use crate::Wiring;
use crate::cni::BRIDGE;
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
}

impl SourceCheck {
    /// Opens the table. It changes nothing before [`SourceCheck::sync`]. `None` if the kernel has no nf_tables.
    ///
    /// # Errors
    /// The process lacks privilege.
    pub fn open() -> Result<Option<Self>> {
        let socket = nf_tables::open()?;
        Ok(socket.map(|socket| SourceCheck { socket, table: table(Wiring::default()) }))
    }

    /// Returns the socket that writes, whose port id distinguishes own changes from external ones.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sets the wiring of the pods whose sources are checked.
    pub fn set_wiring(&mut self, wiring: Wiring) {
        self.table = table(wiring);
    }

    /// Writes what differs for a wiring, or deletes the table if there is none.
    ///
    /// # Errors
    /// The kernel rejected the table: without `CONFIG_NFT_FIB_INET`, it has no lookups of routes.
    pub fn sync(&mut self, wanted: Option<Wiring>) -> Result<ChangeCounts> {
        let Some(wiring) = wanted else {
            let is_deleted = delete_table(&mut self.socket, TableFamily::Inet, TABLE)?;
            return Ok(ChangeCounts { chains: usize::from(is_deleted), ..ChangeCounts::default() });
        };
        self.set_wiring(wiring);
        Ok(nf_tables::commit(&mut self.socket, &mut self.table)?.changes)
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
fn table(wiring: Wiring) -> DesiredTable {
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
    let from_pods = || match wiring {
        Wiring::Ptp => Rule::new()
            .compare(interface, Comparison::Equal, Value::new(INTERFACE_PREFIX.as_bytes()))
            .compare(interface, Comparison::NotEqual, Value::new(VTEP_PREFIX.as_bytes())),
        Wiring::Bridge => {
            // The whole name, with its end.
            let mut name = [0; 16];
            name[..BRIDGE.len()].copy_from_slice(BRIDGE.as_bytes());
            Rule::new().compare(interface, Comparison::Equal, Value::new(&name))
        }
    };
    let dropped = |rule: Rule| {
        let rule = rule.without_source_route().counter(DROPPED).then(Verdict::Drop);
        rule.with_comment("sources that are not the pod's")
    };
    let v6 = from_pods().family(Family::V6).is_not_in(&[Field::Source(Family::V6)], UNCHECKED);
    let v4 = (wiring == Wiring::Bridge).then(|| from_pods().family(Family::V4));
    let rules = v4.into_iter().chain([v6]).map(dropped).collect();
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: PRIORITY };
    table.put_chain(&CHAIN.into(), Chain { base: Some(base), ..Chain::new(rules) });
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_as_nft_lists_it() {
        let drop = "fib saddr . iif oif missing counter name \"dropped\" drop";
        let ptp = format!("iifname \"pc*\" iifname != \"pc-*\" ip6 saddr != @unchecked {drop}");
        let bridge_v4 = format!("iifname \"cni0\" meta nfproto ipv4 {drop}");
        let bridge_v6 = format!("iifname \"cni0\" ip6 saddr != @unchecked {drop}");
        let rows = [(Wiring::Ptp, vec![ptp]), (Wiring::Bridge, vec![bridge_v4, bridge_v6])];
        for (wiring, rules) in rows {
            let listed = table(wiring).desired().to_string();
            let common = ["type filter hook prerouting priority -300", "elements = { ::,\n", "fe80::/10"];
            for line in common.into_iter().chain(rules.iter().map(String::as_str)) {
                assert!(listed.contains(line), "{wiring:?}: {line} is not in {listed}");
            }
            assert_eq!(listed.matches(drop).count(), rules.len(), "{wiring:?}: {listed}");
        }
    }
}
