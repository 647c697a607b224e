//! The result of a cleanup, and the objects that it names.

use std::collections::BTreeMap;
use std::fmt;

use portcullis_cluster::Family;

use crate::iptables::{Flavour, Table};

/// The objects that a cleanup removed, kept, or could not remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CleanupResult {
    /// The removed objects, in order.
    pub removed: Vec<RemovedObject>,
    /// Objects that could not be removed.
    pub not_removed: Vec<KeptObject>,
    /// Objects that are kept on purpose.
    pub kept: Vec<KeptObject>,
    /// While objects are searched: rules of other programs that match against a set of a proxy, by the name of the set.
    pub(super) sets_in_use: BTreeMap<String, String>,
}

/// A removed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovedObject {
    /// Rules of an iptables table.
    Iptables {
        /// The table.
        location: IptablesLocation,
        /// The number of jumps from built-in chains.
        jumps: usize,
        /// The number of chains.
        chains: usize,
    },
    /// A number of IPVS virtual servers.
    VirtualServers(usize),
    /// An ipset, by name.
    IpSet(String),
    /// A network interface, by name.
    Link(String),
    /// An nf_tables table, for example `ip kube-proxy`.
    NftTable(String),
    /// The sysctl `route_localnet` of all interfaces, which was reset to 0.
    RouteLocalnet,
}

/// A table of iptables in one flavour and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IptablesLocation {
    /// The flavour of its tools.
    pub flavour: Flavour,
    /// Its family.
    pub family: Family,
    /// The table.
    pub table: Table,
}

/// An object that was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptObject {
    /// The object.
    pub object: String,
    /// The reason that it still exists, and how to remove it.
    pub reason: String,
}

impl CleanupResult {
    /// Returns true if every object was removed that should be.
    pub fn is_complete(&self) -> bool {
        self.not_removed.is_empty()
    }

    /// Appends another result.
    pub fn append(&mut self, mut other: CleanupResult) {
        self.removed.append(&mut other.removed);
        self.not_removed.append(&mut other.not_removed);
        self.kept.append(&mut other.kept);
        self.sets_in_use.append(&mut other.sets_in_use);
    }

    pub(super) fn add_failure(&mut self, object: impl fmt::Display, reason: impl fmt::Display) {
        self.not_removed.push(KeptObject { object: object.to_string(), reason: reason.to_string() });
    }
}

/// The action on the objects of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Find,
    Remove,
}

impl fmt::Display for IptablesLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let flavour = match self.flavour {
            Flavour::Nft => "nft",
            Flavour::Legacy => "legacy",
        };
        write!(f, "{tool} ({flavour}), table {}", self.table)
    }
}

impl fmt::Display for RemovedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemovedObject::Iptables { location, jumps, chains } => {
                write!(f, "{location}: {}, {}", counted(*jumps, "jump"), counted(*chains, "chain"))
            }
            RemovedObject::VirtualServers(count) => write!(f, "IPVS: {}", counted(*count, "virtual server")),
            RemovedObject::IpSet(name) => write!(f, "ipset {name}"),
            RemovedObject::Link(name) => write!(f, "link {name}"),
            RemovedObject::NftTable(name) => write!(f, "nf_tables table {name}"),
            RemovedObject::RouteLocalnet => {
                f.write_str("sysctl net.ipv4.conf.all.route_localnet=1, which is 0 now")
            }
        }
    }
}

impl fmt::Display for KeptObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

pub(super) fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
