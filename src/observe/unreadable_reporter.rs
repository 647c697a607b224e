//! Reports of controllers that cannot sync completely because objects cannot be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::health::{Health, HealthProblem};
use crate::control::{ControllerName, Status};
use crate::source::{SourceHealth, UnreadableObjects};

/// The component of health problems about first syncs that are held back.
const FIRST_SYNC: &str = "first sync";

/// Reports first syncs that are held back, and incomplete rules.
pub(super) struct UnreadableReporter {
    health: Arc<Health>,
    source: Arc<SourceHealth>,
    /// The objects of the controllers of which the first sync is held back, as last reported.
    held: Vec<&'static str>,
    /// The controllers with incomplete rules, as last reported.
    incomplete: BTreeSet<ControllerName>,
}

impl UnreadableReporter {
    pub(super) fn new(health: Arc<Health>, source: Arc<SourceHealth>) -> Self {
        UnreadableReporter { health, source, held: Vec::new(), incomplete: BTreeSet::new() }
    }

    /// Reports first syncs that are held back, if they are others than before.
    pub(super) fn report_held_back(&mut self, statuses: &[Status]) {
        let held = statuses.iter().filter(|status| status.is_held_back);
        let held: Vec<&str> = held.map(|status| status.name.objects).collect();
        if held == self.held {
            return;
        }
        if held.is_empty() {
            tracing::info!("all objects have been read; the first sync is no longer held back");
            self.health.set_problems(FIRST_SYNC, Vec::new());
        } else {
            let reason = format!(
                "keeping the rules of {} that an earlier proxy left, as they may serve objects that cannot be read: {}; \
                 repair or remove them",
                held.join(" and "),
                self.unreadable()
            );
            tracing::error!("the first sync is held back: {reason}");
            self.health.set_problems(FIRST_SYNC, vec![HealthProblem::not_ready(reason)]);
        }
        self.held = held;
    }

    /// Returns the problem of a controller with incomplete rules, which is also logged once.
    pub(super) fn report_incomplete(&mut self, status: &Status) -> Option<HealthProblem> {
        let Some(consequence) = status.incomplete else {
            self.incomplete.remove(&status.name);
            return None;
        };
        let reason = format!("{consequence}: {}; repair or remove them", self.unreadable());
        if self.incomplete.insert(status.name) {
            tracing::error!("{} are {reason}", status.name.objects);
        }
        Some(HealthProblem::not_ready(reason))
    }

    fn unreadable(&self) -> UnreadableObjects {
        UnreadableObjects(self.source.unreadable())
    }
}
