//! Isolated Services: rejected by the kernel, reported and retried, while all other Services are served.

use std::fmt;
use std::time::Instant;

use portcullis_cluster::{NamespacedName, RejectedObjects};

use crate::mode::{IsolatedService, IsolationCause};

/// The isolated Services of one family.
#[derive(Default)]
pub(crate) struct Isolations(RejectedObjects<NamespacedName>);

impl Isolations {
    /// Adds a rejected Service. The time of a retry that is already planned does not change.
    pub(crate) fn add(&mut self, service: &NamespacedName, error: &impl fmt::Display, now: Instant) {
        if let Some(wait) = self.0.add(service, error.to_string(), now) {
            tracing::error!(%service, %error, retry_in = ?wait, "cannot program Service; all other Services are served");
        }
    }

    /// Removes a Service, which has changed or is written.
    pub(crate) fn remove(&mut self, service: &NamespacedName) {
        self.0.remove(service);
    }

    /// Returns true if a Service was rejected at its last write.
    pub(crate) fn contains(&self, service: &NamespacedName) -> bool {
        self.0.contains(service)
    }

    /// Returns true if the time of the next attempt for a Service has not come yet.
    pub(crate) fn is_awaiting_retry(&self, service: &NamespacedName, now: Instant) -> bool {
        self.0.is_waiting(service, now)
    }

    /// Makes the next write include all isolated Services.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        self.0.retry_all(now);
    }

    /// Returns the Services to be retried now.
    pub(crate) fn due(&self, now: Instant) -> Vec<NamespacedName> {
        self.0.due(now)
    }

    /// Returns the time of the next retry.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.0.next_retry()
    }

    /// Returns all isolated Services. `has_rules`: whether the kernel has rules of one.
    pub(crate) fn all(
        &self,
        has_rules: impl Fn(&NamespacedName) -> bool,
    ) -> impl Iterator<Item = IsolatedService> {
        self.0.all().map(move |(service, reason)| IsolatedService {
            service: service.clone(),
            cause: IsolationCause::Rejected,
            reason: reason.to_owned(),
            has_rules: has_rules(service),
        })
    }

    /// Returns the names of all isolated Services.
    pub(crate) fn names(&self) -> impl Iterator<Item = &NamespacedName> {
        self.0.all().map(|(service, _)| service)
    }
}
