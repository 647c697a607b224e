//! What is known of a source's state, for `/healthz`, metrics and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Kind;

/// The state of a source, kind by kind. Shared with its tasks; reading it is cheap.
#[derive(Debug)]
pub struct SourceHealth {
    kinds: Vec<Mutex<KindStatus>>,
    /// Why objects or documents cannot be read, by kind where it is known.
    unreadable: Mutex<BTreeMap<Option<Kind>, Vec<String>>>,
}

/// The state of one kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KindStatus {
    /// The kind.
    pub kind: Kind,
    /// When the source last contacted anything: an answer, an event, a bookmark, a file read.
    pub last_contact: Option<Instant>,
    /// The kind has been fully listed once.
    pub synced: bool,
    /// The API server does not serve the kind, which it need not.
    pub is_unserved: bool,
    /// What it is trying to get over; `None` while all is well.
    pub error: Option<String>,
    /// Requests or reads that failed, since the start.
    pub failures: u64,
    /// Full lists, since the start.
    pub lists: u64,
    /// Objects that cannot be read as a whole, and are not served or served as they last were.
    pub unreadable: usize,
    /// Objects of which a field is ignored because it cannot be understood.
    pub with_problems: usize,
}

impl KindStatus {
    /// That of a kind of which nothing has been contacted.
    pub(crate) fn new(kind: Kind) -> Self {
        KindStatus {
            kind,
            last_contact: None,
            synced: false,
            is_unserved: false,
            error: None,
            failures: 0,
            lists: 0,
            unreadable: 0,
            with_problems: 0,
        }
    }
}

impl SourceHealth {
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| Mutex::new(KindStatus::new(kind))).collect();
        SourceHealth { kinds, unreadable: Mutex::default() }
    }

    /// Why objects or documents cannot be read now, a line each, which names the file and line or the object.
    pub fn unreadable(&self) -> Vec<String> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.values().flatten().cloned().collect()
    }

    /// Replaces what was reported before as unreadable of a kind; `None` where the kind is not known.
    pub(super) fn set_unreadable(&self, kind: Option<Kind>, reasons: Vec<String>) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            unreadable.remove(&kind);
        } else {
            unreadable.insert(kind, reasons);
        }
    }

    /// The state of each kind that the source follows.
    pub fn snapshot(&self) -> Vec<KindStatus> {
        self.kinds.iter().map(|status| lock(status).clone()).collect()
    }

    /// Whether all kinds have been fully listed.
    pub fn synced(&self) -> bool {
        self.kinds.iter().all(|status| lock(status).synced)
    }

    /// When the kind that has been silent for longest was last contacted of; `None` where one never was. A kind that the
    /// server does not serve is not silent, so it does not count.
    pub fn last_contact(&self) -> Option<Instant> {
        let served = self.kinds.iter().map(lock).filter(|status| !status.is_unserved);
        served.map(|status| status.last_contact).min().flatten()
    }

    /// When the source last contacted of any kind.
    pub fn last_response(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|status| lock(status).last_contact).max()
    }

    /// Says what kinds are not listed yet, and why, once the source has contacted nothing of any kind for `limit`.
    pub fn list_timeout(&self, since: Instant, limit: Duration) -> Option<String> {
        let contacted = self.last_response().unwrap_or(since);
        if self.synced() || contacted.max(since).elapsed() < limit {
            return None;
        }
        // Most kinds fail for the same reason.
        let missing: Vec<KindStatus> = self.snapshot().into_iter().filter(|kind| !kind.synced).collect();
        let reasons: BTreeSet<String> = missing.iter().filter_map(|kind| kind.error.clone()).collect();
        let reasons: Vec<String> = reasons.into_iter().collect();
        let plurals: Vec<&str> = missing.iter().map(|kind| kind.kind.plural()).collect();
        let why = if reasons.is_empty() { "no answer".to_owned() } else { reasons.join("; ") };
        Some(format!("cannot list {}: {why}", plurals.join(", ")))
    }

    fn update(&self, kind: Kind, change: impl FnOnce(&mut KindStatus)) {
        let mut of_kind = self.kinds.iter().map(lock).filter(|status| status.kind == kind);
        if let Some(mut status) = of_kind.next() {
            change(&mut status);
        }
    }

    pub(super) fn record_contact(&self, kind: Kind) {
        self.update(kind, |status| {
            status.last_contact = Some(Instant::now());
            status.error = None;
        });
    }

    pub(super) fn record_list(&self, kind: Kind) {
        self.update(kind, |status| {
            status.synced = true;
            status.lists += 1;
        });
    }

    pub(super) fn set_unserved(&self, kind: Kind, is_unserved: bool) {
        self.update(kind, |status| status.is_unserved = is_unserved);
    }

    pub(super) fn record_failure(&self, kind: Kind, error: String) {
        self.update(kind, |status| {
            status.error = Some(error);
            status.failures += 1;
        });
    }

    pub(super) fn set_invalid(&self, kind: Kind, unreadable: usize, with_problems: usize) {
        self.update(kind, |status| {
            status.unreadable = unreadable;
            status.with_problems = with_problems;
        });
    }
}

fn lock(status: &Mutex<KindStatus>) -> MutexGuard<'_, KindStatus> {
    // A panic while it is held leaves whole values behind.
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_not_served_is_not_silent() {
        let health = SourceHealth::new([Kind::Service, Kind::ClusterNetworkPolicy]);
        let contacted = || health.last_contact().is_some();
        health.record_contact(Kind::Service);
        assert!(!contacted(), "the other kind has not been contacted of");
        health.set_unserved(Kind::ClusterNetworkPolicy, true);
        assert!(contacted());
        health.set_unserved(Kind::ClusterNetworkPolicy, false);
        assert!(!contacted(), "it is served now, and nothing has come");
    }
}
