//! What of a proxy is to stay: the rules of the mode that serves now.

use super::iptables::FILTER;
use crate::iptables::{Flavour, Jump, Table};
use crate::{iptables, ipvs};

/// The mode that serves now, whose rules stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// iptables mode.
    Iptables,
    /// IPVS mode.
    Ipvs,
    /// nftables mode, which has no rules of iptables.
    Nftables,
}

/// The rules that stay.
pub(super) struct Standing {
    pub(super) flavour: Flavour,
    pub(super) serving: Serving,
    jumps: Vec<Jump>,
    /// Connections through IPVS are waited for, and what guards its addresses stays until then.
    draining: bool,
}

/// The chain that keeps strangers from what listens on the node, as long as it has the addresses of Services.
const GUARD: &str = "KUBE-IPVS-FILTER";

impl Standing {
    /// The rules of a mode, kept by the tools of a flavour.
    pub(super) fn new(serving: Serving, flavour: Flavour) -> Self {
        let jumps = match serving {
            Serving::Iptables => iptables::jumps(),
            Serving::Ipvs => ipvs::jumps(),
            Serving::Nftables => Vec::new(),
        };
        Standing { flavour, serving, jumps, draining: false }
    }

    /// The same, and what guards IPVS mode's addresses.
    pub(super) fn draining(self) -> Self {
        let jumps = self.jumps.into_iter().chain(ipvs::jumps().into_iter().filter(is_to_guard)).collect();
        Standing { jumps, draining: true, ..self }
    }

    /// Whether the mode has a chain of this name.
    pub(super) fn has_chain(&self, table: Table, name: &str) -> bool {
        if self.draining && table == Table::Filter && name == GUARD {
            return true;
        }
        match self.serving {
            Serving::Iptables => iptables::is_ours(table, name),
            Serving::Ipvs => ipvs::chain_names(table).contains(&name),
            Serving::Nftables => false,
        }
    }

    /// Whether the mode has this jump. `line` begins with `-A CHAIN`.
    pub(super) fn has_jump(&self, table: Table, line: &str) -> bool {
        let of = |jump: &Jump| {
            let rule = line.strip_prefix("-A ").and_then(|rest| rest.strip_prefix(jump.from));
            jump.table == table && rule.is_some_and(|rule| rule.trim() == jump.rule)
        };
        self.jumps.iter().any(of)
    }

    /// Whether a chain of table filter is one that only other modes have: where it is, they served.
    pub(super) fn is_mark_of_others(&self, name: &str) -> bool {
        match self.serving {
            Serving::Iptables => name == GUARD,
            Serving::Ipvs => name == "KUBE-EXTERNAL-SERVICES",
            Serving::Nftables => FILTER.contains(&name),
        }
    }
}

fn is_to_guard(jump: &Jump) -> bool {
    jump.table == Table::Filter && jump.rule.ends_with(GUARD)
}
