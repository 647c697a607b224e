//! Health of the proxy.
//!
//! The loop updates [`Health`] from the statuses of its controllers; the HTTP handlers read its [`HealthStatus`].
//!
//! Upstream's rule: an IP family is unhealthy while an update has been pending for longer than twice the sync
//! period. Portcullis applies it to the rules of all controllers, and adds rules, because a proxy with stale rules must
//! not look healthy:
//! - rules are unhealthy while their last sync failed;
//! - rules that have never been synced are unhealthy after the limit for the first sync;
//! - the proxy is unhealthy while its source has been silent for too long. A restart does not help, so
//!   `/livez` does not fail;
//! - the proxy is unhealthy while the loop or the work of a controller makes no progress ([`Progress`]);
//! - components report [`HealthProblem`]s, each with the health checks that it fails.
//!
//! Only the syncs of Services affect `healthCheckNodePort`: otherwise load balancers would
//! take all nodes out of service when the API server is down, although all of them still serve.

mod problem;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control::{ControllerName, Progress, SyncHistory};
use crate::moment::Moment;
use crate::source::SILENCE_LIMIT;
pub use problem::{FailedChecks, HealthProblem};
pub use status::{HealthStatus, RulesHealth};

/// The time for which syncs must fail until a restart may help. Before that, a retry is likely to succeed, for example after
/// another process changed the rules during a sync.
const RESTART_DELAY: Duration = Duration::from_secs(15);

/// Time limits after which delays count as failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Limit from a change to the sync of its rules.
    pub sync: Duration,
    /// Limit from the start to the first sync. Longer, because it takes a while in large clusters.
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
    progress: Arc<Progress>,
    state: Mutex<State>,
}

struct State {
    controllers: Vec<ControllerSyncs>,
    node_eligible: bool,
    last_heard: Option<LastHeard>,
    warning: Option<String>,
    /// Problems last reported by each component.
    reported: BTreeMap<&'static str, Vec<HealthProblem>>,
    /// Readers of the problems of components.
    readers: BTreeMap<&'static str, ReadProblems>,
}

/// The syncs of a controller.
struct ControllerSyncs {
    name: ControllerName,
    histories: Vec<SyncHistory>,
    /// The first sync is held back on purpose. It does not count as late: after a restart it would be held back again.
    is_held_back: bool,
}

impl ControllerSyncs {
    fn is_synced(&self) -> bool {
        self.histories.iter().all(|history| history.last_success.is_some())
    }
}

impl Health {
    /// Creates the health of a proxy that starts now. Its loop and threads record `progress`.
    pub fn new(limits: Limits, started: Moment, progress: Arc<Progress>) -> Self {
        let state = State {
            controllers: Vec::new(),
            node_eligible: true,
            last_heard: None,
            warning: None,
            reported: BTreeMap::new(),
            readers: BTreeMap::new(),
        };
        Health { limits, started, progress, state: Mutex::new(state) }
    }

    /// Sets the syncs of a controller. Its rules count from the first call on, so it is first called before the controller
    /// runs. `is_held_back`: its first sync is held back on purpose.
    pub fn set_syncs(&self, name: ControllerName, histories: Vec<SyncHistory>, is_held_back: bool) {
        let mut state = self.state();
        let syncs = ControllerSyncs { name, histories, is_held_back };
        match state.controllers.iter_mut().find(|controller| controller.name == name) {
            Some(controller) => *controller = syncs,
            None => state.controllers.push(syncs),
        }
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

    /// Sets the reader of the time of the last message from the source: of the kind that has been
    /// silent for longest.
    pub fn watch_source(&self, last_heard: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        self.state().last_heard = Some(Box::new(last_heard));
    }

    /// Returns the health at this time.
    pub fn status(&self, now: Moment) -> HealthStatus {
        let state = self.state();
        let limit = |name| self.step_limit(&state, name);
        let rules = state.controllers.iter().flat_map(|controller| {
            let advances = self.progress.advances(controller.name, limit(controller.name), now);
            controller.histories.iter().map(move |history| RulesHealth {
                rules: history.rules,
                is_service_proxy: controller.name.is_service_proxy,
                last_synced: history.last_success,
                problem: self.sync_problem(history, advances, controller.is_held_back, now),
            })
        });
        HealthStatus {
            now,
            rules: rules.collect(),
            stalls: self.progress.stalls(limit, now),
            silence: self.silence(&state, now),
            node_eligible: state.node_eligible,
            warning: state.warning.clone(),
            reported: reported(&state),
        }
    }

    /// Returns the time limit for a step of a controller's work: upstream's limit for pending updates, or a longer one for
    /// the first sync.
    fn step_limit(&self, state: &State, name: ControllerName) -> Duration {
        let mut controllers = state.controllers.iter();
        let is_synced =
            controllers.find(|controller| controller.name == name).is_some_and(ControllerSyncs::is_synced);
        if is_synced { self.limits.sync } else { self.limits.first_sync }
    }

    /// Returns the problem of these syncs, if any. `advances`: a sync is running and makes progress, which a restart would
    /// only lose. `is_held_back`: the first sync is held back on purpose.
    fn sync_problem(
        &self,
        syncs: &SyncHistory,
        advances: bool,
        is_held_back: bool,
        now: Moment,
    ) -> Option<HealthProblem> {
        let late = |since: Moment, limit: Duration| now.since(since) >= limit;
        match (&syncs.failure, syncs.last_success, syncs.oldest_change) {
            (Some(failure), ..) => {
                let text = format!("the last sync failed at {}: {}", failure.at.wall(), failure.error);
                let is_persistent = syncs.failing_since.is_some_and(|since| late(since, RESTART_DELAY));
                let may_help = failure.may_restart_help && is_persistent;
                Some(if may_help { HealthProblem::not_live(text) } else { HealthProblem::not_ready(text) })
            }
            (None, None, queued) if !is_held_back && late(self.started, self.limits.first_sync) => {
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
