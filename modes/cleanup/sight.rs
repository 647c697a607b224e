//! What of any mode is in the kernel.

use std::collections::HashMap;

use portcullis_cluster::Family;
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::nf_tables;

use super::iptables::tools_of;
use super::{Cleanup, Doing, IptablesPlace, Serving, drain, ipvs, nftables};
use crate::iptables::saved_rule::declared_chain;
use crate::iptables::{Flavour, Table, is_service_chain};

/// A mode, and by what it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The mode.
    pub mode: Serving,
    /// Who serves so.
    pub whose: Whose,
    /// What of it was seen, a line each.
    pub evidence: Vec<String>,
}

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// kube-proxy's.
    KubeProxys,
    /// Ours.
    Ours,
    /// kube-proxy's or ours: they are alike.
    Either,
}

/// All that serve here now, and what could not be looked at. More than one where a mode was changed and what the other
/// had was left.
pub fn seen() -> (Vec<Seen>, Vec<super::Left>) {
    let mut done = Cleanup::default();
    let (by_iptables, by_ipvs) = in_iptables(&mut done);
    let mut all = Vec::new();
    let mut add = |mode, whose, evidence: Vec<String>| {
        if !evidence.is_empty() {
            all.push(Seen { mode, whose, evidence });
        }
    };
    add(Serving::Iptables, Whose::Either, by_iptables);
    let mut found = Cleanup::default();
    if ipvs::left_something() {
        ipvs::look(&mut found);
    }
    done.left.append(&mut found.left);
    let sets = found.removed.iter().filter(|one| matches!(one, super::Removed::IpSet(_))).count();
    let others = found.removed.iter().filter(|one| !matches!(one, super::Removed::IpSet(_)));
    let mut evidence: Vec<String> = others.map(ToString::to_string).collect();
    if sets > 0 {
        evidence.push(super::counted(sets, "ipset"));
    }
    evidence.extend(by_ipvs);
    add(Serving::Ipvs, Whose::Either, evidence);
    if !matches!(nf_tables::open(), Ok(None)) {
        for (whose, tables) in
            [(Whose::KubeProxys, &nftables::KUBE_PROXY[..]), (Whose::Ours, &nftables::OURS[..])]
        {
            let mut found = Cleanup::default();
            nftables::go_over(&mut found, tables, Doing::Look);
            add(Serving::Nftables, whose, found.removed.iter().map(ToString::to_string).collect());
            done.left.append(&mut found.left);
        }
    }
    (all, done.left)
}

/// What rules of iptables tell of iptables mode, and of IPVS mode.
fn in_iptables(done: &mut Cleanup) -> (Vec<String>, Vec<String>) {
    let (mut by_iptables, mut by_ipvs) = (Vec::new(), Vec::new());
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let Some(tools) = tools_of(flavour, done) else { continue };
        for family in Family::BOTH {
            let kernel = tools.kernel(family);
            let (mut iptables, mut ipvs, mut chains) = (false, false, 0);
            let filter = kernel.dump(Table::Filter, &mut |line| match declared_chain(line) {
                Some("KUBE-EXTERNAL-SERVICES") => iptables = true,
                Some("KUBE-IPVS-FILTER") => ipvs = true,
                _ => {}
            });
            // Where nothing serves, a large table need not be read.
            let nat = match iptables {
                true => kernel.dump(Table::Nat, &mut |line| {
                    chains += usize::from(declared_chain(line).is_some_and(is_service_chain));
                }),
                false => Ok(()),
            };
            let place = |table| IptablesPlace { flavour, family, table };
            for (table, outcome) in [(Table::Filter, filter), (Table::Nat, nat)] {
                if let Err(error) = outcome {
                    tracing::debug!(place = %place(table), %error, "cannot be looked at");
                }
            }
            if iptables {
                let chains = super::counted(chains, "chain");
                by_iptables.push(format!("{}: {chains} of Services", place(Table::Nat)));
            }
            if ipvs {
                by_ipvs.push(format!("{}: chain KUBE-IPVS-FILTER", place(Table::Filter)));
            }
        }
    }
    (by_iptables, by_ipvs)
}

/// Connections through virtual servers of IPVS mode, by virtual server: those of TCP and SCTP that are active, and flows
/// of UDP that are remembered.
///
/// # Errors
/// The kernel cannot be asked.
pub fn ipvs_connections() -> portcullis_netlink::Result<HashMap<VirtualServer, u64>> {
    if ipvs::left_something() { drain::connections() } else { Ok(HashMap::new()) }
}
