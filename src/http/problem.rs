//! Problems that components of the daemon report to [`Health`](super::Health), beside the syncs that it judges itself.

/// Something that is wrong, and what it makes fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthProblem {
    /// What is wrong with which object and what follows from it, as one line without a full stop.
    pub text: String,
    /// Which health checks fail while it lasts. It is listed by both in any case.
    pub fails: FailedChecks,
}

/// The health checks that a problem fails. None of them changes what `healthCheckNodePort`s answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedChecks {
    /// None: the rules are complete and follow the cluster as far as they can.
    Nothing,
    /// `/healthz`: rules are missing or may be stale, and a restart would not help.
    Healthz,
    /// `/healthz` and `/livez`: a restart may help.
    HealthzAndLivez,
}

impl HealthProblem {
    /// A problem that is listed and fails no health check.
    pub fn warning(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::Nothing }
    }

    /// A problem that fails `/healthz`.
    pub fn not_ready(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::Healthz }
    }

    /// A problem that fails `/healthz` and `/livez`.
    pub fn not_live(text: impl Into<String>) -> Self {
        HealthProblem { text: text.into(), fails: FailedChecks::HealthzAndLivez }
    }
}
