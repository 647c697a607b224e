//! The search for Services that the kernel rejects.
//!
//! ```text
//! Services held back ─► does the kernel accept the table without them? ─ no ─► no Service is the cause: the sync fails
//!                         │ yes
//!                         └► batch by batch: accepted ─► committed, unless the table is still incomplete
//!                                            rejected ─► its halves are held back; a single Service is isolated
//! ```
//! A sync searches for a limited time, so that it does not delay other changes; the next sync continues.

use std::time::{Duration, Instant};

use portcullis_netlink::Error;

use super::programmed_services::ServiceUpdate;
use super::write::{TableWriter, WriteError};
use crate::error::SyncError;
use portcullis_cluster::Budget;

/// The time that one sync searches.
const MAX_TIME: Duration = Duration::from_secs(1);

/// The number of batches that one sync tries.
pub(super) const MAX_ATTEMPTS: usize = 256;

impl TableWriter<'_> {
    /// Adds the Services that are held back to the table, except those that the kernel rejects.
    pub(super) fn search_rejected(&mut self) -> Result<(), WriteError> {
        if self.services.pending.is_empty() {
            return Ok(());
        }
        self.check_baseline()?;
        let mut budget = Budget::new(MAX_ATTEMPTS, MAX_TIME, Instant::now());
        while !self.services.pending.is_empty() {
            if !budget.spend(Instant::now()) {
                return Ok(());
            }
            let Some(batch) = self.services.pending.next_batch() else { break };
            let updates: Vec<ServiceUpdate> =
                batch.iter().map(|name| self.services.update(self.desired, name.clone())).collect();
            self.apply(&updates);
            match self.try_batch() {
                Ok(()) => updates.iter().for_each(|update| self.services.isolations.remove(&update.name)),
                Err(error) => {
                    self.revert(&updates);
                    if !error.is_object_rejection() {
                        self.services.pending.push(batch);
                        return Err(error.into());
                    }
                    if self.services.pending.reject(batch, None).is_some() {
                        self.isolate(&updates)?;
                    }
                }
            }
        }
        // The table is complete, or a batch was rejected after the last commit.
        self.commit_if_dirty().map_err(WriteError::baseline)
    }

    /// Checks that the kernel accepts the table without the Services that are held back. A table that was committed is
    /// committed again, which also removes changes of other processes.
    fn check_baseline(&mut self) -> Result<(), WriteError> {
        let accepted = match *self.was_committed {
            true => self.commit_if_dirty(),
            false => self.check_edits(),
        };
        accepted.map_err(WriteError::baseline)
    }

    /// Checks that the kernel accepts the table with a batch. Commits it unless the table is incomplete.
    fn try_batch(&mut self) -> Result<(), Error> {
        self.check_edits()?;
        if *self.was_committed { self.commit_if_dirty() } else { Ok(()) }
    }

    /// Isolates a rejected Service, if the kernel rejects it even in a table without changes of other processes.
    fn isolate(&mut self, updates: &[ServiceUpdate]) -> Result<(), WriteError> {
        self.apply(updates);
        match self.check_replacement() {
            // The Service stays in the table, and the next commit compares the whole table with the kernel.
            Ok(()) => {
                self.services.table.table.invalidate();
                return Ok(());
            }
            Err(error) if error.is_object_rejection() => {
                self.revert(updates);
                let (isolations, now) = (&mut self.services.isolations, self.now);
                updates.iter().for_each(|update| {
                    isolations.add(&update.name, &SyncError::from_netlink("nf_tables", &error), now)
                });
            }
            Err(error) => {
                self.revert(updates);
                self.services.pending.push(updates.iter().map(|update| update.name.clone()).collect());
                return Err(error.into());
            }
        }
        updates.iter().for_each(|update| self.restore_last_good(update));
        Ok(())
    }

    /// Adds the version of an isolated Service that the previous table had, if the kernel accepts it.
    fn restore_last_good(&mut self, isolated: &ServiceUpdate) {
        let Some(after) = self.services.last_good.remove(&isolated.name) else { return };
        let (name, before) = (isolated.name.clone(), isolated.before.clone());
        let update = [ServiceUpdate { name: name.clone(), before, after: after.clone() }];
        self.apply(&update);
        match self.check_edits() {
            Ok(()) => self.services.set_programmed(name, after),
            Err(_) => self.revert(&update),
        }
    }
}
