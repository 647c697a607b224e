//! Whether the proxy does its work: what the loop reports, and what follows from it.
//!
//! Upstream's rule: a family is unhealthy while an update has been waiting for longer than twice the sync
//! period. Ours beside it, since a proxy whose rules are stale must not look healthy:
//! - a family is unhealthy while its last sync failed;
//! - a family that has never been synced is unhealthy when the time for starting up is over;
//! - the proxy is unhealthy while its source has been silent for too long. A restart cannot help against that, so
//!   `/livez` does not fail;
//! - the proxy is unhealthy while the loop or a thread that programs rules makes no progress ([`progress`](super::progress));
//! - components report [`HealthProblem`]s of their own, each of which says which health checks it fails.
//!
//! The last one does not count where load balancers ask for a Service (`healthCheckNodePort`): they would
//! take every node out of service when the API server is down, though all of them still serve.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Family;

use super::moment::Moment;
use super::problem::{FailedChecks, HealthProblem};
use super::progress::{Job, Progress};
use crate::source::SILENCE_LIMIT;

/// How long things may take before they count as failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a change to the rules that follow it.
    pub sync: Duration,
    /// From the start to the first rules of a family. Longer, for in a large cluster that takes a while.
    pub first_sync: Duration,
    /// Without a word from the API server, which says something at least every minute or so. `None`: the
    /// source may be silent, such as a folder of manifests.
    pub silence: Option<Duration>,
}

impl Limits {
    /// For the first sync.
    pub const FIRST_SYNC: Duration = Duration::from_mins(5);

    /// Upstream's limit, twice the sync period, and for a source that may not fall silent, that of the source.
    pub fn new(sync_period: Duration, source_speaks: bool) -> Self {
        let sync = sync_period.saturating_mul(2);
        let first_sync = sync.max(Self::FIRST_SYNC);
        Limits { sync, first_sync, silence: source_speaks.then_some(SILENCE_LIMIT) }
    }
}

/// Tells when the source was last heard of; `None` if never.
type LastHeard = Box<dyn Fn() -> Option<Instant> + Send + Sync>;

/// Reads the problems of a component that does not push them.
type ReadProblems = Box<dyn Fn() -> Vec<HealthProblem> + Send + Sync>;

/// What is known of the proxy's health. The loop reports to it, HTTP handlers ask it.
pub struct Health {
    limits: Limits,
    started: Moment,
    state: Mutex<State>,
}

struct State {
    families: BTreeMap<Family, Syncs>,
    /// Where policies are enforced.
    policies: Option<Syncs>,
    node_eligible: bool,
    last_heard: Option<LastHeard>,
    warning: Option<String>,
    /// What components reported last, by component.
    reported: BTreeMap<&'static str, Vec<HealthProblem>>,
    progress: Progress,
    /// Components that are asked for their problems, by component.
    read: BTreeMap<&'static str, ReadProblems>,
    held: FirstSyncsHeld,
}

/// Which first syncs are held back on purpose. They are not late: a restart would be held back, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstSyncsHeld {
    /// That of Services.
    pub services: bool,
    /// That of policies.
    pub policies: bool,
}

#[derive(Default)]
struct Syncs {
    last: Option<Moment>,
    oldest_queued: Option<Moment>,
    /// When the last sync failed, and why.
    failure: Option<(Moment, HealthProblem)>,
}

impl Health {
    /// Of a proxy that starts at this time, to serve these families.
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
            read: BTreeMap::new(),
            held: FirstSyncsHeld::default(),
        };
        Health { limits, started, state: Mutex::new(state) }
    }

    /// The loop takes a turn. Once it has, it must do so at least every [`ITERATION_LIMIT`](super::ITERATION_LIMIT).
    pub fn loop_iterated(&self, at: Moment) {
        self.state().progress.iterated(at);
    }

    /// A job starts on a thread.
    pub fn job_started(&self, job: Job, at: Moment) {
        self.state().progress.started(job, at);
    }

    /// A job that runs has finished a step of its work.
    pub fn job_stepped(&self, job: Job, at: Moment) {
        self.state().progress.stepped(job, at);
    }

    /// A job has ended, however it went.
    pub fn job_ended(&self, job: Job) {
        self.state().progress.ended(job);
    }

    /// Something changed, and the rules of this family do not follow it yet.
    pub fn queued_update(&self, family: Family, at: Moment) {
        self.state().families.entry(family).or_default().oldest_queued.get_or_insert(at);
    }

    /// The rules of this family follow everything that changed.
    pub fn synced(&self, family: Family, at: Moment) {
        self.state().families.insert(family, Syncs { last: Some(at), ..Syncs::default() });
    }

    /// The rules of this family could not be written.
    pub fn sync_failed(&self, family: Family, at: Moment, reason: impl Into<String>) {
        self.state().families.entry(family).or_default().failure =
            Some((at, HealthProblem::not_live(reason)));
    }

    /// Policies are to be enforced, too.
    pub fn expect_policies(&self) {
        self.state().policies.get_or_insert_default();
    }

    /// The policies that are enforced follow everything that changed.
    pub fn policies_synced(&self, at: Moment) {
        self.state().policies = Some(Syncs { last: Some(at), ..Syncs::default() });
    }

    /// Policies could not be enforced as they are.
    pub fn policies_failed(&self, at: Moment, reason: impl Into<String>) {
        self.state().policies.get_or_insert_default().failure = Some((at, HealthProblem::not_live(reason)));
    }

    /// Policies are enforced but for what takes a fact that the cluster does not give, which a restart does not change.
    pub fn policies_incomplete(&self, at: Moment, reason: impl Into<String>) {
        self.state().policies.get_or_insert_default().failure = Some((at, HealthProblem::not_ready(reason)));
    }

    /// Whether load balancers may send traffic to the node: it is not deleted, being deleted, or tainted
    /// by the cluster autoscaler. True until said otherwise.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.state().node_eligible = eligible;
    }

    /// Something is wrong that a restart would make worse, or that is not any more; health is as it was.
    pub fn warn(&self, warning: Option<String>) {
        self.state().warning = warning;
    }

    /// Replaces the problems that a component reported before. `component` prefixes their texts in the answer, such as
    /// `manifests`; an empty list ends all of them.
    pub fn set_problems(&self, component: &'static str, problems: Vec<HealthProblem>) {
        self.state().reported.insert(component, problems);
    }

    /// From now on, asks this for the problems of a component, whose name prefixes their texts.
    pub fn read_problems(
        &self,
        component: &'static str,
        read: impl Fn() -> Vec<HealthProblem> + Send + Sync + 'static,
    ) {
        self.state().read.insert(component, Box::new(read));
    }

    /// Says which first syncs are held back on purpose.
    pub fn hold_first_syncs(&self, held: FirstSyncsHeld) {
        self.state().held = held;
    }

    /// From now on, asks this when the source was last heard of: of its kinds, the one that has been
    /// silent for longest.
    pub fn watch_source(&self, last_heard: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        self.state().last_heard = Some(Box::new(last_heard));
    }

    /// What is known, judged at this time.
    pub fn status(&self, now: Moment) -> HealthStatus {
        let state = self.state();
        let advances = |job| state.progress.advances(job, self.step_limit(&state, job), now);
        let families = state.families.iter();
        let families = families.map(|(family, syncs)| {
            let problem = self.judge(syncs, advances(Job::Services), state.held.services, now);
            (*family, FamilyHealth { last_synced: syncs.last, problem })
        });
        let policies = state.policies.as_ref();
        HealthStatus {
            now,
            families: families.collect(),
            policies: policies
                .and_then(|syncs| self.judge(syncs, advances(Job::Policies), state.held.policies, now)),
            stalls: state.progress.stalls(|job| self.step_limit(&state, job), now),
            silence: self.silence(&state, now),
            node_eligible: state.node_eligible,
            warning: state.warning.clone(),
            reported: reported(&state),
        }
    }

    /// How long a job may take for a step: as long as upstream lets an update wait, and longer for the first sync.
    fn step_limit(&self, state: &State, job: Job) -> Duration {
        let synced = match job {
            Job::Services => state.families.values().all(|syncs| syncs.last.is_some()),
            Job::Policies => state.policies.as_ref().is_some_and(|syncs| syncs.last.is_some()),
        };
        if synced { self.limits.sync } else { self.limits.first_sync }
    }

    /// What is wrong. `advances`: a sync runs and makes progress, so a restart would only lose what it has done. `held`: the
    /// first sync is held back on purpose.
    fn judge(&self, syncs: &Syncs, advances: bool, held: bool, now: Moment) -> Option<HealthProblem> {
        let late = |since: Moment, limit: Duration| now.since(since) >= limit;
        match (&syncs.failure, syncs.last, syncs.oldest_queued) {
            (Some((at, reason)), ..) => {
                let text = format!("the last sync failed at {}: {}", at.wall(), reason.text);
                Some(HealthProblem { text, fails: reason.fails })
            }
            (None, None, queued) if !held && late(self.started, self.limits.first_sync) => {
                let text = format!("not synced since the start at {}", self.started.wall());
                // Before anything is to be synced, it is the source that is waited for.
                let stuck = queued.is_some_and(|queued| late(queued, self.limits.first_sync)) && !advances;
                Some(if stuck { HealthProblem::not_live(text) } else { HealthProblem::not_ready(text) })
            }
            (None, Some(_), Some(queued)) if late(queued, self.limits.sync) => {
                let text = format!("changes wait for a sync since {}", queued.wall());
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
            Some(_) => format!("nothing was heard from the API server for {seconds} s"),
            None => format!("the API server has not answered in the {seconds} s since the start"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it is held leaves whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reported(state: &State) -> Vec<HealthProblem> {
    let pushed = state.reported.iter().map(|(component, problems)| (component, problems.clone()));
    let read = state.read.iter().map(|(component, read)| (component, read()));
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

/// The proxy's health at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// That time.
    pub now: Moment,
    /// The families that are served.
    pub families: BTreeMap<Family, FamilyHealth>,
    /// What is wrong with the policies that are enforced, if anything. Services are served all the same, so load
    /// balancers are not told.
    pub policies: Option<HealthProblem>,
    /// What of the proxy makes no progress.
    pub stalls: Vec<String>,
    /// What is wrong with the source, if it has been silent for too long.
    pub silence: Option<String>,
    /// Whether load balancers may send traffic to the node.
    pub node_eligible: bool,
    /// What is wrong though all is well so far.
    pub warning: Option<String>,
    /// What components report, each with its component's name.
    pub reported: Vec<HealthProblem>,
}

/// The health of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyHealth {
    /// When its rules were last synced.
    pub last_synced: Option<Moment>,
    /// What is wrong with its rules.
    pub problem: Option<HealthProblem>,
}

impl HealthStatus {
    /// The rules are what they should be, as far as is known. This is what load balancers are told that
    /// ask for a Service.
    pub fn in_sync(&self) -> bool {
        self.families.values().all(|family| family.problem.is_none())
    }

    /// The rules are what they should be, and what is known is fresh.
    pub fn healthy(&self) -> bool {
        self.stalls.is_empty() && self.silence.is_none() && !self.any_fails(FailedChecks::Healthz)
    }

    /// Nothing is wrong that a restart might help against.
    pub fn live(&self) -> bool {
        self.stalls.is_empty() && !self.any_fails(FailedChecks::HealthzAndLivez)
    }

    fn any_fails(&self, check: FailedChecks) -> bool {
        let families = self.families.values().filter_map(|family| family.problem.as_ref());
        families.chain(&self.policies).chain(&self.reported).any(|problem| problem.fails >= check)
    }

    /// When any family was last synced.
    pub fn last_synced(&self) -> Option<Moment> {
        self.families.values().filter_map(|family| family.last_synced).max_by_key(|at| at.monotonic())
    }

    /// What is wrong, if anything.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let of_families = self.families.iter();
        let of_families = of_families.filter_map(|(family, v)| {
            v.problem.as_ref().map(|problem| format!("{family}: {}", problem.text))
        });
        let policies = self.policies.iter().map(|problem| format!("NetworkPolicy: {}", problem.text));
        let reported = self.reported.iter().map(|problem| problem.text.clone());
        let all = of_families.chain(policies).chain(self.stalls.iter().cloned());
        all.chain(self.silence.clone()).chain(reported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};
    use What::{Eligible, Ended, Failed, Heard, Queued, Started, Stepped, Synced, Turned};

    enum What {
        Queued(Family),
        Synced(Family),
        Failed(Family),
        Heard,
        Eligible(bool),
        Turned,
        Started,
        Stepped,
        Ended,
    }

    /// What the verdict is: in sync, healthy, live, eligible.
    type Expected = (bool, bool, bool, bool);

    const GOOD: Expected = (true, true, true, true);
    const BAD: Expected = (false, false, false, true);
    const UNREADY: Expected = (false, false, true, true);
    const STALLED: Expected = (true, false, false, true);

    /// With a sync limit of 60 s, and 300 s for the first sync and for silence. Times are seconds since the
    /// start.
    fn verdict(events: &[(u64, What)], at: u64) -> HealthStatus {
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
                Turned => health.loop_iterated(second(*time)),
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
        let then = |more: Vec<(u64, What)>| up().into_iter().chain(more).collect::<Vec<_>>();
        type Row = (&'static str, Vec<(u64, What)>, u64, Expected);
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
            ("the loop turns", then(vec![(10, Turned), (50, Turned)]), 109, GOOD),
            ("the loop hangs", then(vec![(10, Turned), (50, Turned)]), 110, STALLED),
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
            let verdict = verdict(&events, at);
            let found = (verdict.in_sync(), verdict.healthy(), verdict.live(), verdict.node_eligible);
            assert_eq!(found, expected, "{name}: {verdict:?}");
            assert_eq!(verdict.problems().next().is_none(), expected.1, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn policies_that_are_not_enforced_are_told_though_services_are_served() {
        type SyncResult = fn(&Health, Moment);
        let failed: SyncResult = |health, at| health.policies_failed(at, "the table is another's");
        let incomplete: SyncResult = |health, at| health.policies_incomplete(at, "no pod CIDRs");
        let synced: SyncResult = |health, at| health.policies_synced(at);
        // What is reported of them when, what is wrong with them at a time, and whether a restart may not help.
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
            let verdict = health.status(second(at));
            assert!(verdict.in_sync(), "{name}: load balancers are not told");
            assert_eq!(verdict.healthy(), problem.is_none(), "{name}: {verdict:?}");
            assert_eq!(verdict.live(), live, "{name}: {verdict:?}");
            let told = verdict.policies.as_ref().map(|problem| problem.text.as_str());
            assert_eq!(told.is_some(), problem.is_some(), "{name}: {told:?}");
            assert!(
                problem.is_none_or(|words| told.is_some_and(|t| t.starts_with(words))),
                "{name}: {told:?}"
            );
        }
    }

    #[test]
    fn reported_problems_fail_what_they_say() {
        let (warning, unready, dead) = (
            || HealthProblem::warning("w"),
            || HealthProblem::not_ready("u"),
            || HealthProblem::not_live("d"),
        );
        // What two components report, and whether the proxy is healthy and live, and its problems.
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
            let verdict = health.status(start);
            assert_eq!((verdict.healthy(), verdict.live()), (healthy, live), "{problems:?}");
            assert_eq!(verdict.problems().collect::<Vec<_>>(), problems);
            assert!(verdict.in_sync(), "healthCheckNodePorts are not affected");
        }
    }

    #[test]
    fn a_source_that_may_be_silent_is_never_too_silent() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
        health.synced(V4, start);
        assert!(health.status(start + Duration::from_secs(1_000_000)).healthy());
    }

    #[test]
    fn a_first_sync_that_is_held_back_is_not_late() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [V4], start);
        health.expect_policies();
        health.hold_first_syncs(FirstSyncsHeld { services: true, policies: true });
        health.read_problems("first sync", || vec![HealthProblem::not_ready("held back")]);
        let verdict = health.status(start + Duration::from_secs(1000));
        assert_eq!((verdict.live(), verdict.in_sync(), verdict.healthy()), (true, true, false));
        assert_eq!(verdict.problems().collect::<Vec<_>>(), ["first sync: held back"]);
        health.hold_first_syncs(FirstSyncsHeld { services: false, policies: true });
        assert!(!health.status(start + Duration::from_secs(1000)).in_sync());
    }

    #[test]
    fn problems_say_what_and_since_when() {
        let all = |events: &[(u64, What)], at| verdict(events, at).problems().collect::<Vec<_>>().join("; ");
        assert!(all(&[(5, Failed(V4))], 6).starts_with("IPv4: the last sync failed at 2"));
        assert!(all(&[(5, Failed(V4))], 6).ends_with(": iptables-restore: no"));
        let silent = all(&[(1, Synced(V4)), (1, Synced(V6))], 400);
        assert_eq!(silent, "the API server has not answered in the 400 s since the start");
    }
}
