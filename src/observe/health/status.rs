//! Health at a point in time, as served by the health endpoints.

use std::collections::BTreeMap;

use portcullis_cluster::Family;

use super::problem::{FailedChecks, HealthProblem};
use crate::moment::Moment;

/// Health of the proxy at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// The point in time.
    pub now: Moment,
    /// Health of each served IP family.
    pub families: BTreeMap<Family, FamilyHealth>,
    /// Problem of policy enforcement, if any. Services are still served, so `healthCheckNodePort`s are not affected.
    pub policies: Option<HealthProblem>,
    /// Stalls of the main loop and of jobs.
    pub stalls: Vec<String>,
    /// Problem of a source that has been silent for too long.
    pub silence: Option<String>,
    /// True if load balancers may send traffic to the node.
    pub node_eligible: bool,
    /// Warning that fails no health check.
    pub warning: Option<String>,
    /// Problems reported by components, prefixed with the component's name.
    pub reported: Vec<HealthProblem>,
}

/// Health of an IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyHealth {
    /// Time of the last successful sync.
    pub last_synced: Option<Moment>,
    /// Problem of the family, if any.
    pub problem: Option<HealthProblem>,
}

impl HealthStatus {
    /// Returns true if the rules of all families are in sync, as served on `healthCheckNodePort`s.
    pub fn in_sync(&self) -> bool {
        self.families.values().all(|family| family.problem.is_none())
    }

    /// Returns true if `/healthz` succeeds: the rules are in sync and the source is not silent.
    pub fn healthy(&self) -> bool {
        self.stalls.is_empty() && self.silence.is_none() && !self.any_fails(FailedChecks::Healthz)
    }

    /// Returns true if `/livez` succeeds: there is no problem that a restart might solve.
    pub fn live(&self) -> bool {
        self.stalls.is_empty() && !self.any_fails(FailedChecks::HealthzAndLivez)
    }

    fn any_fails(&self, check: FailedChecks) -> bool {
        let families = self.families.values().filter_map(|family| family.problem.as_ref());
        families.chain(&self.policies).chain(&self.reported).any(|problem| problem.fails >= check)
    }

    /// Returns the time of the last sync of any family.
    pub fn last_synced(&self) -> Option<Moment> {
        self.families.values().filter_map(|family| family.last_synced).max_by_key(|at| at.monotonic())
    }

    /// Iterates over all problems.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let families = self.families.iter();
        let families = families.filter_map(|(family, v)| {
            v.problem.as_ref().map(|problem| format!("{family}: {}", problem.text))
        });
        let policies = self.policies.iter().map(|problem| format!("NetworkPolicy: {}", problem.text));
        let reported = self.reported.iter().map(|problem| problem.text.clone());
        let all = families.chain(policies).chain(self.stalls.iter().cloned());
        all.chain(self.silence.clone()).chain(reported)
    }
}
