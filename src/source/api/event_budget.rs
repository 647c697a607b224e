//! Rate limit of Events about objects of the cluster.
//!
//! Tenants choose how many of their objects have problems. Each Event is a request to the API server of every node,
//! and all wait in one queue. So each namespace has a budget, and Events about objects leave room in the queue for those
//! about the node. client-go limits Events by object, which does not limit many objects.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::token_bucket::TokenBucket;

/// The number of Events about objects of a namespace without a pause.
const BURST: u32 = 25;

/// The time after which one more Event about an object of the namespace is permitted.
const REFILL: Duration = Duration::from_secs(30);

/// The number of namespaces with a budget of their own. All further namespaces share one.
const NAMESPACES: usize = 1024;

/// The key of the budget that further namespaces share. No namespace has this name.
const SHARED: &str = "*";

/// The Events that may still be created, by namespace, and the number of those that were omitted.
#[derive(Debug, Default)]
pub(super) struct EventBudget {
    namespaces: Mutex<HashMap<Box<str>, TokenBucket>>,
    omitted: AtomicU64,
}

impl EventBudget {
    /// Takes an Event from the budget of a namespace; empty for cluster-scoped objects. Returns false if it is exhausted.
    pub(super) fn take(&self, namespace: &str, now: Instant) -> bool {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if namespaces.len() >= NAMESPACES && !namespaces.contains_key(namespace) {
            namespaces.retain(|_, bucket| !bucket.is_full(BURST, REFILL, now));
        }
        let is_tracked = namespaces.len() < NAMESPACES || namespaces.contains_key(namespace);
        let key = if is_tracked { namespace } else { SHARED };
        namespaces.entry(key.into()).or_insert_with(|| TokenBucket::new(BURST, now)).take(BURST, REFILL, now)
    }

    /// Counts Events that are not created.
    pub(super) fn count_omitted(&self, events: u64) {
        self.omitted.fetch_add(events, Ordering::Relaxed);
    }

    /// Returns the number of Events that were omitted since the start.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_does_not_use_the_budget_of_others() {
        let (budget, start) = (EventBudget::default(), Instant::now());
        let taken = |namespace: &str, at| (0..1000).filter(|_| budget.take(namespace, at)).count();
        assert_eq!(taken("noisy", start), 25);
        assert_eq!(taken("quiet", start), 25);
        assert_eq!(taken("noisy", start + Duration::from_secs(60)), 2);
    }

    #[test]
    fn many_namespaces_use_bounded_memory() {
        let (budget, start) = (EventBudget::default(), Instant::now());
        let all = (0..10 * NAMESPACES).filter(|number| budget.take(&format!("n{number}"), start)).count();
        assert_eq!(all, NAMESPACES + BURST as usize, "further namespaces share one budget");
        assert!(budget.namespaces.lock().expect("no panic").len() <= NAMESPACES + 1);
        let later = start + REFILL * BURST;
        assert!(budget.take("new", later), "unused budgets are dropped");
        assert!(budget.namespaces.lock().expect("no panic").len() <= 2);
    }
}
