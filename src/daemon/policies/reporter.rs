//! Metrics and health of policy syncs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use portcullis_policy::table;

use super::worker::{CounterLabels, PolicySyncResult};
use crate::moment::Moment;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;

/// Reports policy syncs as metrics and to the health checks.
pub(in crate::daemon) struct PolicyReporter {
    metrics: Metrics,
    health: Arc<Health>,
    /// The labels of the table's drop counters. The counters are read when metrics are scraped.
    labels: Arc<Mutex<CounterLabels>>,
}

impl PolicyReporter {
    /// Creates a reporter, and registers the counters of dropped packets.
    pub(in crate::daemon) fn new(metrics: Metrics, health: Arc<Health>, audit: bool) -> Self {
        health.expect_policies();
        let labels: Arc<Mutex<CounterLabels>> = Arc::default();
        let current = Arc::clone(&labels);
        metrics.read_policy_drops(audit, move || {
            let labels = Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner));
            table::read_drop_counters(&labels).unwrap_or_default()
        });
        PolicyReporter { metrics, health, labels }
    }

    /// Reports the result of a sync. `labels`: labels of the table's drop counters after the sync.
    pub(super) fn synced(&self, result: &PolicySyncResult, labels: CounterLabels) {
        *self.labels.lock().unwrap_or_else(PoisonError::into_inner) = labels;
        let (pods, isolated) = result.pods;
        self.metrics.set_policy_pods(pods, isolated);
        self.metrics.connections_terminated(result.terminated);
        if let Some((_, objects)) = &result.restored {
            self.metrics.policies_repaired(*objects);
        }
        match &result.error {
            None => {
                self.metrics.policies_synced(result.committed.full, result.took, SystemTime::now());
                self.health.policies_synced(Moment::now());
            }
            Some(error) => {
                self.metrics.policies_failed();
                match result.lacks_pod_cidrs {
                    true => self.health.policies_incomplete(Moment::now(), error.clone()),
                    false => self.health.policies_failed(Moment::now(), error.clone()),
                }
            }
        }
    }
}
