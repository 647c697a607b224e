//! Counts of the rules that the new mode would write.

use std::collections::BTreeSet;

use portcullis_cluster::Family;
use portcullis_modes::iptables::RuleSet;
use portcullis_modes::{ipvs, nftables};
use serde::Serialize;

use crate::cluster_view::NodeView;
use crate::config::{Config, ProxyMode};
use crate::node;

/// Counts of the Services and rules that would be written.
#[derive(Debug, Default, Serialize)]
pub(super) struct PlannedRules {
    /// The number of Services.
    pub(super) services: usize,
    /// The number of their ports.
    pub(super) ports: usize,
    /// Counts of rules, sets and elements, one line per family or kind.
    pub(super) details: Vec<String>,
}

/// Counts the rules for the families that can be served.
pub(super) fn count(config: &Config, state: &NodeView, families: &[Family]) -> PlannedRules {
    let NodeView { desired, options, host, .. } = state;
    let ports: BTreeSet<_> =
        desired.ports().map(|port| (&port.name.service, &port.name.port, port.name.protocol)).collect();
    let details = match config.mode {
        ProxyMode::Iptables => {
            let of = |family: &Family| {
                rules_in(&RuleSet::render(desired, *family, options, host)).map(|c| format!("{family}: {c}"))
            };
            families.iter().filter_map(of).collect()
        }
        ProxyMode::Nftables => families
            .iter()
            .map(|family| {
                let table = nftables::render(desired, *family, options, host);
                let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
                let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
                let (chains, sets) = (table.chains.len(), table.sets.len());
                format!(
                    "{family}: {rules} rules in {chains} chains, {elements} elements in {sets} sets and maps"
                )
            })
            .collect(),
        ProxyMode::Ipvs => {
            let ipvs = node::ipvs_options(config);
            let wanted = ipvs::IpvsObjects::render(desired, families, &ipvs, options, host);
            let real: usize = wanted.servers.values().map(|spec| spec.real_servers.len()).sum();
            let entries: usize = wanted.sets.values().map(BTreeSet::len).sum();
            let mut lines = vec![
                format!("{} virtual servers, {real} real servers", wanted.servers.len()),
                format!("{entries} entries of ipsets, {} addresses of kube-ipvs0", wanted.addresses.len()),
            ];
            let rules = wanted.rules.iter().filter_map(|(f, set)| rules_in(set).map(|c| format!("{f}: {c}")));
            lines.extend(rules);
            lines
        }
    };
    PlannedRules { services: desired.services().len(), ports: ports.len(), details }
}

/// Returns the number of rules in each table; `None` if there are none.
fn rules_in(set: &RuleSet) -> Option<String> {
    let count = |chains: &std::collections::BTreeMap<String, Vec<String>>| {
        chains.values().map(Vec::len).sum::<usize>()
    };
    let counts = set.tables.iter().map(|(table, chains)| (table, count(chains))).filter(|(_, n)| *n > 0);
    let counts: Vec<String> = counts.map(|(table, rules)| format!("{rules} rules in {table}")).collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}
