//! Removes what a mode, ours or kube-proxy's, left in the kernel.
//!
//! ```text
//! jumps, chains (both flavours, both families) ─► virtual servers ─► sets ─► kube-ipvs0 ─► nf_tables tables
//! ```
//!
//! Only what is known by name goes. The kubelet's chains and everybody else's rules stay, and so does what
//! they still use.

mod drain;
mod iptables;
mod ipvs;
mod loopback;
mod nftables;
mod sight;
mod standing;
mod takeover;

pub use drain::Draining;
pub use loopback::{GuardError, guard as guard_loopback, is_guarded_by_iptables_mode, without_localhost};
pub use sight::{Seen, Whose, ipvs_connections, seen};
pub use standing::Serving;
pub use takeover::Takeover;

use std::fmt;

use portcullis_cluster::Family;

use crate::iptables::{Flavour, Table};

/// What a cleanup did, and what it could not do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// What was removed, in order.
    pub removed: Vec<Removed>,
    /// What could not be.
    pub left: Vec<Left>,
    /// What stays on purpose.
    pub kept: Vec<Left>,
}

/// Something that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Rules of a table of iptables.
    Iptables {
        /// Where.
        place: IptablesPlace,
        /// Jumps from built-in chains.
        jumps: usize,
        /// Chains.
        chains: usize,
    },
    /// Virtual servers of IPVS.
    VirtualServers(usize),
    /// A set of ipset, by name.
    IpSet(String),
    /// A network interface, by name.
    Link(String),
    /// A table of nf_tables, as in `ip kube-proxy`.
    NftTable(String),
    /// The sysctl `route_localnet` of all interfaces, which is 0 again.
    RouteLocalnet,
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IptablesPlace {
    /// Where it is kept.
    pub flavour: Flavour,
    /// Its family.
    pub family: Family,
    /// The table.
    pub table: Table,
}

/// Something that was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it is.
    pub what: String,
    /// Why it is still there, and the way out.
    pub reason: String,
}

impl Cleanup {
    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }

    fn left(&mut self, what: impl fmt::Display, reason: impl fmt::Display) {
        self.left.push(Left { what: what.to_string(), reason: reason.to_string() });
    }
}

/// Whether to remove what is found, or only to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Look,
    Remove,
}

/// Removes what any mode left in the network namespace of the calling thread. A part that fails does not keep
/// the others.
pub fn everything() -> Cleanup {
    let mut done = Cleanup::default();
    let guard = loopback::Guard::put(&mut done);
    // Sets that rules match against cannot be destroyed.
    iptables::go_over(&mut done, None, Doing::Remove, guard.is_firewall());
    ipvs::remove(&mut done);
    nftables::go_over(&mut done, &nftables::ALL, Doing::Remove);
    guard.settle(&mut done);
    done
}

/// Removes what other modes than the one that serves now left in the network namespace of the calling thread:
/// kube-proxy's and ours, in both flavours. To be called once the new mode serves all. Where nothing was left, it
/// costs a look at one small table a family and flavour.
pub fn of_other_modes(serving: Serving, flavour: Flavour) -> Cleanup {
    go_over_other_modes(serving, flavour, Doing::Remove)
}

/// What [`of_other_modes`] would remove. Changes nothing.
pub fn look_for_other_modes(serving: Serving, flavour: Flavour) -> Cleanup {
    go_over_other_modes(serving, flavour, Doing::Look)
}

fn go_over_other_modes(serving: Serving, flavour: Flavour, doing: Doing) -> Cleanup {
    let mut done = Cleanup::default();
    iptables::go_over(&mut done, Some(&standing::Standing::new(serving, flavour)), doing, false);
    if serving != Serving::Ipvs && ipvs::left_something() {
        match doing {
            Doing::Remove => ipvs::remove(&mut done),
            Doing::Look => ipvs::look(&mut done),
        }
    }
    nftables::go_over(&mut done, nftables::of_others(serving), doing);
    if serving == Serving::Ipvs && !done.removed.is_empty() {
        // No node port is served on localhost any more. Should it have to stay, the mode's rules guard.
        loopback::reset_route_localnet(&mut done, doing);
    }
    done
}

impl fmt::Display for IptablesPlace {
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

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Iptables { place, jumps, chains } => {
                write!(f, "{place}: {}, {}", counted(*jumps, "jump"), counted(*chains, "chain"))
            }
            Removed::VirtualServers(count) => write!(f, "IPVS: {}", counted(*count, "virtual server")),
            Removed::IpSet(name) => write!(f, "ipset {name}"),
            Removed::Link(name) => write!(f, "link {name}"),
            Removed::NftTable(name) => write!(f, "nf_tables table {name}"),
            Removed::RouteLocalnet => {
                f.write_str("sysctl net.ipv4.conf.all.route_localnet=1, which is 0 now")
            }
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
