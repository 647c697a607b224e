//! Rendering of a table without a kernel.

use std::collections::HashMap;
use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::Desired;
use portcullis_netlink::nf_tables::Table;

use super::service_table::ServiceTable;
use super::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// Returns the table that serves `desired` in one family.
pub fn render(desired: &Desired, family: Family, options: &Options, node: &NodeFacts) -> Table {
    let mut table = ServiceTable::with_settings(Settings::new(family, options, node));
    for ports in desired.services().values() {
        table.change(&[], ports, Instant::now());
    }
    table.finish(desired, &HashMap::new());
    table.table.desired().clone()
}
