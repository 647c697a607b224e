//! What is known of a source's state, for `/healthz`, metrics and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Kind;

/// The state of a source, kind by kind. Shared with its tasks; reading it is cheap.
#[derive(Debug)]
pub struct Health {
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
    /// When the source last heard anything: an answer, an event, a bookmark, a file read.
    pub last_heard: Option<Instant>,
    /// The kind has been fully listed once.
    pub synced: bool,
    /// The API server does not serve the kind, which it need not.
    pub absent: bool,
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
    /// That of a kind of which nothing has been heard.
    pub(crate) fn new(kind: Kind) -> Self {
        KindStatus {
            kind,
            last_heard: None,
            synced: false,
            absent: false,
            error: None,
            failures: 0,
            lists: 0,
            unreadable: 0,
            with_problems: 0,
        }
    }
}

impl Health {
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| Mutex::new(KindStatus::new(kind))).collect();
        Health { kinds, unreadable: Mutex::default() }
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

    /// When the kind that has been silent for longest was last heard of; `None` where one never was. A kind that the
    /// server does not serve is not silent, so it does not count.
    pub fn last_heard(&self) -> Option<Instant> {
        let served = self.kinds.iter().map(lock).filter(|status| !status.absent);
        served.map(|status| status.last_heard).min().flatten()
    }

    /// When the source last heard of any kind.
    pub fn last_answer(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|status| lock(status).last_heard).max()
    }

    /// Says what kinds are not listed yet, and why, once the source has heard nothing of any kind for `limit`.
    pub fn silence(&self, since: Instant, limit: Duration) -> Option<String> {
        let heard = self.last_answer().unwrap_or(since);
        if self.synced() || heard.max(since).elapsed() < limit {
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

    pub(super) fn heard(&self, kind: Kind) {
        self.update(kind, |status| {
            status.last_heard = Some(Instant::now());
            status.error = None;
        });
    }

    pub(super) fn listed(&self, kind: Kind) {
        self.update(kind, |status| {
            status.synced = true;
            status.lists += 1;
        });
    }

    pub(super) fn set_absent(&self, kind: Kind, absent: bool) {
        self.update(kind, |status| status.absent = absent);
    }

    pub(super) fn failed(&self, kind: Kind, error: String) {
        self.update(kind, |status| {
            status.error = Some(error);
            status.failures += 1;
        });
    }

    pub(super) fn doubtful(&self, kind: Kind, unreadable: usize, with_problems: usize) {
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
        let health = Health::new([Kind::Service, Kind::ClusterNetworkPolicy]);
        let heard = || health.last_heard().is_some();
        health.heard(Kind::Service);
        assert!(!heard(), "the other kind has not been heard of");
        health.set_absent(Kind::ClusterNetworkPolicy, true);
        assert!(heard());
        health.set_absent(Kind::ClusterNetworkPolicy, false);
        assert!(!heard(), "it is served now, and nothing has come");
    }
}
