//! The kernel operations that nftables mode needs, as a trait, so that tests can replace the kernel.

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{self, CommitSummary, DesiredTable};
use portcullis_netlink::socket::Socket;

/// A kernel with nf_tables.
pub(in crate::nftables) trait NftablesKernel {
    /// Gives the table the desired contents.
    ///
    /// # Errors
    /// [`portcullis_netlink::Error::Object`] if the kernel rejects an object.
    fn commit(&mut self, table: &mut DesiredTable) -> Result<CommitSummary>;

    /// Validates the edits since the last commit without applying them.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_edits(&mut self, table: &DesiredTable) -> Result<()>;

    /// Validates the whole table as a replacement of the existing one, without applying it.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_replacement(&mut self, table: &DesiredTable) -> Result<()>;
}

impl NftablesKernel for Socket {
    fn commit(&mut self, table: &mut DesiredTable) -> Result<CommitSummary> {
        nf_tables::commit(self, table)
    }

    fn check_edits(&mut self, table: &DesiredTable) -> Result<()> {
        nf_tables::check_edits(self, table)
    }

    fn check_replacement(&mut self, table: &DesiredTable) -> Result<()> {
        nf_tables::check_replacement(self, table)
    }
}
