//! Changes of endpoints under live traffic: no connection may be refused or lost.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Families, ObjectRef, Protocol, TrafficLog, TrafficOptions};
use portcullis_machines::{qemu, uml};

use crate::mode::Mode;
use crate::row::{ANSWER, Origin, Target, client, cluster_ip, node_port, outside};
use crate::testbed::{Setup, Testbed};

/// Number of replaced pods.
const ROUNDS: usize = 4;

/// Number of changes of the number of endpoints.
const SCALES: usize = 50;

/// Packets never see a map changed in part: for any number of endpoints that a rule uses, those endpoints exist.
#[test]
fn endpoints_change_continuously_by_nftables() {
    let mut testbed = Setup::new("web.yaml").mode(Mode::Nftables).up();
    let (history, seen) = while_clients_connect_at(Duration::ZERO, &mut testbed, Families::Dual, scale);
    let (mut connections, mut lost) = (0, 0);
    for seen in &seen {
        // The reply to a datagram in flight to a removed endpoint is lost, because its flow is deleted.
        let tolerated = if seen.protocol == Protocol::Udp { 2 } else { 0 };
        seen.assert_answered(tolerated, &history);
        lost += seen.log.lost().len();
        assert_eq!(seen.log.tally().by_responder.len(), 3, "{} reached all pods", seen.log.description);
        connections += seen.log.probes.len();
    }
    let took = history.last().unwrap().0;
    println!(
        "{connections} connections, {lost} lost, in {took:?} of {SCALES} changes of the number of endpoints"
    );
}

/// Scales the endpoints from 3 to 1 and back, with different remaining endpoints.
fn scale(testbed: &mut Testbed, start: Instant) -> History {
    let mut history = Vec::new();
    for round in 0..SCALES {
        let (pod, ready) =
            [("b", false), ("c", false), ("b", true), ("a", false), ("c", true), ("a", true)][round % 6];
        testbed.lab.set_ready(pod, ready).unwrap();
        testbed.synced();
        history.push((start.elapsed(), format!("{pod} {}", if ready { "ready" } else { "not ready" })));
    }
    history
}

pub(crate) fn pods_are_replaced_under_live_traffic(mode: Mode) {
    let mut testbed = Setup::new("web.yaml").mode(mode).up();
    let (history, seen) = while_clients_connect(&mut testbed, Families::Dual, replace_pods);
    for seen in seen {
        // IPVS removes a UDP real server immediately, as in kube-proxy, and the reply to a datagram in flight is lost.
        // Each client has one datagram in flight.
        let tolerated = if mode == Mode::Ipvs && seen.protocol == Protocol::Udp { ROUNDS } else { 0 };
        seen.assert_answered(tolerated, &history);
        let tally = seen.log.tally();
        assert!(
            tally.by_responder.len() > ROUNDS,
            "{} reached the new pods: {tally:?}",
            seen.log.description
        );
    }
}

/// Makes a change while clients connect continuously by these families: from pods, and from outside to a node port of
/// node-2.
pub(crate) fn while_clients_connect(
    testbed: &mut Testbed,
    families: Families,
    change: impl FnOnce(&mut Testbed, Instant) -> History,
) -> (History, Vec<ClientLog>) {
    // Leaves processor time for the daemons: user-mode Linux has one processor, QEMU emulates them.
    let interval = Duration::from_millis(match (uml::is_inside(), qemu::is_inside()) {
        (true, _) => 30,
        (_, true) => 100,
        _ => 3,
    });
    while_clients_connect_at(interval, testbed, families, change)
}

/// Makes a change while clients connect continuously, each with this interval.
fn while_clients_connect_at(
    interval: Duration,
    testbed: &mut Testbed,
    families: Families,
    change: impl FnOnce(&mut Testbed, Instant) -> History,
) -> (History, Vec<ClientLog>) {
    let paths: [(Origin, Protocol, Target); 4] = [
        (client(1), Protocol::Tcp, cluster_ip("web", 80)),
        (client(2), Protocol::Tcp, cluster_ip("web", 80)),
        (client(1), Protocol::Udp, cluster_ip("web", 53).udp()),
        (outside(), Protocol::Tcp, node_port(2, "web", 80)),
    ];
    let options = TrafficOptions { interval, timeout: ANSWER, max_in_flight: 1 };
    let start = Instant::now();
    let mut all = Vec::new();
    for (from, protocol, to) in paths {
        for address in to.addresses(testbed.lab.plan(), families) {
            all.push((protocol, testbed.from(from.clone()).connections(protocol, address, options).unwrap()));
        }
    }
    let history = change(testbed, start);
    let seen = all.into_iter().map(|(protocol, traffic)| ClientLog { protocol, start, log: traffic.stop() });
    (history, seen.collect())
}

/// Events with the time since the start.
pub(crate) type History = Vec<(Duration, String)>;

/// The probes of one client.
pub(crate) struct ClientLog {
    pub(crate) protocol: Protocol,
    start: Instant,
    pub(crate) log: TrafficLog,
}

impl ClientLog {
    /// Asserts that at most `tolerated` connections got no response.
    pub(crate) fn assert_answered(&self, tolerated: usize, history: &History) {
        let lost = self.log.lost();
        let when: Vec<_> = lost.iter().map(|sent| (sent.sent_at - self.start, &sent.outcome)).collect();
        let (what, all) = (&self.log.description, self.log.probes.len());
        assert!(lost.len() <= tolerated, "{what}: {when:?} of {all}, while\n{history:#?}");
    }
}

/// Replaces every pod, one by one, as a rolling update does.
fn replace_pods(testbed: &mut Testbed, start: Instant) -> History {
    let mut history = Vec::new();
    let mut note = |what: String| history.push((start.elapsed(), what));
    let mut old: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    for round in 0..ROUNDS {
        let fresh = format!("fresh-{round}");
        note(format!("{fresh} is created"));
        testbed.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {fresh}, labels: {{app: web}}}}, \
             spec: {{nodeName: node-{}}}}}",
            1 + round % 2
        ));
        note(format!("{fresh} is served at {:?}", testbed.lab.plan().pod(&fresh).unwrap().addresses));
        old.push(fresh);
        thread::sleep(Duration::from_millis(100));
        let gone = old.remove(0);
        testbed.lab.terminate(&gone).unwrap();
        testbed.synced();
        note(format!("{gone} is no longer served"));
        // The grace period, in which established connections get their replies.
        thread::sleep(Duration::from_millis(500));
        note(format!("{gone} is deleted"));
        testbed.lab.delete(&ObjectRef::new("Pod", "default", &gone)).unwrap();
        testbed.synced();
        note(format!("{gone} is removed"));
    }
    history
}
