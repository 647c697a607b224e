//! Removal of objects of other processes that block all packets, before the first sync.

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables;

use super::service_table::ServiceTable;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// Removes from the tables of both families what blocks all packets and that this mode never writes; see
/// [`nf_tables::remove_blocking_objects`]. Returns descriptions of the removed objects. Does nothing without tables, whichever
/// mode is in use.
///
/// # Errors
/// A table cannot be read or changed.
pub fn remove_blocking_objects(
    options: &Options,
    node_facts: &NodeFacts,
) -> portcullis_netlink::Result<Vec<String>> {
    let Some(mut socket) = nf_tables::open()? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for family in Family::BOTH {
        let base = ServiceTable::new(family, options, node_facts);
        removed.extend(nf_tables::remove_blocking_objects(&mut socket, base.desired())?);
    }
    Ok(removed)
}
