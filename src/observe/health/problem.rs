//! Problems that components of the daemon report to [`Health`](super::Health).

/// A problem and the health checks that it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthProblem {
    /// Description: the object, the problem and its consequence, in one line without a full stop.
    pub text: String,
    /// Health checks that the problem fails. Both list the problem in any case.
    pub fails: FailedChecks,
}

/// Health checks that a problem fails. Reported problems do not affect `healthCheckNodePort`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedChecks {
    /// No health check: the rules are complete and up to date.
    Nothing,
    /// `/healthz`: rules are missing or may be stale, but a restart would not help.
    Healthz,
    /// `/healthz` and `/livez`: a restart may help.
    HealthzAndLivez,
}

impl HealthProblem {
    /// Creates a problem that fails no health check.
    pub fn warning(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::Nothing }
    }

    /// Creates a problem that fails `/healthz`.
    pub fn not_ready(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::Healthz }
    }

    /// Creates a problem that fails `/healthz` and `/livez`.
    pub fn not_live(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::HealthzAndLivez }
    }
}
