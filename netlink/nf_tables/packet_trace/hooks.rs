//! Markers: chains without rules at each hook, before and after the priorities at which the kernel has code that it does not
//! trace.

use crate::nf_tables::{Hook, TableFamily};

/// Before all chains of other tables: the rules that set nftrace are here.
pub(super) const FIRST: i32 = -500;
/// After all other chains.
const LAST: i32 = i32::MAX - 1;
/// The rules that match replies after the first hook are here.
const FIRST_OF_REPLIES: i32 = FIRST + 1;
/// After connection tracking (`NF_IP_PRI_CONNTRACK`, -200): the rules that match replies are here.
pub(super) const AFTER_CONNTRACK: i32 = -199;

/// The priorities of markers in tables of family `inet`. Between them are the legacy tables raw (-300), mangle (-150), nat
/// (-100 and 100), filter (0) and security (50); IPVS at -99 and -98 in the output hook, 98 and 99 in the input hook.
const INET: [(Hook, &[i32]); 5] = [
    (Hook::Prerouting, &[FIRST, -299, AFTER_CONNTRACK, -149, -99, LAST]),
    (Hook::Input, &[FIRST, FIRST_OF_REPLIES, -149, 1, 97, LAST]),
    (Hook::Forward, &[FIRST, FIRST_OF_REPLIES, -149, 1, 97, LAST]),
    (Hook::Output, &[FIRST, -299, AFTER_CONNTRACK, -149, -97, 1, LAST]),
    (Hook::Postrouting, &[FIRST, FIRST_OF_REPLIES, -149, 101, LAST]),
];

/// The priorities of markers in tables of family `bridge`.
const BRIDGE: [(Hook, &[i32]); 5] = [
    (Hook::Prerouting, &[FIRST, LAST]),
    (Hook::Input, &[FIRST, LAST]),
    (Hook::Forward, &[FIRST, LAST]),
    (Hook::Output, &[FIRST, LAST]),
    (Hook::Postrouting, &[FIRST, LAST]),
];

/// A place that a packet has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The hook.
    pub hook: Hook,
    /// The priority: all chains of the hook with lower ones have accepted the packet.
    pub priority: i32,
}

impl Marker {
    /// Returns true if it is the first of its hook.
    pub fn is_first(&self) -> bool {
        self.priority == FIRST
    }

    /// Returns true if it is the last of its hook: all chains have accepted the packet.
    pub fn is_last(&self) -> bool {
        self.priority == LAST
    }

    /// Returns the priority of the next marker of the hook in tables of family `inet`; that of the last marker after it.
    pub fn next_priority(&self) -> i32 {
        let of_hook = INET.iter().find(|(hook, _)| *hook == self.hook).map_or(&[][..], |(_, all)| all);
        of_hook.iter().copied().find(|priority| *priority > self.priority).unwrap_or(LAST)
    }

    /// Returns true if packets have been tracked when they reach it: after connection tracking in the hooks by which they
    /// enter this host, and in all later hooks.
    pub(super) fn is_tracked(&self) -> bool {
        !matches!(self.hook, Hook::Prerouting | Hook::Output) || self.priority >= AFTER_CONNTRACK
    }

    /// Returns true if its chain has a rule that matches replies.
    pub(super) fn matches_replies(&self) -> bool {
        self.is_tracked() && matches!(self.priority, AFTER_CONNTRACK | FIRST_OF_REPLIES)
    }

    /// Returns the name of its chain.
    pub(super) fn chain(&self) -> String {
        format!("{}_{}", self.hook.as_str(), self.priority)
    }
}

/// Returns the markers of a family.
pub(super) fn markers(family: TableFamily) -> impl Iterator<Item = Marker> {
    let all = if family == TableFamily::Bridge { &BRIDGE } else { &INET };
    all.iter().flat_map(|(hook, priorities)| {
        priorities.iter().map(|priority| Marker { hook: *hook, priority: *priority })
    })
}

/// Returns the marker of a chain.
pub(super) fn marker(chain: &str) -> Option<Marker> {
    [TableFamily::Inet, TableFamily::Bridge].into_iter().flat_map(markers).find(|m| m.chain() == chain)
}
