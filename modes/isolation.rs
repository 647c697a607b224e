//! Services that the kernel refuses: known, reported, tried again, and no obstacle to the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;

use crate::mode::{IsolatedService, SyncError};

/// The first time until a refused Service is tried again; it doubles with each refusal.
const FIRST_RETRY: Duration = Duration::from_secs(30);

/// The longest time until a refused Service is tried again.
const LAST_RETRY: Duration = Duration::from_secs(600);

/// The refused Services of one family.
#[derive(Default)]
pub(crate) struct Isolations(BTreeMap<NamespacedName, Isolation>);

struct Isolation {
    reason: String,
    retry_at: Instant,
    wait: Duration,
}

impl Isolations {
    /// Notes that a Service was refused. One that was tried before its time is tried again when it was to be.
    pub(crate) fn add(&mut self, service: &NamespacedName, error: &SyncError, now: Instant) {
        if self.is_held_back(service, now) {
            return;
        }
        let wait = self.0.get(service).map_or(FIRST_RETRY, |old| (old.wait * 2).min(LAST_RETRY));
        tracing::error!(%service, %error, retry_in = ?wait, "Service cannot be programmed; all others are served");
        let isolation = Isolation { reason: error.to_string(), retry_at: now + wait, wait };
        self.0.insert(service.clone(), isolation);
    }

    /// Notes that a Service is no longer as it was refused.
    pub(crate) fn remove(&mut self, service: &NamespacedName) {
        self.0.remove(service);
    }

    /// Whether a Service was refused when it was last tried.
    pub(crate) fn contains(&self, service: &NamespacedName) -> bool {
        self.0.contains_key(service)
    }

    /// Whether a Service is not to be tried now.
    pub(crate) fn is_held_back(&self, service: &NamespacedName, now: Instant) -> bool {
        self.0.get(service).is_some_and(|isolation| isolation.retry_at > now)
    }

    /// Those to be tried again.
    pub(crate) fn due(&self, now: Instant) -> Vec<NamespacedName> {
        self.0.iter().filter(|(_, i)| i.retry_at <= now).map(|(name, _)| name.clone()).collect()
    }

    /// When the next of them is to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.0.values().map(|isolation| isolation.retry_at).min()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = IsolatedService> + '_ {
        self.0.iter().map(|(name, i)| IsolatedService { service: name.clone(), reason: i.reason.clone() })
    }
}
