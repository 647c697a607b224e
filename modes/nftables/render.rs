//! The table for a state, without a kernel.

use std::collections::HashMap;
use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::Desired;
use portcullis_netlink::nf_tables::Table;

use super::service_table::ServiceTable;
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// The table that serves `desired` in one family.
pub fn render(desired: &Desired, family: Family, options: &Options, host: &NodeFacts) -> Table {
    let mut table = ServiceTable::with_settings(Settings::new(family, options, host));
    for ports in desired.services().values() {
        table.change(&[], ports, Instant::now());
    }
    table.settle(desired, &HashMap::new());
    table.table.desired().clone()
}
