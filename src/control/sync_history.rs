//! The syncs of one set of rules, from which health is derived.

use crate::moment::Moment;

/// The last syncs of a set of rules that is synced as a whole, such as those of an IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncHistory {
    /// The name of the set of rules, such as `IPv4`.
    pub rules: &'static str,
    /// The last successful sync.
    pub last_success: Option<Moment>,
    /// The first change since the last successful sync.
    pub oldest_change: Option<Moment>,
    /// The last change.
    pub last_change: Option<Moment>,
    /// The failure of the last sync.
    pub failure: Option<SyncFailure>,
    /// The end of the first sync that failed since the last successful one.
    pub failing_since: Option<Moment>,
}

/// A failed sync, after which the last good rules are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFailure {
    /// The end of the sync.
    pub at: Moment,
    /// The error.
    pub error: String,
    /// A restart of the process may help. False if the cluster lacks information.
    pub may_restart_help: bool,
}

impl SyncHistory {
    /// Creates the history of rules that have never been synced.
    pub fn new(rules: &'static str) -> Self {
        SyncHistory {
            rules,
            last_success: None,
            oldest_change: None,
            last_change: None,
            failure: None,
            failing_since: None,
        }
    }

    /// Records a change that is to be synced.
    pub fn change_queued(&mut self, at: Moment) {
        self.oldest_change.get_or_insert(at);
        self.last_change = Some(at);
    }

    /// Records a successful sync of all changes.
    pub fn succeeded(&mut self, at: Moment) {
        (self.last_success, self.oldest_change) = (Some(at), None);
        (self.failure, self.failing_since) = (None, None);
    }

    /// Records a failed sync.
    pub fn failed(&mut self, failure: SyncFailure) {
        self.failing_since.get_or_insert(failure.at);
        self.failure = Some(failure);
    }
}
