//! The synchronization of the table of one family with the kernel.
//!
//! ```text
//! sync ─► restore what other processes changed ─► apply updates ─► write
//!                                                     │              └ rejected ─► rejected_services
//!                                            programmed_services
//! ```

mod batches;
mod kernel;
mod programmed_services;
mod rejected_services;
#[cfg(test)]
mod tests;
mod write;

use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};

use self::kernel::NftablesKernel;
use self::programmed_services::ProgrammedServices;
use self::write::{TableWriter, WriteError};
use super::settings::Settings;
use crate::error::{SyncError, SyncErrorKind};
use crate::mode::SyncResult;

/// The table of a family, and the knowledge about the kernel's table.
pub(super) struct TableSync {
    services: ProgrammedServices,
    /// The table was committed since it is new. Before that, the kernel may have Services that the table lacks, so an
    /// incomplete table is not committed.
    was_committed: bool,
    /// The table must be compared with the kernel's.
    needs_comparison: bool,
    /// The last sync failed, so the caller repeats it.
    has_failed: bool,
    /// The last write failed. The table has changes that the kernel lacks, so differences are not external changes.
    has_failed_write: bool,
}

impl TableSync {
    pub(super) fn new(settings: Settings) -> Self {
        TableSync {
            services: ProgrammedServices::new(settings),
            was_committed: false,
            needs_comparison: false,
            has_failed: false,
            has_failed_write: false,
        }
    }

    pub(super) fn family(&self) -> Family {
        self.settings().family
    }

    pub(super) fn settings(&self) -> &Settings {
        self.services.table.settings()
    }

    /// Changes the settings. The next sync compares the new table with the kernel's, and writes only the differences.
    pub(super) fn reconfigure(&mut self, settings: Settings) {
        if settings != *self.services.table.settings() {
            self.services.reset(settings);
            self.was_committed = false;
        }
    }

    /// Makes the next sync compare the table with the kernel's.
    pub(super) fn invalidate(&mut self) {
        self.needs_comparison = true;
    }

    /// Returns the time at which a sync is needed without changes.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.has_failed { None } else { self.services.next_due(now) }
    }

    /// Writes the changes that led to `desired`.
    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
    ) -> SyncResult {
        let start = Instant::now();
        let mut result = SyncResult {
            family: self.family(),
            is_full: false,
            duration: Duration::ZERO,
            written: 0,
            tables: Vec::new(),
            restored: 0,
            deferred: Vec::new(),
            isolated: Vec::new(),
            error: None,
        };
        if let Err(error) = self.try_sync(kernel, desired, changes, now, &mut result) {
            self.has_failed = true;
            result.error = Some(SyncError::from(&error));
        } else {
            self.has_failed = false;
            if !self.services.pending.is_empty() {
                let reason = format!(
                    "nf_tables: kernel rejects some of {} Services; the search for them continues, keeping their last good rules",
                    self.services.pending.len()
                );
                result.error = Some(SyncError::new(SyncErrorKind::SearchIncomplete, reason));
            }
        }
        result.isolated = self.services.isolated();
        result.deferred = self.services.deferred().cloned().collect();
        result.duration = start.elapsed();
        result
    }

    fn try_sync(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
        result: &mut SyncResult,
    ) -> Result<(), WriteError> {
        let restored = self.restore(kernel, result);
        // The caller passes changes only once, so record them even if nothing can be written now.
        let groups = [self.services.updates_for(desired, changes), self.services.retries(desired, now)];
        self.services.table.remove_due(now);
        if let Err(error) = restored {
            self.services.hold_back(groups);
            return Err(error);
        }
        let (services, was_committed) = (&mut self.services, &mut self.was_committed);
        let written =
            TableWriter { kernel: &mut *kernel, services, was_committed, desired, now, result }.write(groups);
        self.has_failed_write = written.is_err();
        written
    }

    /// Restores what another process changed, before new changes are written.
    fn restore(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        result: &mut SyncResult,
    ) -> Result<(), WriteError> {
        if !std::mem::take(&mut self.needs_comparison) {
            return Ok(());
        }
        let table = &mut self.services.table.table;
        table.invalidate();
        if !self.was_committed {
            return Ok(());
        }
        match kernel.commit(table) {
            Ok(summary) => {
                result.is_full = true;
                result.restored = if self.has_failed_write { 0 } else { summary.changes.total() };
                Ok(())
            }
            Err(error) => {
                self.needs_comparison = true;
                Err(WriteError::baseline(error))
            }
        }
    }
}
