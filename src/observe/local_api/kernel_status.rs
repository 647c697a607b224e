//! What the status document reads from the kernel, and from the records of pod addresses.

use std::fs;
use std::path::Path;

use portcullis_netlink::nf_tables::{self, TableFamily};
use portcullis_netlink::{Family, xtables};
use portcullis_podnet::addresses::AddressUsage;

use super::documents::{ConntrackStatus, DroppingChainStatus, LimitedList};
use super::pod_network;
use crate::control::PodAddressSource;
use crate::observe::policy_drops::{DropTotals, PolicyDrops};

/// The largest number of chains in the document.
const LISTED: usize = 100;

/// The prefix of the names of this program's tables.
const OWN_TABLES: &str = "portcullis";

/// What was read from the kernel. `None` if it could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelStatus {
    /// Connection tracking.
    pub(super) conntrack: Option<ConntrackStatus>,
    /// The base chains of other programs with the policy `drop`.
    pub(super) dropping_chains: Option<LimitedList<DroppingChainStatus>>,
    /// The packets that policies dropped; `None` also if there are no policies.
    pub(super) drops: Option<DropTotals>,
    /// The use of the addresses of this node's pods; `None` also without a pod network.
    pub(super) pod_addresses: Option<Vec<AddressUsage>>,
}

impl KernelStatus {
    /// Reads the kernel in the network namespace of the thread.
    pub(super) fn read(drops: Option<&PolicyDrops>, addresses: Option<PodAddressSource>) -> Self {
        KernelStatus {
            conntrack: conntrack(Path::new("/proc/sys/net/netfilter")),
            dropping_chains: dropping_chains(),
            drops: drops.and_then(|drops| drops.totals().ok()),
            pod_addresses: pod_network::usage(addresses),
        }
    }
}

/// Reads the entries of connection tracking and their limit below `/proc/sys/net/netfilter`.
fn conntrack(folder: &Path) -> Option<ConntrackStatus> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok();
    Some(ConntrackStatus { count: read("nf_conntrack_count")?, max: read("nf_conntrack_max")? })
}

/// Reads the chains of nf_tables and of legacy iptables. Both must be read: a shorter list would hide a firewall.
fn dropping_chains() -> Option<LimitedList<DroppingChainStatus>> {
    let found = match nf_tables::open().ok()? {
        Some(mut socket) => {
            nf_tables::dropping_chains(&mut socket, |table| table.starts_with(OWN_TABLES)).ok()?
        }
        // A kernel without nf_tables.
        None => Vec::new(),
    };
    let of_nf_tables = found.into_iter().map(|chain| DroppingChainStatus {
        family: chain.family.as_str().to_owned(),
        table: chain.table,
        chain: chain.name,
        hook: chain.hook.map(|hook| hook.as_str().to_owned()),
        priority: chain.priority,
        legacy: false,
    });
    let mut legacy = Vec::new();
    for family in [Family::V4, Family::V6] {
        legacy.extend(xtables::dropping_chains(family).ok()?);
    }
    Some(LimitedList::new(of_nf_tables.chain(legacy.into_iter().map(legacy_chain)), LISTED))
}

fn legacy_chain(chain: xtables::DroppingChain) -> DroppingChainStatus {
    DroppingChainStatus {
        family: match chain.family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        }
        .as_str()
        .to_owned(),
        hook: Some(chain.chain.to_ascii_lowercase()),
        // `enum nf_ip_hook_priorities` of linux/netfilter_ipv4.h.
        priority: match chain.table.as_str() {
            "raw" => -300,
            "mangle" => -150,
            "security" => 50,
            _ => 0,
        },
        table: chain.table,
        chain: chain.chain.to_owned(),
        legacy: true,
    }
}
