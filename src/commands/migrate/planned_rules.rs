//! Counts of the rules that the new mode would write.

use std::collections::BTreeSet;

use portcullis_cluster::Family;
use serde::Serialize;

use crate::cluster_view::NodeView;
use crate::config::Config;
use crate::proxy_modes;

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
    let desired = &state.desired;
    let ports: BTreeSet<_> =
        desired.ports().map(|port| (&port.name.service, &port.name.port, port.name.protocol)).collect();
    let details = proxy_modes::driver(config.mode).count_rules(config, state, families);
    PlannedRules { services: desired.services().len(), ports: ports.len(), details }
}
