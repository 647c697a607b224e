//! Tests of flows that wait for rules or for a retry, and of syncs without a listing.

use portcullis_cluster::Family as Of;
use portcullis_modes::{IsolatedService, IsolationCause, SyncError, SyncErrorKind, SyncResult};
use portcullis_netlink::Family;
use portcullis_netlink::conntrack::Flow;

use crate::cluster::{Cluster, Reading, UDP};
use crate::flows::{MemoryTable, TestFlowTable, flows, successful_result, written};

const V4: Reading = Reading { family: Family::V4, udp_is: UDP };
const BEFORE: &str = "game udp 10.96.5.4:7777 -> 10.244.1.10:7777\nother udp 10.96.5.5:53 -> 10.244.1.11:53";
const AFTER: &str = "game udp 10.96.5.4:7777 ->\nother udp 10.96.5.5:53 ->";
const FLOWS: &str = "- udp 10.96.5.4:7777 <- 10.244.1.10:7777\n- udp 10.96.5.5:53 <- 10.244.1.11:53";

fn rejected() -> SyncError {
    SyncError::new(SyncErrorKind::KernelRejected, "cannot write")
}

fn with(change: impl Fn(&mut SyncResult)) -> Vec<SyncResult> {
    let mut results = written();
    results.iter_mut().for_each(change);
    results
}

struct Run {
    memory: MemoryTable,
    cluster: Cluster,
    stale: portcullis_modes::stale_flows::StaleFlows,
}

impl Run {
    /// Starts in state `BEFORE`, with a flow to each of its Services.
    fn new() -> Run {
        let memory = MemoryTable::default();
        let mut run = Run { stale: memory.stale_flows(), memory, cluster: Cluster::new() };
        run.go(BEFORE, &written());
        let flows = flows(FLOWS, V4);
        run.memory.put(&flows.iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
        run.memory.0.lock().unwrap().requests.clear();
        run
    }

    fn go(&mut self, state: &str, results: &[SyncResult]) {
        let changes = self.cluster.become_text(state, V4);
        self.stale.add_changes(&changes);
        self.again(results);
    }

    fn again(&mut self, results: &[SyncResult]) {
        let _ = self.stale.delete(&self.cluster.desired, results, &[]);
    }

    /// Returns the number of flows left and of listings, and whether frontends wait.
    fn now(&self) -> (usize, usize, bool) {
        let held = self.memory.0.lock().unwrap();
        (held.flows.len(), held.requests.len(), self.stale.has_pending())
    }
}

#[test]
fn flows_are_kept_until_the_rules_are_written() {
    let mut run = Run::new();
    run.go(AFTER, &with(|r| r.error = Some(rejected())));
    assert_eq!(run.now(), (2, 0, true));
    run.again(&with(|r| r.error = (r.family == Of::V6).then(rejected)));
    assert_eq!(run.now(), (0, 1, false));
}

#[test]
fn only_flows_of_the_isolated_service_wait() {
    let mut run = Run::new();
    let game = portcullis_cluster::NamespacedName::new("default", "game");
    let isolated = || {
        with(|r| {
            r.isolated = vec![IsolatedService {
                service: game.clone(),
                cause: IsolationCause::Rejected,
                reason: "no".into(),
                has_rules: true,
            }]
        })
    };
    run.go(AFTER, &isolated());
    assert_eq!(run.now(), (1, 1, true));
    run.again(&isolated());
    assert_eq!(run.now(), (1, 1, true), "nothing is listed for it alone");
    run.again(&written());
    assert_eq!(run.now(), (0, 2, false));
}

/// While syncs fail, affected frontends are kept up to a limit; beyond it, all flows are examined later.
#[test]
fn changes_without_end_while_syncs_fail_leave_no_stale_flow() {
    for max in [100_000, 5] {
        let mut run = Run::new();
        run.stale = run.memory.stale_flows().with_max_waiting(max);
        run.again(&written());
        let served = "web tcp 10.96.6.6:80 -> 10.244.1.10:80\nkept udp 10.96.6.7:53 -> 10.244.1.9:53";
        for n in 1..=20 {
            let state = format!("{served}\nchurn udp 10.96.7.{n}:53 -> 10.244.1.{n}:53");
            run.go(&state, &with(|r| r.error = Some(rejected())));
        }
        // A rule that was written by a sync that failed, and flows that stay.
        let text = "- udp 10.96.7.9:53 <- 10.244.1.9:53\n+ udp 10.96.6.7:53 <- 10.244.1.9:53\n\
                    + udp 192.0.2.1:53 <- itself";
        run.memory.put(&flows(text, V4).iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
        assert!(run.now().2);
        run.go(served, &written());
        assert_eq!((run.now().0, run.now().2), (2, false), "{max}");
    }
}

#[test]
fn rejected_deletion_is_retried() {
    let mut run = Run::new();
    run.memory.0.lock().unwrap().failing = true;
    let changes = run.cluster.become_text(AFTER, V4);
    run.stale.add_changes(&changes);
    let error = run.stale.delete(&run.cluster.desired, &written(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("cannot delete the stale flows of 2 Services: "), "{error}");
    assert_eq!(run.now(), (2, 1, true));
    run.memory.0.lock().unwrap().failing = false;
    run.again(&written());
    assert_eq!(run.now(), (0, 2, false));
}

#[test]
fn failed_first_deletion_is_repeated_for_all_services() {
    let memory = MemoryTable::default();
    let mut run = Run { stale: memory.stale_flows(), memory, cluster: Cluster::new() };
    run.cluster.become_text(AFTER, V4);
    run.memory.put(&flows(FLOWS, V4).iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
    run.again(&with(|r| r.error = Some(rejected())));
    assert_eq!(run.now(), (2, 0, true));
    run.again(&written());
    assert_eq!(run.now(), (0, 1, false));
}

#[test]
fn restored_rules_affect_all_services_of_the_family() {
    let mut run = Run::new();
    let strays = flows(
        "- udp 10.96.5.4:7777 <- itself\n- udp 10.96.5.5:53 <- itself\n- udp 10.96.5.5:53 <- itself",
        V4,
    );
    run.memory.put(&strays.iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
    run.again(&with(|r| r.restored = usize::from(r.family == Of::V6)));
    assert_eq!(run.now(), (5, 0, false));
    run.again(&with(|r| r.restored = usize::from(r.family == Of::V4)));
    assert_eq!(run.now(), (2, 1, false));
}

#[test]
fn family_that_is_not_served_does_not_wait() {
    let mut run = Run::new();
    run.go(AFTER, &[successful_result(Of::V6)]);
    assert_eq!(run.now(), (2, 0, false));
}

#[test]
fn table_is_read_only_if_needed() {
    // (event, next state, listings)
    let rows = [
        ("nothing", BEFORE.to_owned(), 0),
        ("an endpoint more", BEFORE.replace("10.244.1.10:7777", "10.244.1.10:7777 10.244.1.12:7777"), 0),
        (
            "it terminates and still serves",
            BEFORE.replace("10.244.1.10:7777", "10.244.1.10:7777/terminating"),
            0,
        ),
        ("a TCP Service comes", format!("{BEFORE}\nweb tcp 10.96.5.6:80 node=30080 -> 10.244.1.10:80"), 1),
        ("a TCP Service without endpoints comes", format!("{BEFORE}\nweb tcp 10.96.5.6:80 node=30080 ->"), 0),
        ("both Services change", AFTER.to_owned(), 1),
        ("a UDP Service comes", format!("{BEFORE}\nnew udp 10.96.5.6:80 -> 10.244.1.10:80"), 1),
    ];
    for (case, state, listings) in rows {
        let mut run = Run::new();
        run.go(&state, &written());
        assert_eq!(run.now().1, listings, "{case}");
    }
    let mut run = Run::new();
    run.go("web tcp 10.96.5.6:80 node=30080 -> 10.244.1.10:80", &written());
    assert_eq!(run.now(), (0, 1, false), "the UDP Services went");
    run.go("web tcp 10.96.5.6:80 node=30080 -> 10.244.1.11:80", &written());
    assert_eq!(run.now(), (0, 1, false));
}
