//! The kernel's side of the ways between nodes: uplinks, VXLAN links, routes, neighbours and FDB entries.
//!
//! Only objects of this program are changed: links by their name and alias, routes by [`ROUTE_PROTOCOL`](crate::ROUTE_PROTOCOL), and
//! whatever is on our own links.

mod forwarding_table;
mod pod_routes;
mod uplinks;
mod vtep_comparison;
mod vtep_links;

pub use forwarding_table::{ForwardingTable, Rejected};
pub use pod_routes::{missing_pod_routes, restore_pod_routes};
pub use uplinks::{OwnLinks, pod_mtu};
pub use vtep_comparison::{VtepComparison, VtepDifference};
pub use vtep_links::{VTEP_LINKS, VTEP_PREFIX, VtepLink, VtepLinks, VtepRepairs};

use portcullis_netlink::Result;
use portcullis_netlink::route::Rtnetlink;

/// The objects that [`remove`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedLinks {
    /// VXLAN links.
    pub links: usize,
    /// Routes to other nodes.
    pub routes: usize,
}

impl RemovedLinks {
    /// Returns true if there was nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.links == 0 && self.routes == 0
    }
}

/// Removes the routes to other nodes, and the VXLAN links with their neighbours and FDB entries. The interfaces of pods stay: the runtime
/// removes them with their pods.
///
/// # Errors
/// The kernel's rejection, usually without privilege.
pub fn remove(is_dry_run: bool) -> Result<RemovedLinks> {
    let mut rtnetlink = Rtnetlink::open()?;
    let links = vtep_links::existing(&mut rtnetlink)?;
    let mut table = ForwardingTable::open()?;
    let routes = table.remove_routes(is_dry_run)?;
    for link in &links {
        if !is_dry_run {
            rtnetlink.delete_link(link.index)?;
        }
    }
    Ok(RemovedLinks { links: links.len(), routes })
}
