//! The rules of the active mode, which a cleanup must keep.

use super::chain_names::FILTER;
use crate::iptables::{Flavour, Jump, Table};
use crate::proxy_mode::ProxyMode;
use crate::{iptables, ipvs};

/// The rules of the active mode.
pub(super) struct ActiveRules {
    pub(super) flavour: Flavour,
    pub(super) mode: ProxyMode,
    jumps: Vec<Jump>,
    /// Connections through IPVS are draining; the chain that protects its addresses stays until they end.
    keeps_ipvs_filter: bool,
}

/// The chain that blocks access through Service addresses to processes on the node, while the node has these addresses.
const IPVS_FILTER: &str = "KUBE-IPVS-FILTER";

impl ActiveRules {
    /// Returns the rules of a mode that uses tools of a flavour.
    pub(super) fn new(mode: ProxyMode, flavour: Flavour) -> Self {
        let jumps = match mode {
            ProxyMode::Iptables => iptables::jumps(),
            ProxyMode::Ipvs => ipvs::jumps(),
            ProxyMode::Nftables => Vec::new(),
        };
        ActiveRules { flavour, mode, jumps, keeps_ipvs_filter: false }
    }

    /// Adds the chain that protects the addresses of IPVS mode.
    pub(super) fn with_ipvs_filter(self) -> Self {
        let jumps =
            self.jumps.into_iter().chain(ipvs::jumps().into_iter().filter(is_jump_to_ipvs_filter)).collect();
        ActiveRules { jumps, keeps_ipvs_filter: true, ..self }
    }

    /// Returns true if the mode has a chain with this name.
    pub(super) fn has_chain(&self, table: Table, name: &str) -> bool {
        if self.keeps_ipvs_filter && table == Table::Filter && name == IPVS_FILTER {
            return true;
        }
        match self.mode {
            ProxyMode::Iptables => iptables::is_ours(table, name),
            ProxyMode::Ipvs => ipvs::chain_names(table).contains(&name),
            ProxyMode::Nftables => false,
        }
    }

    /// Returns true if the mode has this jump. `line` begins with `-A CHAIN`.
    pub(super) fn has_jump(&self, table: Table, line: &str) -> bool {
        let of = |jump: &Jump| {
            let rule = line.strip_prefix("-A ").and_then(|rest| rest.strip_prefix(jump.from));
            jump.table == table && rule.is_some_and(|rule| rule.trim() == jump.rule)
        };
        self.jumps.iter().any(of)
    }

    /// Returns true if only other modes have a chain with this name in table filter.
    pub(super) fn indicates_other_mode(&self, name: &str) -> bool {
        match self.mode {
            ProxyMode::Iptables => name == IPVS_FILTER,
            ProxyMode::Ipvs => name == "KUBE-EXTERNAL-SERVICES",
            ProxyMode::Nftables => FILTER.contains(&name),
        }
    }
}

fn is_jump_to_ipvs_filter(jump: &Jump) -> bool {
    jump.table == Table::Filter && jump.rule.ends_with(IPVS_FILTER)
}
