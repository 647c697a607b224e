//! The search for policies that the kernel rejects.
//!
//! ```text
//! changed policies rejected ─► hold all of them back ─► does the kernel accept the table without them?
//!    no ──► no policy is the cause: the sync fails, and the kernel keeps its last rules
//!    yes ─► batch by batch, one in each sync: accepted ─► enforced
//!                                             rejected ─► hold it back ─► again: the table without it?
//!                                                           yes ─► its halves are next; a single one is tried once more
//! ```
//! A policy is the cause if the kernel rejects it twice, and accepts the table without it each time. After one rejection, the reason may
//! have ended before the table without the policy was tried.
//!
//! Each sync tries one batch, so the search delays no other change. A policy that is held back never allows more: its last
//! accepted rules apply, or it isolates its pods.

use std::time::Instant;

use portcullis_cluster::{Bisect, BisectOrder, RejectedObjects};

use crate::compile::{Compiler, RulesId};

/// The search, and the policies that it found.
#[derive(Debug)]
pub struct RejectedPolicies {
    /// Batches of policies that are held back and must be tried.
    pending: Bisect<RulesId>,
    /// The batch that the current sync tries.
    tried: Vec<RulesId>,
    /// A rejected batch. The next sync shows whether the kernel accepts the table without it.
    suspects: Vec<RulesId>,
    /// The rejection of the suspects.
    reason: String,
    /// A policy that was found to be the cause once.
    found_once: Option<RulesId>,
    rejected: RejectedObjects<RulesId>,
}

impl Default for RejectedPolicies {
    fn default() -> Self {
        RejectedPolicies {
            pending: Bisect::new(BisectOrder::BreadthFirst),
            tried: Vec::new(),
            suspects: Vec::new(),
            reason: String::new(),
            found_once: None,
            rejected: RejectedObjects::default(),
        }
    }
}

/// The consequence of a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// A rejected batch is held back, and the search continues.
    HeldBack,
    /// The kernel rejects the table even without the changed policies, so none of them is the cause.
    NoPolicy,
}

impl RejectedPolicies {
    /// Chooses the policies that the next sync tries. Call it before the update of the compiler.
    pub fn prepare(&mut self, compiler: &mut Compiler, now: Instant) {
        // Changed policies are not held back any more.
        self.rejected.retain(|id| compiler.is_held_back(id));
        self.pending.retain(|id| compiler.is_held_back(id));
        self.found_once = self.found_once.take().filter(|id| compiler.is_held_back(id));
        let due = self.rejected.due(now);
        let due: Vec<RulesId> = due.into_iter().filter(|id| !self.is_in_search(id)).collect();
        self.pending.push(due);
        if self.tried.is_empty() && self.suspects.is_empty() {
            self.tried = self.pending.next_batch().unwrap_or_default();
            self.tried.iter().for_each(|id| compiler.release(id));
        }
    }

    /// Returns true if a policy is held back without having been found to be the cause. The policies of the compiler are then
    /// not complete, and must not replace those of a previous process.
    pub fn is_searching(&self) -> bool {
        !self.suspects.is_empty() || !self.pending.is_empty()
    }

    /// Returns the time at which the next sync is needed.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.is_searching() { Some(now) } else { self.rejected.next_retry() }
    }

    /// Records that the kernel accepted the compiled policies. Returns a policy that is the cause of an earlier rejection, if it
    /// was found now.
    pub fn accepted(&mut self, compiler: &mut Compiler, now: Instant) -> Option<RulesId> {
        compiler.accept_changes();
        std::mem::take(&mut self.tried).iter().for_each(|id| self.rejected.remove(id));
        self.rejected.retain(|id| compiler.is_held_back(id));
        let mut suspects = std::mem::take(&mut self.suspects);
        let rejected = suspects.len();
        suspects.retain(|id| compiler.is_held_back(id));
        if suspects.len() < rejected {
            // A policy that changed since may have been the cause, so the rejection proves nothing about the others.
            self.pending.push_last(suspects);
            return None;
        }
        self.found_once = self.found_once.take().filter(|id| compiler.is_held_back(id));
        let found = self.pending.reject(suspects, None)?;
        if self.found_once.replace(found.clone()).as_ref() != Some(&found) {
            self.pending.push(vec![found]);
            return None;
        }
        self.rejected.add(&found, std::mem::take(&mut self.reason), now);
        Some(found)
    }

    /// Records that the kernel rejected the compiled policies, and holds back those that changed since it accepted them.
    pub fn rejected(&mut self, compiler: &mut Compiler, reason: String) -> SearchStep {
        self.tried.clear();
        let held_back = compiler.hold_back_changes();
        if held_back.is_empty() {
            // An earlier rejection proves nothing about the suspects.
            self.pending.push(std::mem::take(&mut self.suspects));
            return SearchStep::NoPolicy;
        }
        // Earlier suspects may not be the cause.
        let earlier = std::mem::replace(&mut self.suspects, held_back);
        self.pending.push(earlier);
        self.reason = reason;
        SearchStep::HeldBack
    }

    /// Returns the policies that the kernel rejects, with the reasons.
    pub fn all(&self) -> impl Iterator<Item = (&RulesId, &str)> {
        self.rejected.all()
    }

    fn is_in_search(&self, id: &RulesId) -> bool {
        self.pending.contains(id) || self.suspects.contains(id) || self.tried.contains(id)
    }
}
