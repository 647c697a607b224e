//! What the mode asks of the kernel, so that tests can stand in for it.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{self, CommitSummary, Key};
use portcullis_netlink::socket::Socket;

use super::service_table::ServiceTable;

/// Who holds the tables.
pub(super) trait NftablesKernel {
    /// Makes it hold what is wanted.
    ///
    /// # Errors
    /// The kernel's, of which [`portcullis_netlink::Error::Object`] says what was refused.
    fn commit(&mut self, table: &mut ServiceTable) -> Result<CommitSummary>;

    /// Says what it would say to that, and changes nothing.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_edits(&mut self, table: &ServiceTable) -> Result<()>;

    /// Says what it would say to the whole table in place of the one there, and changes nothing.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_replacement(&mut self, table: &ServiceTable) -> Result<()>;

    /// Deletes what is remembered of endpoints that clients may not stay with any more, now that it is time.
    ///
    /// # Errors
    /// The kernel's.
    fn forget(&mut self, table: &mut ServiceTable, now: Instant) -> Result<()>;

    /// Deletes what is remembered of all endpoints but those.
    ///
    /// # Errors
    /// The kernel's.
    fn forget_all_but(&mut self, table: &mut ServiceTable, valid: &HashSet<Key>) -> Result<()>;
}

impl NftablesKernel for Socket {
    fn commit(&mut self, table: &mut ServiceTable) -> Result<CommitSummary> {
        nf_tables::commit(self, &mut table.table)
    }

    fn check_edits(&mut self, table: &ServiceTable) -> Result<()> {
        nf_tables::check_edits(self, &table.table)
    }

    fn check_replacement(&mut self, table: &ServiceTable) -> Result<()> {
        nf_tables::check_replacement(self, &table.table)
    }

    fn forget(&mut self, table: &mut ServiceTable, now: Instant) -> Result<()> {
        table.forget(self, now)
    }

    fn forget_all_but(&mut self, table: &mut ServiceTable, valid: &HashSet<Key>) -> Result<()> {
        table.forget_all_but(self, valid)
    }
}
