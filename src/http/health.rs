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

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Family;

use super::moment::Moment;
use super::problem::{FailedChecks, HealthProblem};
use super::progress::{Job, Progress};
use crate::source::SILENCE_LIMIT;

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
    /// [`ITERATION_LIMIT`](super::ITERATION_LIMIT).
    pub fn loop_iterated(&self, at: Moment) {
        self.state().progress.iterated(at);
    }

    /// Records the start of a job.
    pub fn job_started(&self, job: Job, at: Moment) {
        self.state().progress.started(job, at);
    }

    /// Records that a running job has finished a step.
    pub fn job_stepped(&self, job: Job, at: Moment) {
        self.state().progress.stepped(job, at);
    }

    /// Records the end of a job, successful or not.
    pub fn job_ended(&self, job: Job) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};
    use TestEvent::{Eligible, Ended, Failed, Heard, Iterated, Queued, Started, Stepped, Synced};

    enum TestEvent {
        Queued(Family),
        Synced(Family),
        Failed(Family),
        Heard,
        Eligible(bool),
        Iterated,
        Started,
        Stepped,
        Ended,
    }

    /// Expected status: in sync, healthy, live, eligible.
    type Expected = (bool, bool, bool, bool);

    const GOOD: Expected = (true, true, true, true);
    const BAD: Expected = (false, false, false, true);
    const UNREADY: Expected = (false, false, true, true);
    const STALLED: Expected = (true, false, false, true);

    /// Returns the status with a sync limit of 60 s, and 300 s for the first sync and for silence. Times are seconds since
    /// the start.
    fn status(events: &[(u64, TestEvent)], at: u64) -> HealthStatus {
        let start = Moment::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let health = Health::new(Limits::new(Duration::from_secs(30), true), Family::BOTH, start);
        let heard: std::sync::Arc<Mutex<Option<Instant>>> = Default::default();
        let shared = heard.clone();
        health.watch_source(move || *shared.lock().expect("no panic"));
        for (time, what) in events {
            match what {
                Queued(family) => health.queued_update(*family, second(*time)),
                Synced(family) => health.synced(*family, second(*time)),
                Failed(family) => health.sync_failed(*family, second(*time), "iptables-restore: no"),
                Heard => *heard.lock().expect("no panic") = Some(second(*time).monotonic()),
                Eligible(eligible) => health.set_node_eligible(*eligible),
                Iterated => health.loop_iterated(second(*time)),
                Started => health.job_started(Job::Services, second(*time)),
                Stepped => health.job_stepped(Job::Services, second(*time)),
                Ended => health.job_ended(Job::Services),
            }
        }
        health.status(second(at))
    }

    #[test]
    fn rules() {
        let up = || vec![(1, Heard), (2, Synced(V4)), (2, Synced(V6))];
        let then = |more: Vec<(u64, TestEvent)>| up().into_iter().chain(more).collect::<Vec<_>>();
        type Row = (&'static str, Vec<(u64, TestEvent)>, u64, Expected);
        let rows: Vec<Row> = vec![
            ("starting", vec![], 299, GOOD),
            ("starting, and heard of the source", vec![(1, Heard)], 299, GOOD),
            ("never heard of the source, never synced", vec![], 300, UNREADY),
            ("one family is never synced", vec![(1, Heard), (2, Synced(V4)), (250, Heard)], 300, UNREADY),
            ("the first sync never starts", vec![(1, Queued(V4)), (250, Heard)], 301, BAD),
            ("the first sync takes long", vec![(1, Queued(V4)), (2, Started), (250, Heard)], 301, UNREADY),
            ("the first sync hangs", vec![(1, Queued(V4)), (2, Started), (250, Heard)], 302, BAD),
            (
                "the first sync takes long in steps",
                vec![(1, Queued(V4)), (2, Started), (250, Stepped), (400, Stepped), (401, Heard)],
                699,
                UNREADY,
            ),
            ("updates wait for the first sync", vec![(1, Heard), (2, Queued(V4))], 200, GOOD),
            ("synced, nothing changes", up(), 200, GOOD),
            ("an update waits", then(vec![(10, Queued(V4))]), 69, GOOD),
            ("an update waits too long", then(vec![(10, Queued(V4))]), 70, BAD),
            ("a sync takes long", then(vec![(10, Queued(V4)), (11, Started)]), 70, UNREADY),
            ("a sync hangs", then(vec![(10, Queued(V4)), (11, Started)]), 71, BAD),
            (
                "a sync takes long in steps",
                then(vec![(10, Queued(V4)), (11, Started), (60, Stepped), (110, Stepped)]),
                169,
                UNREADY,
            ),
            ("a check hangs", then(vec![(10, Started)]), 70, STALLED),
            ("a check has ended", then(vec![(10, Started), (11, Ended)]), 70, GOOD),
            ("the loop iterates", then(vec![(10, Iterated), (50, Iterated)]), 109, GOOD),
            ("the loop hangs", then(vec![(10, Iterated), (50, Iterated)]), 110, STALLED),
            ("the oldest counts", then(vec![(10, Queued(V4)), (60, Queued(V4))]), 70, BAD),
            ("either family counts", then(vec![(10, Queued(V6)), (60, Synced(V4))]), 70, BAD),
            ("synced again", then(vec![(10, Queued(V4)), (80, Synced(V4))]), 90, GOOD),
            (
                "queued after a sync",
                then(vec![(10, Queued(V4)), (11, Synced(V4)), (60, Queued(V4))]),
                119,
                GOOD,
            ),
            ("a sync fails", then(vec![(10, Failed(V4))]), 10, BAD),
            ("the first sync fails", vec![(1, Heard), (2, Failed(V6))], 2, BAD),
            ("a sync fails, the next does not", then(vec![(10, Failed(V4)), (12, Synced(V4))]), 12, GOOD),
            ("the other family is synced", then(vec![(10, Failed(V4)), (12, Synced(V6))]), 12, BAD),
            ("the source is quiet", up(), 300, GOOD),
            ("the source is silent", up(), 301, (true, false, true, true)),
            ("the source is silent, and a sync fails", then(vec![(301, Failed(V4))]), 302, BAD),
            ("the source speaks again", then(vec![(302, Heard)]), 303, GOOD),
            ("the node goes away", then(vec![(3, Eligible(false))]), 4, (true, true, true, false)),
            ("the node stays", then(vec![(3, Eligible(false)), (4, Eligible(true))]), 5, GOOD),
        ];
        for (name, events, at, expected) in rows {
            let status = status(&events, at);
            let found = (status.in_sync(), status.healthy(), status.live(), status.node_eligible);
            assert_eq!(found, expected, "{name}: {status:?}");
            assert_eq!(status.problems().next().is_none(), expected.1, "{name}: {status:?}");
        }
    }

    #[test]
    fn policies_that_are_not_enforced_fail_health_but_not_health_check_node_ports() {
        type SyncResult = fn(&Health, Moment);
        let failed: SyncResult = |health, at| health.policies_failed(at, "the table is another's");
        let incomplete: SyncResult = |health, at| health.policies_incomplete(at, "no pod CIDRs");
        let synced: SyncResult = |health, at| health.policies_synced(at);
        // Name, reports with their time, time of the check, expected problem, and whether /livez succeeds.
        type Row<'a> = (&'a str, &'a [(u64, SyncResult)], u64, Option<&'a str>, bool);
        let rows: [Row<'_>; 6] = [
            ("starting", &[], 299, None, true),
            ("never enforced", &[], 300, Some("not synced since the start at "), true),
            ("failed", &[(2, failed)], 2, Some("the last sync failed at "), false),
            ("incomplete", &[(2, incomplete)], 2, Some("the last sync failed at "), true),
            ("failed, then not", &[(2, failed), (3, synced)], 1000, None, true),
            ("not, then failed", &[(2, synced), (3, failed)], 4, Some("the last sync failed at "), false),
        ];
        for (name, reports, at, problem, live) in rows {
            let start = Moment::now();
            let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
            health.expect_policies();
            health.synced(V4, start);
            let second = |seconds| start + Duration::from_secs(seconds);
            reports.iter().for_each(|(time, report)| report(&health, second(*time)));
            let status = health.status(second(at));
            assert!(status.in_sync(), "{name}: healthCheckNodePorts are not affected");
            assert_eq!(status.healthy(), problem.is_none(), "{name}: {status:?}");
            assert_eq!(status.live(), live, "{name}: {status:?}");
            let text = status.policies.as_ref().map(|problem| problem.text.as_str());
            assert_eq!(text.is_some(), problem.is_some(), "{name}: {text:?}");
            assert!(
                problem.is_none_or(|words| text.is_some_and(|t| t.starts_with(words))),
                "{name}: {text:?}"
            );
        }
    }

    #[test]
    fn reported_problems_fail_their_health_checks() {
        let (warning, unready, dead) = (
            || HealthProblem::warning("w"),
            || HealthProblem::not_ready("u"),
            || HealthProblem::not_live("d"),
        );
        // Problems of two components, whether /healthz and /livez succeed, and the problems in the response.
        type Row<'a> = (Vec<HealthProblem>, Vec<HealthProblem>, [bool; 2], &'a [&'a str]);
        let rows: [Row<'_>; 5] = [
            (vec![], vec![], [true, true], &[]),
            (vec![warning()], vec![], [true, true], &["a: w"]),
            (vec![warning()], vec![unready()], [false, true], &["a: w", "b: u"]),
            (vec![dead()], vec![warning(), unready()], [false, false], &["a: d", "b: w", "b: u"]),
            (vec![], vec![unready()], [false, true], &["b: u"]),
        ];
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
        health.synced(V4, start);
        for (a, b, [healthy, live], problems) in rows {
            health.set_problems("a", a);
            health.set_problems("b", b);
            let status = health.status(start);
            assert_eq!((status.healthy(), status.live()), (healthy, live), "{problems:?}");
            assert_eq!(status.problems().collect::<Vec<_>>(), problems);
            assert!(status.in_sync(), "healthCheckNodePorts are not affected");
        }
    }

    #[test]
    fn silence_of_a_manifest_source_is_no_problem() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
        health.synced(V4, start);
        assert!(health.status(start + Duration::from_secs(1_000_000)).healthy());
    }

    #[test]
    fn a_first_sync_that_is_held_back_does_not_count_as_late() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
        health.expect_policies();
        health.hold_first_syncs(FirstSyncsHeld { services: true, policies: true });
        health.read_problems("first sync", || vec![HealthProblem::not_ready("held back")]);
        let status = health.status(start + Duration::from_secs(1000));
        assert_eq!((status.live(), status.in_sync(), status.healthy()), (true, true, false));
        assert_eq!(status.problems().collect::<Vec<_>>(), ["first sync: held back"]);
        health.hold_first_syncs(FirstSyncsHeld { services: false, policies: true });
        assert!(!health.status(start + Duration::from_secs(1000)).in_sync());
    }

    #[test]
    fn problems_name_the_family_and_the_time() {
        let all =
            |events: &[(u64, TestEvent)], at| status(events, at).problems().collect::<Vec<_>>().join("; ");
        assert!(all(&[(5, Failed(V4))], 6).starts_with("IPv4: the last sync failed at 2"));
        assert!(all(&[(5, Failed(V4))], 6).ends_with(": iptables-restore: no"));
        let silent = all(&[(1, Synced(V4)), (1, Synced(V6))], 400);
        assert_eq!(silent, "no response from the API server in the 400 s since the start");
    }
}
