//! The health of a source, by kind, for `/healthz`, metrics and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Kind;

/// The health of a source, shared with its tasks.
#[derive(Debug)]
pub struct SourceHealth {
    kinds: Vec<Mutex<KindStatus>>,
    /// Why objects or documents cannot be read, by their kind if it is known.
    unreadable: Mutex<BTreeMap<Option<Kind>, Vec<Arc<str>>>>,
    credentials_problem: Mutex<Option<String>>,
}

/// The status of one kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KindStatus {
    /// The kind.
    pub kind: Kind,
    /// When the source last received a response, watch event or bookmark, or read the manifests.
    pub last_contact: Option<Instant>,
    /// The kind has been fully listed once.
    pub synced: bool,
    /// The API server does not serve the kind, which is optional.
    pub is_unserved: bool,
    /// The last error; `None` after a success.
    pub error: Option<String>,
    /// The number of requests or reads that failed since the start.
    pub failures: u64,
    /// The number of full lists since the start.
    pub lists: u64,
    /// The number of objects that cannot be parsed; their last valid version stays in use.
    pub unreadable: usize,
    /// The number of objects with an invalid field, which is ignored.
    pub with_problems: usize,
}

impl KindStatus {
    /// The status before the first contact.
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
    pub(crate) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| Mutex::new(KindStatus::new(kind))).collect();
        SourceHealth { kinds, unreadable: Mutex::default(), credentials_problem: Mutex::default() }
    }

    /// Returns why objects or documents cannot be read now: one line each, with the file and line or the object.
    pub fn unreadable(&self) -> Vec<String> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.values().flatten().map(ToString::to_string).collect()
    }

    /// Returns why changed credentials for the API server are not in use; `None` if they are.
    pub fn credentials_problem(&self) -> Option<String> {
        self.credentials_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_credentials_problem(&self, problem: Option<String>) {
        *self.credentials_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Sets why objects or documents of a kind cannot be read; `None` if the kind is not known.
    pub(super) fn set_unreadable(&self, kind: Option<Kind>, reasons: Vec<Arc<str>>) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            unreadable.remove(&kind);
        } else {
            unreadable.insert(kind, reasons);
        }
    }

    /// Returns the status of each kind that the source follows.
    pub fn snapshot(&self) -> Vec<KindStatus> {
        self.kinds.iter().map(|status| lock(status).clone()).collect()
    }

    /// Returns true if all kinds have been fully listed.
    pub fn synced(&self) -> bool {
        self.kinds.iter().all(|status| lock(status).synced)
    }

    /// Returns the oldest last contact of all kinds; `None` if one had none. Kinds that the server does not serve are
    /// ignored.
    pub fn last_contact(&self) -> Option<Instant> {
        let served = self.kinds.iter().map(lock).filter(|status| !status.is_unserved);
        served.map(|status| status.last_contact).min().flatten()
    }

    /// Returns the latest contact of any kind.
    pub fn last_response(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|status| lock(status).last_contact).max()
    }

    /// Returns which kinds are not listed yet, and why, if there was no contact of any kind for `limit`.
    pub fn list_timeout(&self, since: Instant, limit: Duration) -> Option<String> {
        let last = self.last_response().unwrap_or(since);
        if self.synced() || last.max(since).elapsed() < limit {
            return None;
        }
        // Most kinds fail for the same reason.
        let missing: Vec<KindStatus> = self.snapshot().into_iter().filter(|kind| !kind.synced).collect();
        let reasons: BTreeSet<String> = missing.iter().filter_map(|kind| kind.error.clone()).collect();
        let reasons: Vec<String> = reasons.into_iter().collect();
        let plurals: Vec<&str> = missing.iter().map(|kind| kind.kind.plural()).collect();
        let why = if reasons.is_empty() { "no response".to_owned() } else { reasons.join("; ") };
        Some(format!("cannot list {}: {why}", plurals.join(", ")))
    }

    fn update(&self, kind: Kind, change: impl FnOnce(&mut KindStatus)) {
        let mut of_kind = self.kinds.iter().map(lock).filter(|status| status.kind == kind);
        if let Some(mut status) = of_kind.next() {
            change(&mut status);
        }
    }

    pub(super) fn record_contact(&self, kind: Kind) {
        self.record_contact_at(kind, Instant::now());
    }

    pub(super) fn record_contact_at(&self, kind: Kind, at: Instant) {
        self.update(kind, |status| {
            status.last_contact = Some(at);
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
    // A panic with the lock held leaves no partial value.
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_served_are_ignored_in_the_last_contact() {
        let health = SourceHealth::new([Kind::Service, Kind::ClusterNetworkPolicy]);
        let is_contacted = || health.last_contact().is_some();
        health.record_contact(Kind::Service);
        assert!(!is_contacted(), "the other kind has no contact");
        health.set_unserved(Kind::ClusterNetworkPolicy, true);
        assert!(is_contacted());
        health.set_unserved(Kind::ClusterNetworkPolicy, false);
        assert!(!is_contacted(), "it is served now, without a contact");
    }
}
