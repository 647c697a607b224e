//! The status of a controller.

use std::sync::Arc;

use portcullis_cluster::Kind;

use super::controller_name::ControllerName;
use super::declaration::Declaration;
use super::finished_sync::FinishedSync;
use super::sync_history::{SyncFailure, SyncHistory};
use crate::moment::Moment;

/// The state of a controller, from which the result of `--once`, health, metrics and Events are derived. Nothing else leads
/// from a controller to them.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// The name of the controller.
    pub(crate) name: ControllerName,
    /// The syncs of each set of rules.
    pub(crate) syncs: Vec<SyncHistory>,
    /// The last finished sync. Observers see each finished sync once here, as the loop calls them after each.
    pub(crate) last_sync: Option<Arc<FinishedSync>>,
    /// The changes of objects by kind, for the kinds that the controller counts.
    pub(crate) changes: Vec<ChangeCounts>,
    /// The progress of a running sync that takes long.
    pub(crate) long_sync: Option<String>,
    /// The first sync is held back, as objects that could not be read may have rules in the kernel.
    pub(crate) is_held_back: bool,
    /// The consequence for the rules if they are incomplete, as objects could not be read even once.
    pub(crate) incomplete: Option<&'static str>,
    /// Problems of objects that fail no health check.
    pub(crate) problems: Vec<String>,
    /// Whether another process keeps changing the rules, and what follows from that.
    pub(crate) contention: Option<String>,
}

/// The number of changes of objects of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeCounts {
    /// The kind.
    pub(crate) kind: Kind,
    /// Changes that no sync has taken yet.
    pub(crate) pending: usize,
    /// All changes since the start that a sync has taken.
    pub(crate) taken: u64,
}

impl ChangeCounts {
    /// Creates the counts before the first change.
    pub(crate) fn new(kind: Kind) -> Self {
        ChangeCounts { kind, pending: 0, taken: 0 }
    }

    /// Records that a sync takes the pending changes.
    pub(crate) fn take(&mut self) {
        self.taken += std::mem::take(&mut self.pending) as u64;
    }
}

impl Status {
    /// Creates the status before the first sync.
    pub(crate) fn new(declaration: &Declaration) -> Self {
        Status {
            name: declaration.name,
            syncs: declaration.rules.iter().map(|rules| SyncHistory::new(rules)).collect(),
            last_sync: None,
            changes: Vec::new(),
            long_sync: None,
            is_held_back: false,
            incomplete: None,
            problems: Vec::new(),
            contention: None,
        }
    }

    /// Records a change that is to be synced.
    pub(crate) fn change_queued(&mut self, at: Moment) {
        self.syncs.iter_mut().for_each(|history| history.change_queued(at));
    }

    /// Records that a sync takes all changes until now.
    pub(crate) fn sync_started(&mut self) {
        self.syncs.iter_mut().for_each(SyncHistory::started);
    }

    /// Records that all changes until now need no sync, as they have no effect on the rules. The last sync has succeeded.
    pub(crate) fn had_no_effect(&mut self, at: Moment) {
        self.sync_started();
        self.syncs.iter_mut().for_each(|history| history.succeeded(at));
    }

    /// Records a finished sync.
    pub(crate) fn sync_finished(&mut self, sync: FinishedSync, at: Moment) {
        for result in &sync.results {
            let Some(history) = self.syncs.iter_mut().find(|history| history.rules == result.rules) else {
                continue;
            };
            match &result.error {
                None => history.succeeded(at),
                Some(error) => history.failed(SyncFailure {
                    at,
                    error: error.message.clone(),
                    may_restart_help: error.may_restart_help,
                }),
            }
        }
        self.last_sync = Some(Arc::new(sync));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_without_effect_are_not_pending() {
        let name = ControllerName {
            label: "test",
            objects: "objects",
            rules: "rules",
            event_action: "Testing",
            is_service_proxy: false,
        };
        let declaration = Declaration { name, rules: vec!["IPv4", "IPv6"], watches: Vec::new() };
        let mut status = Status::new(&declaration);
        status.change_queued(Moment::now());
        let at = Moment::now();
        status.had_no_effect(at);
        for history in &status.syncs {
            assert_eq!((history.oldest_change, history.last_success), (None, Some(at)), "{}", history.rules);
        }
        assert!(status.last_sync.is_none(), "no sync has finished");
    }
}
