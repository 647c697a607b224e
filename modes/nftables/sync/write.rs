//! Writing of updates to the kernel.

use std::time::{Duration, Instant};

use portcullis_cluster::desired::Desired;
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::CommitSummary;

use super::batches;
use super::kernel::NftablesKernel;
use super::programmed_services::{ProgrammedServices, ServiceUpdate};
use crate::error::SyncError;
use crate::mode::SyncResult;
use portcullis_cluster::Budget;

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
        if error.is_object_rejection() { WriteError::Baseline(error) } else { WriteError::Kernel(error) }
    }
}

/// The time for which one sync writes large Services after all others.
const MAX_DEFERRED_TIME: Duration = Duration::from_millis(500);

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
    /// Writes groups of updates: the small ones, then those of large Services while there is time. The next sync continues. If
    /// the kernel rejects a transaction, or Services are held back, searches for the rejected ones.
    pub(super) fn write(&mut self, groups: [Vec<ServiceUpdate>; 2]) -> Result<(), WriteError> {
        // Committing a new table that lacks Services would remove them from the kernel.
        if !*self.was_committed {
            if !self.services.pending.is_empty() {
                self.services.hold_back(groups);
                return self.search_rejected();
            }
            self.write_batch(groups)?;
            return self.search_rejected();
        }
        let [changed, retries] = groups;
        let mut batches = batches::divide(changed);
        let first = batches.remove(0);
        self.services.defer(batches);
        self.write_batch([first, retries])?;
        let mut budget = Budget::new(usize::MAX, MAX_DEFERRED_TIME, Instant::now());
        while self.services.deferred().next().is_some() && budget.spend(Instant::now()) {
            let Some(batch) = self.services.next_deferred(self.desired) else { break };
            self.write_batch([batch, Vec::new()])?;
        }
        self.search_rejected()
    }

    /// Writes groups of updates together. If the kernel rejects an object, they are held back.
    fn write_batch(&mut self, groups: [Vec<ServiceUpdate>; 2]) -> Result<(), WriteError> {
        groups.iter().for_each(|group| self.apply(group));
        match self.commit_if_dirty() {
            Ok(()) => {
                groups.iter().flatten().for_each(|update| self.services.isolations.remove(&update.name));
            }
            Err(error) => {
                groups.iter().rev().for_each(|group| self.revert(group));
                self.services.hold_back(groups);
                if !error.is_object_rejection() {
                    return Err(error.into());
                }
            }
        }
        Ok(())
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

impl From<&WriteError> for SyncError {
    fn from(error: &WriteError) -> Self {
        let (WriteError::Kernel(source) | WriteError::Baseline(source)) = error;
        SyncError::from_kernel(format_args!("nf_tables: {error}"), source)
    }
}
