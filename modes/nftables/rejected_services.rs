//! The search for Services that the kernel rejects.
//!
//! ```text
//! groups that wait ─► is the table without them accepted? ─ no ─► no Service is to blame: the sync fails as a whole
//!                       │ yes
//!                       └► group by group: accepted ─► committed, unless the table is still incomplete
//!                                          rejected ─► its halves wait; a single Service is isolated
//! ```
//! A sync searches for a limited time, so that other changes are not held up, and the next one continues.

use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::Desired;
use portcullis_netlink::Error;

use super::kernel::NftablesKernel;
use super::table_sync::{ServiceUpdate, TableSync, is_refusal, sync_error};
use crate::mode::SyncResult;

/// How long one sync searches.
const MAX_TIME: Duration = Duration::from_secs(1);

/// How many groups one sync tries.
pub(super) const MAX_ATTEMPTS: usize = 256;

/// Why a table could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The kernel's reason.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// It rejects what it accepted before, or a table without any Service.
    #[error(
        "the kernel rejects the table even without the Services that changed, so none of them is isolated: {0}"
    )]
    Baseline(Error),
}

impl WriteError {
    /// Why the table as it was accepted last could not be written.
    pub(super) fn baseline(error: Error) -> Self {
        if is_refusal(&error) { WriteError::Baseline(error) } else { WriteError::Kernel(error) }
    }
}

impl TableSync {
    /// Puts the Services that wait into the table, but those that the kernel rejects.
    pub(super) fn search(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        now: Instant,
        report: &mut SyncResult,
    ) -> Result<(), WriteError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.check_baseline(kernel, report)?;
        let start = Instant::now();
        for trial in 0.. {
            if trial > 0 && (trial >= MAX_ATTEMPTS || start.elapsed() >= MAX_TIME) {
                return Ok(());
            }
            let Some(group) = self.waiting.pop_front() else { break };
            let steps: Vec<ServiceUpdate> = group.into_iter().map(|name| self.step(desired, name)).collect();
            self.put(&steps, desired, now);
            match self.add(kernel, report) {
                Ok(()) => steps.iter().for_each(|step| self.isolations.remove(&step.name)),
                Err(error) => {
                    self.take_back(&steps, desired, now);
                    self.divide(kernel, desired, steps, error, now)?;
                }
            }
        }
        // Complete at last, or after a commit that was rejected.
        self.commit_if_dirty(kernel, report).map_err(WriteError::baseline)
    }

    /// Whether the kernel accepts the table without the Services that wait. One that was committed is committed again,
    /// which replaces whatever another process made of it.
    fn check_baseline(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        report: &mut SyncResult,
    ) -> Result<(), WriteError> {
        let accepted = match self.committed {
            true => self.commit_if_dirty(kernel, report),
            false => kernel.check_edits(&self.table),
        };
        accepted.map_err(WriteError::baseline)
    }

    /// Whether the kernel accepts the table with a group. If the rest of the table serves, so does the group now.
    fn add(&mut self, kernel: &mut dyn NftablesKernel, report: &mut SyncResult) -> Result<(), Error> {
        kernel.check_edits(&self.table)?;
        if self.committed { self.commit_if_dirty(kernel, report) } else { Ok(()) }
    }

    /// Halves a group that was rejected, or isolates a single Service.
    fn divide(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        steps: Vec<ServiceUpdate>,
        error: Error,
        now: Instant,
    ) -> Result<(), WriteError> {
        let mut names: Vec<NamespacedName> = steps.iter().map(|step| step.name.clone()).collect();
        if !is_refusal(&error) {
            self.waiting.push_front(names);
            return Err(error.into());
        }
        if names.len() > 1 {
            let second = names.split_off(names.len() / 2);
            self.waiting.extend([names, second]);
            return Ok(());
        }
        self.isolate(kernel, desired, &steps, now)
    }

    /// Isolates a Service, if the kernel rejects it also in a table of which no other process has changed anything.
    fn isolate(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        steps: &[ServiceUpdate],
        now: Instant,
    ) -> Result<(), WriteError> {
        self.put(steps, desired, now);
        let verdict = kernel.check_replacement(&self.table);
        match verdict {
            // It stays in the table, and the next commit compares everything with the kernel.
            Ok(()) => {
                self.table.table.invalidate();
                return Ok(());
            }
            Err(error) if is_refusal(&error) => {
                self.take_back(steps, desired, now);
                steps.iter().for_each(|step| self.isolations.add(&step.name, &sync_error(&error), now));
            }
            Err(error) => {
                self.take_back(steps, desired, now);
                self.waiting.push_front(steps.iter().map(|step| step.name.clone()).collect());
                return Err(error.into());
            }
        }
        for ServiceUpdate { name, before, .. } in steps {
            let Some(after) = self.last_good.remove(name) else { continue };
            let step = [ServiceUpdate { name: name.clone(), before: before.clone(), after }];
            self.put(&step, desired, now);
            match kernel.check_edits(&self.table) {
                Ok(()) => _ = self.kept.insert(name.clone(), step[0].after.clone()),
                Err(_) => self.take_back(&step, desired, now),
            }
        }
        Ok(())
    }
}
