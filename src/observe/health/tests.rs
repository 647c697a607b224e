//! Tests of the rules of health.

use portcullis_cluster::Family::{self, V4, V6};

use super::*;
use crate::control::SyncFailure;
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

const SERVICES: ControllerName = ControllerName::SERVICES;

fn failure(at: Moment, error: &str, may_restart_help: bool) -> SyncFailure {
    SyncFailure { at, error: error.to_owned(), may_restart_help }
}

/// Returns the health of a proxy that starts now, with its progress.
fn start(source_sends_regularly: bool, start: Moment) -> (Health, Arc<Progress>) {
    let progress = Arc::<Progress>::default();
    let limits = Limits::new(Duration::from_secs(30), source_sends_regularly);
    (Health::new(limits, start, Arc::clone(&progress)), progress)
}

/// Returns a history of rules that were synced at this time.
fn synced(rules: &'static str, at: Moment) -> SyncHistory {
    SyncHistory { last_success: Some(at), ..SyncHistory::new(rules) }
}

/// Returns the health of a proxy of IPv4 Services that starts now and is synced.
fn synced_proxy(now: Moment) -> Health {
    let (health, _) = start(false, now);
    health.set_syncs(SERVICES, vec![synced("IPv4", now)], false);
    health
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
    let begin = Moment::now();
    let second = |seconds| begin + Duration::from_secs(seconds);
    let (health, progress) = start(true, begin);
    let mut syncs = Family::BOTH.map(|family| SyncHistory::new(family.as_str()));
    health.set_syncs(SERVICES, syncs.to_vec(), false);
    let heard: std::sync::Arc<Mutex<Option<Instant>>> = Default::default();
    let shared = heard.clone();
    health.watch_source(move || *shared.lock().expect("no panic"));
    for (time, what) in events {
        let at = second(*time);
        let mut update = |family: &Family, update: &dyn Fn(&mut SyncHistory)| {
            syncs.iter_mut().filter(|history| history.rules == family.as_str()).for_each(update);
            health.set_syncs(SERVICES, syncs.to_vec(), false);
        };
        match what {
            Queued(family) => update(family, &|history| history.change_queued(at)),
            Synced(family) => update(family, &|history| history.succeeded(at)),
            Failed(family) => {
                update(family, &|history| history.failed(failure(at, "iptables-restore: no", true)))
            }
            Heard => *heard.lock().expect("no panic") = Some(at.monotonic()),
            Eligible(eligible) => health.set_node_eligible(*eligible),
            Iterated => progress.iterated(at),
            Started => progress.started(SERVICES, at),
            Stepped => progress.stepped(SERVICES, at),
            Ended => progress.ended(SERVICES),
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
        ("queued after a sync", then(vec![(10, Queued(V4)), (11, Synced(V4)), (60, Queued(V4))]), 119, GOOD),
        ("a sync fails", then(vec![(10, Failed(V4))]), 10, UNREADY),
        ("a sync fails, and is not repeated", then(vec![(10, Failed(V4))]), 25, BAD),
        (
            "syncs fail for some seconds",
            then(vec![(10, Failed(V4)), (11, Failed(V4)), (23, Failed(V4))]),
            24,
            UNREADY,
        ),
        ("syncs keep failing", then(vec![(10, Failed(V4)), (11, Failed(V4)), (24, Failed(V4))]), 25, BAD),
        ("a sync fails again", then(vec![(10, Failed(V4)), (12, Synced(V4)), (24, Failed(V4))]), 26, UNREADY),
        ("the first sync fails", vec![(1, Heard), (2, Failed(V6))], 2, UNREADY),
        ("the first syncs keep failing", vec![(1, Heard), (2, Failed(V6))], 17, BAD),
        ("a sync fails, the next does not", then(vec![(10, Failed(V4)), (12, Synced(V4))]), 12, GOOD),
        ("the other family is synced", then(vec![(10, Failed(V4)), (12, Synced(V6))]), 12, UNREADY),
        ("the source is quiet", up(), 300, GOOD),
        ("the source is silent", up(), 301, (true, false, true, true)),
        ("the source is silent, and a sync fails", then(vec![(301, Failed(V4))]), 302, UNREADY),
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
    type SyncUpdate = fn(&mut SyncHistory, Moment);
    let failed: SyncUpdate = |syncs, at| syncs.failed(failure(at, "the table is another's", true));
    let incomplete: SyncUpdate = |syncs, at| syncs.failed(failure(at, "no pod CIDRs", false));
    let synced: SyncUpdate = SyncHistory::succeeded;
    // Name, reports with their time, time of the check, expected problem, and whether /livez succeeds.
    type Row<'a> = (&'a str, &'a [(u64, SyncUpdate)], u64, Option<&'a str>, bool);
    let rows: [Row<'_>; 6] = [
        ("starting", &[], 299, None, true),
        ("never enforced", &[], 300, Some("not synced since the start at "), true),
        ("failed", &[(2, failed)], 17, Some("the last sync failed at "), false),
        ("incomplete", &[(2, incomplete)], 17, Some("the last sync failed at "), true),
        ("failed, then not", &[(2, failed), (3, synced)], 1000, None, true),
        ("not, then failed", &[(2, synced), (3, failed)], 4, Some("the last sync failed at "), true),
    ];
    for (name, reports, at, problem, live) in rows {
        let start = Moment::now();
        let health = synced_proxy(start);
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut syncs = SyncHistory::new("NetworkPolicy");
        reports.iter().for_each(|(time, report)| report(&mut syncs, second(*time)));
        health.set_syncs(ControllerName::POLICIES, vec![syncs], false);
        let status = health.status(second(at));
        assert!(status.in_sync(), "{name}: healthCheckNodePorts are not affected");
        assert_eq!(status.healthy(), problem.is_none(), "{name}: {status:?}");
        assert_eq!(status.live(), live, "{name}: {status:?}");
        let policies = status.rules.iter().find(|rules| !rules.is_service_proxy).expect("policies");
        let text = policies.problem.as_ref().map(|problem| problem.text.as_str());
        assert_eq!(text.is_some(), problem.is_some(), "{name}: {text:?}");
        assert!(problem.is_none_or(|words| text.is_some_and(|t| t.starts_with(words))), "{name}: {text:?}");
    }
}

#[test]
fn reported_problems_fail_their_health_checks() {
    let (warning, unready, dead) =
        (|| HealthProblem::warning("w"), || HealthProblem::not_ready("u"), || HealthProblem::not_live("d"));
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
    let health = synced_proxy(start);
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
    let health = synced_proxy(start);
    assert!(health.status(start + Duration::from_secs(1_000_000)).healthy());
}

#[test]
fn a_first_sync_that_is_held_back_does_not_count_as_late() {
    let begin = Moment::now();
    let (health, _) = start(false, begin);
    let never = || vec![SyncHistory::new("rules")];
    health.set_syncs(SERVICES, never(), true);
    health.set_syncs(ControllerName::POLICIES, never(), true);
    health.read_problems("first sync", || vec![HealthProblem::not_ready("held back")]);
    let status = health.status(begin + Duration::from_secs(1000));
    assert_eq!((status.live(), status.in_sync(), status.healthy()), (true, true, false));
    assert_eq!(status.problems().collect::<Vec<_>>(), ["first sync: held back"]);
    health.set_syncs(SERVICES, never(), false);
    assert!(!health.status(begin + Duration::from_secs(1000)).in_sync());
}

#[test]
fn problems_name_the_family_and_the_time() {
    let all = |events: &[(u64, TestEvent)], at| status(events, at).problems().collect::<Vec<_>>().join("; ");
    assert!(all(&[(5, Failed(V4))], 6).starts_with("IPv4: the last sync failed at 2"));
    assert!(all(&[(5, Failed(V4))], 6).ends_with(": iptables-restore: no"));
    let silent = all(&[(1, Synced(V4)), (1, Synced(V6))], 400);
    assert_eq!(silent, "no response from the API server in the 400 s since the start");
}
