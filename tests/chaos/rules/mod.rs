//! The rules of the node, read back from the kernel, and the outcomes that they give to a connection.

pub(crate) mod iptables;
pub(crate) mod ipvs;
mod nftables;

use std::collections::BTreeSet;

use portcullis_lab::NetNs;

use super::model::{Connection, Outcome};
use super::scenario::Tools;
use super::step::Mode;

use iptables::IptablesRules;
pub(crate) use ipvs::VirtualServers;
use nftables::NftablesTables;

/// The rules of Services and policies as they are in the kernel.
pub(crate) struct NodeRules {
    services: ServiceRules,
    tables: NftablesTables,
}

enum ServiceRules {
    Iptables([IptablesRules; 2]),
    Nftables,
}

impl NodeRules {
    /// Reads the rules of a node in iptables or nftables mode.
    pub(crate) fn read(netns: &NetNs, mode: Mode, tools: Tools) -> Self {
        let services = match mode {
            Mode::Iptables => ServiceRules::Iptables(
                ["iptables", "ip6tables"].map(|tool| IptablesRules::read(netns, tool, tools)),
            ),
            _ => ServiceRules::Nftables,
        };
        NodeRules { services, tables: NftablesTables::read(netns) }
    }

    /// Returns the outcomes of a connection over all random numbers.
    pub(crate) fn outcomes(&self, connection: &Connection) -> BTreeSet<Outcome> {
        match &self.services {
            ServiceRules::Nftables => self.tables.outcomes(connection, connection.to),
            ServiceRules::Iptables(families) => {
                let family = usize::from(connection.to.is_ipv6());
                let routed = families[family].outcomes(connection);
                let then_policies = |outcome: Outcome| match outcome {
                    // Policies see the translated destination.
                    Outcome::To(to) => self.tables.outcomes(connection, to),
                    end => BTreeSet::from([end]),
                };
                routed.into_iter().flat_map(then_policies).collect()
            }
        }
    }
}
