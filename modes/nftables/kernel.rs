//! What the mode asks of the kernel, so that tests can stand in for it.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Committed, Key};
use portcullis_netlink::socket::Socket;

use super::family_table::FamilyTable;

/// Who holds the tables.
pub(super) trait Kernel {
    /// Makes it hold what is wanted.
    ///
    /// # Errors
    /// The kernel's, of which [`portcullis_netlink::Error::Object`] says what was refused.
    fn commit(&mut self, table: &mut FamilyTable) -> Result<Committed>;

    /// Says what it would say to that, and changes nothing.
    ///
    /// # Errors
    /// As [`Kernel::commit`].
    fn try_out(&mut self, table: &FamilyTable) -> Result<()>;

    /// Says what it would say to the whole table in place of the one there, and changes nothing.
    ///
    /// # Errors
    /// As [`Kernel::commit`].
    fn try_replacement(&mut self, table: &FamilyTable) -> Result<()>;

    /// Deletes what is remembered of endpoints that clients may not stay with any more, now that it is time.
    ///
    /// # Errors
    /// The kernel's.
    fn forget(&mut self, table: &mut FamilyTable, now: Instant) -> Result<()>;

    /// Deletes what is remembered of all endpoints but those.
    ///
    /// # Errors
    /// The kernel's.
    fn forget_all_but(&mut self, table: &mut FamilyTable, valid: &HashSet<Key>) -> Result<()>;
}

impl Kernel for Socket {
    fn commit(&mut self, table: &mut FamilyTable) -> Result<Committed> {
        table.table.commit(self)
    }

    fn try_out(&mut self, table: &FamilyTable) -> Result<()> {
        table.table.try_out(self)
    }

    fn try_replacement(&mut self, table: &FamilyTable) -> Result<()> {
        table.table.try_replacement(self)
    }

    fn forget(&mut self, table: &mut FamilyTable, now: Instant) -> Result<()> {
        table.forget(self, now)
    }

    fn forget_all_but(&mut self, table: &mut FamilyTable, valid: &HashSet<Key>) -> Result<()> {
        table.forget_all_but(self, valid)
    }
}
