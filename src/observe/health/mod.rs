//! Health of the proxy.
//!
//! The main loop updates [`Health`]; the HTTP handlers read its [`HealthStatus`].
//!
//! Upstream's rule: an IP family is unhealthy while an update has been pending for longer than twice the sync
//! period. Portcullis adds rules, because a proxy with stale rules must not look healthy:
//! - an IP family is unhealthy while its last sync failed;
//! - an IP family that has never been synced is unhealthy after the limit for the first sync;
//! - the proxy is unhealthy while its source has been silent for too long. A restart does not help, so
//!   `/livez` does not fail;
//! - the proxy is unhealthy while the main loop or a job makes no progress (module `progress`);
//! - components report [`HealthProblem`]s, each with the health checks that it fails.
//!
//! Only the rules about IP families affect `healthCheckNodePort`: otherwise load balancers would
//! take all nodes out of service when the API server is down, although all of them still serve.

mod problem;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Family;

use crate::control::{Job, Progress};
use crate::moment::Moment;
use crate::source::SILENCE_LIMIT;
pub use problem::{FailedChecks, HealthProblem};
pub use status::{FamilyHealth, HealthStatus};

/// Time limits after which delays count as failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Limit from a change to the sync of its rules.
    pub sync: Duration,
    /// Limit from the start to the first sync of a family. Longer, because it takes a while in large clusters.
    pub first_sync: Duration,
    /// Limit for silence of the API server, which sends a bookmark about every minute. `None`: the
    /// source may be silent, such as a folder of manifests.
    pub silence: Option<Duration>,
}

impl Limits {
    /// Limit for the first sync.
    pub const FIRST_SYNC: Duration = Duration::from_mins(5);

    /// Returns upstream's limit for syncs, twice the sync period, and a limit for silence if the source sends regularly.
    pub fn new(sync_period: Duration, source_sends_regularly: bool) -> Self {
        let sync = sync_period.saturating_mul(2);
        let first_sync = sync.max(Self::FIRST_SYNC);
        Limits { sync, first_sync, silence: source_sends_regularly.then_some(SILENCE_LIMIT) }
    }
}

/// Returns the time of the last message from the source; `None` if there was none.
type LastHeard = Box<dyn Fn() -> Option<Instant> + Send + Sync>;

/// Reads the problems of a component that does not report them itself.
type ReadProblems = Box<dyn Fn() -> Vec<HealthProblem> + Send + Sync>;

/// Health of the proxy, updated by the main loop and read by HTTP handlers.
pub struct Health {
    limits: Limits,
    started: Moment,
    state: Mutex<State>,
}

struct State {
    families: BTreeMap<Family, Syncs>,
    /// `None` unless policies are enforced.
    policies: Option<Syncs>,
    node_eligible: bool,
    last_heard: Option<LastHeard>,
    warning: Option<String>,
    /// Problems last reported by each component.
    reported: BTreeMap<&'static str, Vec<HealthProblem>>,
    progress: Progress,
    /// Readers of the problems of components.
    readers: BTreeMap<&'static str, ReadProblems>,
    held: FirstSyncsHeld,
}

/// First syncs that are held back on purpose. They do not count as late: after a restart they would be held back again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstSyncsHeld {
    /// The first sync of Services.
    pub services: bool,
    /// The first sync of policies.
    pub policies: bool,
}

#[derive(Default)]
struct Syncs {
    last: Option<Moment>,
    oldest_queued: Option<Moment>,
    /// Time and reason of the failure of the last sync.
    failure: Option<(Moment, HealthProblem)>,
}

impl Health {
    /// Creates the health of a proxy that starts now and serves these families.
    pub fn new(limits: Limits, families: impl IntoIterator<Item = Family>, started: Moment) -> Self {
        let families = families.into_iter().map(|family| (family, Syncs::default())).collect();
        let state = State {
            families,
            policies: None,
            node_eligible: true,
            last_heard: None,
            warning: None,
            reported: BTreeMap::new(),
            progress: Progress::default(),
            readers: BTreeMap::new(),
            held: FirstSyncsHeld::default(),
        };
        Health { limits, started, state: Mutex::new(state) }
    }

    /// Records an iteration of the main loop. After the first one, it must iterate at least every
    /// [`ITERATION_LIMIT`](crate::control::ITERATION_LIMIT).
    pub fn loop_iterated(&self, at: Moment) {
        self.state().progress.iterated(at);
    }

    /// Records the start of a job.
    pub(crate) fn job_started(&self, job: Job, at: Moment) {
        self.state().progress.started(job, at);
    }

    /// Records that a running job has finished a step.
    pub(crate) fn job_stepped(&self, job: Job, at: Moment) {
        self.state().progress.stepped(job, at);
    }

    /// Records the end of a job, successful or not.
    pub(crate) fn job_ended(&self, job: Job) {
        self.state().progress.ended(job);
    }

    /// Records a pending update of this family's rules.
    pub fn queued_update(&self, family: Family, at: Moment) {
        self.state().families.entry(family).or_default().oldest_queued.get_or_insert(at);
    }

    /// Records a successful sync of this family with all changes.
    pub fn synced(&self, family: Family, at: Moment) {
        self.state().families.insert(family, Syncs { last: Some(at), ..Syncs::default() });
    }

    /// Records a failed sync of this family.
    pub fn sync_failed(&self, family: Family, at: Moment, reason: impl Into<String>) {
        self.state().families.entry(family).or_default().failure =
            Some((at, HealthProblem::not_live(reason)));
    }

    /// Declares that policies are enforced, so that their health counts.
    pub fn expect_policies(&self) {
        self.state().policies.get_or_insert_default();
    }

    /// Records a successful sync of policies with all changes.
    pub fn policies_synced(&self, at: Moment) {
        self.state().policies = Some(Syncs { last: Some(at), ..Syncs::default() });
    }

    /// Records a failed sync of policies.
    pub fn policies_failed(&self, at: Moment, reason: impl Into<String>) {
        self.state().policies.get_or_insert_default().failure = Some((at, HealthProblem::not_live(reason)));
    }

    /// Records a sync of policies that is incomplete because the cluster lacks some information, which a restart does not
    /// change.
    pub fn policies_incomplete(&self, at: Moment, reason: impl Into<String>) {
        self.state().policies.get_or_insert_default().failure = Some((at, HealthProblem::not_ready(reason)));
    }

    /// Sets whether load balancers may send traffic to the node: false if it is deleted, being deleted, or tainted
    /// by the cluster autoscaler. Initially true.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.state().node_eligible = eligible;
    }

    /// Sets or clears a warning about something that a restart would make worse; it fails no health check.
    pub fn warn(&self, warning: Option<String>) {
        self.state().warning = warning;
    }

    /// Replaces the problems of a component. Its name, such as `manifests`, prefixes their texts in the response; an empty
    /// list clears them.
    pub fn set_problems(&self, component: &'static str, problems: Vec<HealthProblem>) {
        self.state().reported.insert(component, problems);
    }

    /// Sets the reader of the problems of a component, whose name prefixes their texts.
    pub fn read_problems(
        &self,
        component: &'static str,
        read: impl Fn() -> Vec<HealthProblem> + Send + Sync + 'static,
    ) {
        self.state().readers.insert(component, Box::new(read));
    }

    /// Sets the first syncs that are held back on purpose.
    pub fn hold_first_syncs(&self, held: FirstSyncsHeld) {
        self.state().held = held;
    }

    /// Sets the reader of the time of the last message from the source: of the kind that has been
    /// silent for longest.
    pub fn watch_source(&self, last_heard: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        self.state().last_heard = Some(Box::new(last_heard));
    }

    /// Returns the health at this time.
    pub fn status(&self, now: Moment) -> HealthStatus {
        let state = self.state();
        let advances = |job| state.progress.advances(job, self.step_limit(&state, job), now);
        let families = state.families.iter();
        let families = families.map(|(family, syncs)| {
            let problem = self.sync_problem(syncs, advances(Job::Services), state.held.services, now);
            (*family, FamilyHealth { last_synced: syncs.last, problem })
        });
        let policies = state.policies.as_ref();
        HealthStatus {
            now,
            families: families.collect(),
            policies: policies.and_then(|syncs| {
                self.sync_problem(syncs, advances(Job::Policies), state.held.policies, now)
            }),
            stalls: state.progress.stalls(|job| self.step_limit(&state, job), now),
            silence: self.silence(&state, now),
            node_eligible: state.node_eligible,
            warning: state.warning.clone(),
            reported: reported(&state),
        }
    }

    /// Returns the time limit for a step of a job: upstream's limit for pending updates, or a longer one for the first sync.
    fn step_limit(&self, state: &State, job: Job) -> Duration {
        let synced = match job {
            Job::Services => state.families.values().all(|syncs| syncs.last.is_some()),
            Job::Policies => state.policies.as_ref().is_some_and(|syncs| syncs.last.is_some()),
        };
        if synced { self.limits.sync } else { self.limits.first_sync }
    }

    /// Returns the problem of these syncs, if any. `advances`: a sync is running and makes progress, which a restart would
    /// only lose. `held`: the first sync is held back on purpose.
    fn sync_problem(&self, syncs: &Syncs, advances: bool, held: bool, now: Moment) -> Option<HealthProblem> {
        let late = |since: Moment, limit: Duration| now.since(since) >= limit;
        match (&syncs.failure, syncs.last, syncs.oldest_queued) {
            (Some((at, reason)), ..) => {
                let text = format!("the last sync failed at {}: {}", at.wall(), reason.text);
                Some(HealthProblem { text, fails: reason.fails })
            }
            (None, None, queued) if !held && late(self.started, self.limits.first_sync) => {
                let text = format!("not synced since the start at {}", self.started.wall());
                // Without a pending update, the proxy is still waiting for the source.
                let stuck = queued.is_some_and(|queued| late(queued, self.limits.first_sync)) && !advances;
                Some(if stuck { HealthProblem::not_live(text) } else { HealthProblem::not_ready(text) })
            }
            (None, Some(_), Some(queued)) if late(queued, self.limits.sync) => {
                let text = format!("changes have been waiting for a sync since {}", queued.wall());
                Some(if advances { HealthProblem::not_ready(text) } else { HealthProblem::not_live(text) })
            }
            _ => None,
        }
    }

    fn silence(&self, state: &State, now: Moment) -> Option<String> {
        let limit = self.limits.silence?;
        let heard = state.last_heard.as_ref().and_then(|last_heard| last_heard());
        let silent_for = now.monotonic().saturating_duration_since(heard.unwrap_or(self.started.monotonic()));
        let seconds = silent_for.as_secs();
        (silent_for >= limit).then(|| match heard {
            Some(_) => format!("no message from the API server for {seconds} s"),
            None => format!("no response from the API server in the {seconds} s since the start"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves complete values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reported(state: &State) -> Vec<HealthProblem> {
    let pushed = state.reported.iter().map(|(component, problems)| (component, problems.clone()));
    let read = state.readers.iter().map(|(component, read)| (component, read()));
    let all = pushed.chain(read).flat_map(|(component, problems)| {
        let named = move |HealthProblem { text, fails }| HealthProblem {
            text: format!("{component}: {text}"),
            fails,
        };
        problems.into_iter().map(named)
    });
    all.collect()
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("limits", &self.limits).finish_non_exhaustive()
    }
}
