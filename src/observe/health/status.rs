//! Health at a point in time, as served by the health endpoints.

use super::problem::{FailedChecks, HealthProblem};
use crate::moment::Moment;

/// Health of the proxy at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// The point in time.
    pub now: Moment,
    /// Health of each set of rules.
    pub rules: Vec<RulesHealth>,
    /// Stalls of the loop and of the work of controllers.
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

/// Health of a set of rules that is synced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesHealth {
    /// The name of the set: the IP family of Services.
    pub rules: &'static str,
    /// They are rules of Services, as of kube-proxy. Only these affect `healthCheckNodePort`s.
    pub is_service_proxy: bool,
    /// Time of the last successful sync.
    pub last_synced: Option<Moment>,
    /// Problem of the rules, if any.
    pub problem: Option<HealthProblem>,
}

impl HealthStatus {
    /// Iterates over the rules of Services.
    pub fn service_rules(&self) -> impl Iterator<Item = &RulesHealth> {
        self.rules.iter().filter(|rules| rules.is_service_proxy)
    }

    /// Returns true if the rules of Services are in sync, as served on `healthCheckNodePort`s.
    pub fn in_sync(&self) -> bool {
        self.service_rules().all(|rules| rules.problem.is_none())
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
        let syncs = self.rules.iter().filter_map(|rules| rules.problem.as_ref());
        syncs.chain(&self.reported).any(|problem| problem.fails >= check)
    }

    /// Returns the time of the last sync of Services in any family.
    pub fn last_synced(&self) -> Option<Moment> {
        self.service_rules().filter_map(|rules| rules.last_synced).max_by_key(|at| at.monotonic())
    }

    /// Iterates over all problems, one line each.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.all_problems().map(|problem| problem.text)
    }

    /// Iterates over all problems, with the health checks that they fail.
    pub fn all_problems(&self) -> impl Iterator<Item = HealthProblem> + '_ {
        let syncs = self.rules.iter().filter_map(|rules| {
            let HealthProblem { text, fails } = rules.problem.as_ref()?;
            Some(HealthProblem { text: format!("{}: {text}", rules.rules), fails: *fails })
        });
        let stalls = self.stalls.iter().map(HealthProblem::not_live);
        let silence = self.silence.iter().map(HealthProblem::not_ready);
        syncs.chain(stalls).chain(silence).chain(self.reported.iter().cloned())
    }
}
