//! Writing of updates to the kernel.

use std::time::Instant;

use portcullis_cluster::desired::Desired;
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::CommitSummary;

use super::kernel::NftablesKernel;
use super::programmed_services::{ProgrammedServices, ServiceUpdate};
use crate::error::SyncError;
use crate::mode::SyncResult;

/// The reason why a table could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// An error of the kernel or the connection to it.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// The kernel rejects the table that it accepted before, or a table without Services.
    #[error("kernel rejects the table even without the changed Services, so none of them is isolated: {0}")]
    Baseline(Error),
}

impl WriteError {
    /// Returns the error for a rejected table without changed Services.
    pub(super) fn baseline(error: Error) -> Self {
        if is_object_rejection(&error) { WriteError::Baseline(error) } else { WriteError::Kernel(error) }
    }
}

/// Writes the table of a family during one sync.
pub(super) struct TableWriter<'a> {
    pub(super) kernel: &'a mut dyn NftablesKernel,
    pub(super) services: &'a mut ProgrammedServices,
    /// The table was committed since it is new.
    pub(super) was_committed: &'a mut bool,
    pub(super) desired: &'a Desired,
    pub(super) now: Instant,
    pub(super) result: &'a mut SyncResult,
}

impl TableWriter<'_> {
    /// Writes groups of updates in one transaction. If the kernel rejects it, or Services are held back, searches for the
    /// rejected ones.
    pub(super) fn write(&mut self, groups: [Vec<ServiceUpdate>; 2]) -> Result<(), WriteError> {
        // Committing a new table that lacks Services would remove them from the kernel.
        if !*self.was_committed && !self.services.pending.is_empty() {
            self.services.hold_back(groups);
            return self.search_rejected();
        }
        groups.iter().for_each(|group| self.apply(group));
        match self.commit_if_dirty() {
            Ok(()) => {
                groups.iter().flatten().for_each(|update| self.services.isolations.remove(&update.name));
            }
            Err(error) => {
                groups.iter().rev().for_each(|group| self.revert(group));
                self.services.hold_back(groups);
                if !is_object_rejection(&error) {
                    return Err(error.into());
                }
            }
        }
        self.search_rejected()
    }

    /// Commits the table unless the kernel has it.
    pub(super) fn commit_if_dirty(&mut self) -> Result<(), Error> {
        let table = &mut self.services.table.table;
        if !table.is_dirty() {
            return Ok(());
        }
        let CommitSummary { changes, full, .. } = self.kernel.commit(table)?;
        *self.was_committed = true;
        self.result.is_full |= full;
        self.result.written += changes.total();
        Ok(())
    }

    pub(super) fn apply(&mut self, updates: &[ServiceUpdate]) {
        self.services.apply(updates, self.desired, self.now);
    }

    pub(super) fn revert(&mut self, updates: &[ServiceUpdate]) {
        self.services.revert(updates, self.desired, self.now);
    }

    pub(super) fn check_edits(&mut self) -> Result<(), Error> {
        self.kernel.check_edits(&self.services.table.table)
    }

    pub(super) fn check_replacement(&mut self) -> Result<(), Error> {
        self.kernel.check_replacement(&self.services.table.table)
    }
}

/// Returns true if the kernel rejected one of our objects, for a reason that is neither temporary nor a lack of privilege or
/// memory.
pub(super) fn is_object_rejection(error: &Error) -> bool {
    matches!(error, Error::Object { .. } | Error::AttributeTooLong { .. })
        && !error.is_transient()
        && !error.is_privilege_or_memory_error()
}

impl From<&WriteError> for SyncError {
    fn from(error: &WriteError) -> Self {
        let (WriteError::Kernel(source) | WriteError::Baseline(source)) = error;
        SyncError::from_kernel(format_args!("nf_tables: {error}"), source)
    }
}
