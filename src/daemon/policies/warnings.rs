//! Warnings about pods that policies match with restrictions, or more slowly.

use std::time::Instant;

use super::interface_search::InterfaceSearch;
use super::worker::PolicySyncResult;
use crate::truncated_list;

/// The number of pods that a warning names.
const NAMED: usize = 5;

/// What was warned about.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    has_warned_about_bridges: bool,
    /// The number of profiles with too many classes of peers after the last sync.
    over_limit: usize,
}

impl Warnings {
    /// Logs warnings about a sync that differ from those about earlier syncs.
    pub(super) fn log(&mut self, result: &PolicySyncResult, interfaces: &mut InterfaceSearch, now: Instant) {
        let without_interface = interfaces.record(result.without_interface.clone(), now);
        if !without_interface.is_empty() {
            tracing::warn!(
                count = without_interface.len(),
                pods = truncated_list::names(&without_interface, NAMED),
                "no interface of these pods was found (no veth pair leads to their addresses); NetworkPolicies match \
                 them only by their addresses, and do not match their link-local, multicast and broadcast packets"
            );
        }
        if result.lacks_bridge_family && !std::mem::replace(&mut self.has_warned_about_bridges, true) {
            tracing::warn!(
                "this kernel has no nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE); NetworkPolicies match pods \
                 that are connected by a bridge only by their addresses, and do not match their link-local, multicast \
                 and broadcast packets"
            );
        }
        let over_limit = result.evaluation.over_limit;
        if over_limit > std::mem::replace(&mut self.over_limit, over_limit) {
            tracing::warn!(
                profiles = over_limit,
                "the policies of some pods have too many classes of peers; their rules are evaluated one by one, and new \
                 connections of these pods are slower"
            );
        }
    }
}
