//! The conntrack table: the kernel's, or a test's.

use portcullis_netlink::conntrack::{Conntrack, DeleteCounts, Flow};
use portcullis_netlink::{Family, Result};

/// A conntrack table.
pub trait FlowTable: Send {
    /// Lists the flows of these families and protocols (`IPPROTO_*`) once, and deletes those that are stale.
    ///
    /// # Errors
    /// The kernel rejected a request. Some of the flows may be deleted, and the call can be repeated.
    fn delete_where(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        stale: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts>;
}

/// The kernel's conntrack table, in the network namespace of the thread that first uses this.
#[derive(Debug, Default)]
pub struct KernelFlows {
    /// Opened at the first use, and again after an error.
    conntrack: Option<Conntrack>,
}

impl FlowTable for KernelFlows {
    fn delete_where(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        stale: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts> {
        let mut conntrack = match self.conntrack.take() {
            Some(conntrack) => conntrack,
            None => Conntrack::open()?,
        };
        let deleted = conntrack.delete_where(families, protocols, stale)?;
        self.conntrack = Some(conntrack);
        Ok(deleted)
    }
}
