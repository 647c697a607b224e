//! Objects that the kernel rejected: the reason, and the time of the next attempt.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// The time until the first retry of a rejected object; it doubles with each rejection.
const FIRST_RETRY: Duration = Duration::from_secs(30);

/// The longest time until a retry.
const LAST_RETRY: Duration = Duration::from_secs(600);

/// Objects that the kernel rejected.
#[derive(Debug)]
pub struct RejectedObjects<K>(BTreeMap<K, Rejected>);

#[derive(Debug)]
struct Rejected {
    reason: String,
    retry_at: Instant,
    backoff: Backoff,
}

impl<K> Default for RejectedObjects<K> {
    fn default() -> Self {
        RejectedObjects(BTreeMap::new())
    }
}

impl<K: Ord + Clone> RejectedObjects<K> {
    /// Adds a rejected object. Returns the time until its retry; `None` if it waits for one already.
    pub fn add(&mut self, key: &K, reason: String, now: Instant) -> Option<Duration> {
        if self.is_waiting(key, now) {
            return None;
        }
        let mut backoff = self.0.remove(key).map_or(Backoff::new(FIRST_RETRY, LAST_RETRY), |old| old.backoff);
        let wait = backoff.next_wait();
        self.0.insert(key.clone(), Rejected { reason, retry_at: now + wait, backoff });
        Some(wait)
    }

    /// Makes all retries due now.
    pub fn retry_all(&mut self, now: Instant) {
        self.0.values_mut().for_each(|rejected| rejected.retry_at = now);
    }

    /// Removes an object, which has changed or was accepted.
    pub fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// Removes objects.
    pub fn retain(&mut self, is_kept: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| is_kept(key));
    }

    /// Returns true if an object was rejected at the last attempt.
    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Returns true if an object must not be tried yet.
    pub fn is_waiting(&self, key: &K, now: Instant) -> bool {
        self.0.get(key).is_some_and(|rejected| rejected.retry_at > now)
    }

    /// Returns the objects to be tried now.
    pub fn due(&self, now: Instant) -> Vec<K> {
        let due = self.0.iter().filter(|(_, rejected)| rejected.retry_at <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the time of the next retry.
    pub fn next_retry(&self) -> Option<Instant> {
        self.0.values().map(|rejected| rejected.retry_at).min()
    }

    /// Returns all objects with the reasons.
    pub fn all(&self) -> impl Iterator<Item = (&K, &str)> {
        self.0.iter().map(|(key, rejected)| (key, &*rejected.reason))
    }
}
