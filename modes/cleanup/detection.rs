//! Detection of the proxy modes that have objects in the kernel.

use std::collections::HashMap;

use portcullis_cluster::Family;
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::nf_tables;

use super::result::{Action, CleanupResult, IptablesLocation, KeptObject, RemovedObject, counted};
use super::tools::tools_for;
use super::{connection_drain, ipvs, nftables};
use crate::iptables::saved_rule::declared_chain;
use crate::iptables::{Flavour, Table, is_service_chain};
use crate::proxy_mode::ProxyMode;

/// A mode with objects in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectedMode {
    /// The mode.
    pub mode: ProxyMode,
    /// The program that created them.
    pub implementation: Implementation,
    /// Descriptions of its objects.
    pub evidence: Vec<String>,
}

/// The program that created rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// kube-proxy.
    KubeProxy,
    /// Portcullis.
    Portcullis,
    /// kube-proxy or Portcullis: their rules are the same.
    Either,
}

/// Returns the modes that have objects here, and the objects that could not be read. There are several modes if the
/// mode was changed and the old objects were not removed.
pub fn detect_modes() -> (Vec<DetectedMode>, Vec<KeptObject>) {
    let mut result = CleanupResult::default();
    let (by_iptables, by_ipvs) = iptables_evidence(&mut result);
    let mut all = Vec::new();
    let mut add = |mode, implementation, evidence: Vec<String>| {
        if !evidence.is_empty() {
            all.push(DetectedMode { mode, implementation, evidence });
        }
    };
    add(ProxyMode::Iptables, Implementation::Either, by_iptables);
    let mut found = CleanupResult::default();
    if ipvs::has_leftovers() {
        ipvs::find(&mut found);
    }
    result.not_removed.append(&mut found.not_removed);
    let sets = found.removed.iter().filter(|one| matches!(one, RemovedObject::IpSet(_))).count();
    let objects = found.removed.iter().filter(|one| !matches!(one, RemovedObject::IpSet(_)));
    let mut evidence: Vec<String> = objects.map(ToString::to_string).collect();
    if sets > 0 {
        evidence.push(counted(sets, "ipset"));
    }
    evidence.extend(by_ipvs);
    add(ProxyMode::Ipvs, Implementation::Either, evidence);
    if !matches!(nf_tables::open(), Ok(None)) {
        for (implementation, tables) in [
            (Implementation::KubeProxy, &nftables::KUBE_PROXY[..]),
            (Implementation::Portcullis, &nftables::PORTCULLIS[..]),
        ] {
            let mut found = CleanupResult::default();
            nftables::clean(&mut found, tables, Action::Find);
            add(ProxyMode::Nftables, implementation, found.removed.iter().map(ToString::to_string).collect());
            result.not_removed.append(&mut found.not_removed);
        }
    }
    (all, result.not_removed)
}

/// Returns the evidence for iptables mode and for IPVS mode in iptables rules.
fn iptables_evidence(result: &mut CleanupResult) -> (Vec<String>, Vec<String>) {
    let (mut by_iptables, mut by_ipvs) = (Vec::new(), Vec::new());
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let Some(tools) = tools_for(flavour, result) else { continue };
        for family in Family::BOTH {
            let kernel = tools.kernel(family);
            let (mut iptables, mut ipvs, mut chains) = (false, false, 0);
            let no_rules = |_: &str| true;
            let filter =
                kernel.dump_without(Table::Filter, &no_rules, &mut |line| match declared_chain(line) {
                    Some("KUBE-EXTERNAL-SERVICES") => iptables = true,
                    Some("KUBE-IPVS-FILTER") => ipvs = true,
                    _ => {}
                });
            // Without iptables mode, the table nat need not be read, which may be large.
            let nat = match iptables {
                true => kernel.dump_without(Table::Nat, &no_rules, &mut |line| {
                    chains += usize::from(declared_chain(line).is_some_and(is_service_chain));
                }),
                false => Ok(()),
            };
            let place = |table| IptablesLocation { flavour, family, table };
            for (table, outcome) in [(Table::Filter, filter), (Table::Nat, nat)] {
                if let Err(error) = outcome {
                    tracing::debug!(place = %place(table), %error, "cannot read an iptables table");
                }
            }
            if iptables {
                let chains = counted(chains, "chain");
                by_iptables.push(format!("{}: {chains} of Services", place(Table::Nat)));
            }
            if ipvs {
                by_ipvs.push(format!("{}: chain KUBE-IPVS-FILTER", place(Table::Filter)));
            }
        }
    }
    (by_iptables, by_ipvs)
}

/// Returns the number of connections through virtual servers of IPVS mode: active connections for TCP and SCTP, all
/// known flows for UDP.
///
/// # Errors
/// The kernel rejected a request.
pub fn ipvs_connections() -> portcullis_netlink::Result<HashMap<VirtualServer, u64>> {
    if ipvs::has_leftovers() { connection_drain::connections() } else { Ok(HashMap::new()) }
}
