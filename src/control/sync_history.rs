//! The syncs of one set of rules, from which health is derived.

use crate::moment::Moment;

/// The last syncs of a set of rules that is synced as a whole, such as those of an IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncHistory {
    /// The name of the set of rules, such as `IPv4`.
    pub rules: &'static str,
    /// The last successful sync.
    pub last_success: Option<Moment>,
    /// The first change that no successful sync has written.
    pub oldest_change: Option<Moment>,
    /// The first change since the running sync started, which does not write it. `None` in `Some`: there was none.
    pub during_sync: Option<Option<Moment>>,
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
            during_sync: None,
            last_change: None,
            failure: None,
            failing_since: None,
        }
    }

    /// Records a change that is to be synced.
    pub fn change_queued(&mut self, at: Moment) {
        self.oldest_change.get_or_insert(at);
        if let Some(first) = &mut self.during_sync {
            first.get_or_insert(at);
        }
        self.last_change = Some(at);
    }

    /// Records that a sync takes all changes until now.
    pub fn started(&mut self) {
        self.during_sync = Some(None);
    }

    /// Records that the sync of all changes until its start has succeeded.
    pub fn succeeded(&mut self, at: Moment) {
        (self.last_success, self.oldest_change) = (Some(at), self.during_sync.take().flatten());
        (self.failure, self.failing_since) = (None, None);
    }

    /// Records a failed sync.
    pub fn failed(&mut self, failure: SyncFailure) {
        self.during_sync = None;
        self.failing_since.get_or_insert(failure.at);
        self.failure = Some(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_during_a_sync_is_pending_after_it() {
        let (mut history, [first, during]) = (SyncHistory::new("IPv4"), [Moment::now(), Moment::now()]);
        history.change_queued(first);
        history.started();
        assert_eq!(history.oldest_change, Some(first), "not written yet");
        history.change_queued(during);
        history.succeeded(Moment::now());
        assert_eq!(history.oldest_change, Some(during));
        history.started();
        history.succeeded(Moment::now());
        assert_eq!(history.oldest_change, None);
    }

    #[test]
    fn failed_sync_keeps_all_changes_pending() {
        let (mut history, [first, during]) = (SyncHistory::new("IPv4"), [Moment::now(), Moment::now()]);
        history.change_queued(first);
        history.started();
        history.change_queued(during);
        history.failed(SyncFailure { at: Moment::now(), error: String::new(), may_restart_help: false });
        assert_eq!(history.oldest_change, Some(first));
    }
}
