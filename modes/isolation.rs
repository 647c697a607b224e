//! Isolated Services: rejected by the kernel, reported and retried, while all other Services are served.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use portcullis_cluster::{Backoff, NamespacedName};

use crate::mode::IsolatedService;

/// The time until the first retry of a rejected Service; it doubles with each rejection.
const FIRST_RETRY: Duration = Duration::from_secs(30);

/// The longest time until a retry.
const LAST_RETRY: Duration = Duration::from_secs(600);

/// The isolated Services of one family.
#[derive(Default)]
pub(crate) struct Isolations(BTreeMap<NamespacedName, Isolation>);

struct Isolation {
    reason: String,
    retry_at: Instant,
    backoff: Backoff,
}

impl Isolations {
    /// Adds a rejected Service. The time of a retry that is already planned does not change.
    pub(crate) fn add(&mut self, service: &NamespacedName, error: &impl fmt::Display, now: Instant) {
        if self.is_awaiting_retry(service, now) {
            return;
        }
        let mut backoff =
            self.0.remove(service).map_or(Backoff::new(FIRST_RETRY, LAST_RETRY), |old| old.backoff);
        let wait = backoff.next_wait();
        tracing::error!(%service, %error, retry_in = ?wait, "cannot program Service; all other Services are served");
        let isolation = Isolation { reason: error.to_string(), retry_at: now + wait, backoff };
        self.0.insert(service.clone(), isolation);
    }

    /// Removes a Service, which has changed or is written.
    pub(crate) fn remove(&mut self, service: &NamespacedName) {
        self.0.remove(service);
    }

    /// Returns true if a Service was rejected at its last write.
    pub(crate) fn contains(&self, service: &NamespacedName) -> bool {
        self.0.contains_key(service)
    }

    /// Returns true if the time of the next attempt for a Service has not come yet.
    pub(crate) fn is_awaiting_retry(&self, service: &NamespacedName, now: Instant) -> bool {
        self.0.get(service).is_some_and(|isolation| isolation.retry_at > now)
    }

    /// Makes the next write include all isolated Services.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        self.0.values_mut().for_each(|isolation| isolation.retry_at = now);
    }

    /// Returns the Services to be retried now.
    pub(crate) fn due(&self, now: Instant) -> Vec<NamespacedName> {
        self.0.iter().filter(|(_, i)| i.retry_at <= now).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the time of the next retry.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.0.values().map(|isolation| isolation.retry_at).min()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = IsolatedService> + '_ {
        self.0.iter().map(|(name, i)| IsolatedService { service: name.clone(), reason: i.reason.clone() })
    }
}
