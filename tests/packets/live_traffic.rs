//! Endpoints change while clients go on connecting: not one connection may be refused or lost.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Families, Log, ObjectRef, Protocol, TrafficOptions, qemu, uml};

use crate::bed::{Bed, Setup};
use crate::mode::Mode;
use crate::row::{ANSWER, Origin, Target, client, cluster_ip, node_port, outside};
use crate::tools::Flavour;

/// How many pods replace one another.
const ROUNDS: usize = 4;

#[test]
fn pods_are_replaced_under_live_traffic_by_the_nft_tool() {
    pods_are_replaced_under_live_traffic(Mode::Iptables(Flavour::Nft));
}

#[test]
fn pods_are_replaced_under_live_traffic_by_the_legacy_tool() {
    pods_are_replaced_under_live_traffic(Mode::Iptables(Flavour::Legacy));
}

#[test]
fn pods_are_replaced_under_live_traffic_by_ipvs() {
    uml::inside(|| pods_are_replaced_under_live_traffic(Mode::Ipvs));
}

#[test]
fn pods_are_replaced_under_live_traffic_by_nftables() {
    pods_are_replaced_under_live_traffic(Mode::Nftables);
}

/// So often the number of endpoints changes.
const SCALES: usize = 50;

/// No packet finds a map half-changed: whatever number of endpoints it counted with, those are there.
#[test]
fn endpoints_come_and_go_at_full_speed_by_nftables() {
    let mut bed = Setup::of("web.yaml").mode(Mode::Nftables).up();
    let (history, seen) = while_clients_connect_at(Duration::ZERO, &mut bed, Families::Dual, scale);
    let (mut connections, mut lost) = (0, 0);
    for seen in &seen {
        // The answer to a datagram that is under way to an endpoint that goes finds no way back: its flow is deleted.
        let excused = if seen.protocol == Protocol::Udp { 2 } else { 0 };
        seen.assert_answered(excused, &history);
        lost += seen.log.lost().len();
        assert_eq!(seen.log.tally().by.len(), 3, "{} met all pods", seen.log.what);
        connections += seen.log.sent.len();
    }
    let took = history.last().unwrap().0;
    println!(
        "{connections} connections, {lost} lost, in {took:?} of {SCALES} changes of the number of endpoints"
    );
}

/// Endpoints by their number: from 3 to 1 and back, and each other time another one is left.
fn scale(bed: &mut Bed, start: Instant) -> History {
    let mut history = Vec::new();
    for round in 0..SCALES {
        let (pod, ready) =
            [("b", false), ("c", false), ("b", true), ("a", false), ("c", true), ("a", true)][round % 6];
        bed.lab.set_ready(pod, ready).unwrap();
        bed.synced();
        history.push((start.elapsed(), format!("{pod} {}", if ready { "comes" } else { "goes" })));
    }
    history
}

fn pods_are_replaced_under_live_traffic(mode: Mode) {
    let mut bed = Setup::of("web.yaml").mode(mode).up();
    let (history, seen) = while_clients_connect(&mut bed, Families::Dual, replace_pods);
    for seen in seen {
        // IPVS takes a real server of UDP out at once, as kube-proxy has it, and the answer to what is under way then
        // finds no way back. A client has one datagram under way at a time.
        let excused = if mode == Mode::Ipvs && seen.protocol == Protocol::Udp { ROUNDS } else { 0 };
        seen.assert_answered(excused, &history);
        let tally = seen.log.tally();
        assert!(tally.by.len() > ROUNDS, "{} met the pods as they came: {tally:?}", seen.log.what);
    }
}

/// Makes a change while clients connect over and over by these families: from pods, and from outside to a node port
/// of node-2.
pub(crate) fn while_clients_connect(
    bed: &mut Bed,
    families: Families,
    change: impl FnOnce(&mut Bed, Instant) -> History,
) -> (History, Vec<Seen>) {
    // Room for the daemons on a small machine, more of it on one of a single processor, and most on an emulated one.
    let pace = Duration::from_millis(match (uml::is_inside(), qemu::is_inside()) {
        (true, _) => 30,
        (_, true) => 100,
        _ => 3,
    });
    while_clients_connect_at(pace, bed, families, change)
}

/// The same, each client at this pace.
fn while_clients_connect_at(
    pace: Duration,
    bed: &mut Bed,
    families: Families,
    change: impl FnOnce(&mut Bed, Instant) -> History,
) -> (History, Vec<Seen>) {
    let ways: [(Origin, Protocol, Target); 4] = [
        (client(1), Protocol::Tcp, cluster_ip("web", 80)),
        (client(2), Protocol::Tcp, cluster_ip("web", 80)),
        (client(1), Protocol::Udp, cluster_ip("web", 53).udp()),
        (outside(), Protocol::Tcp, node_port(2, "web", 80)),
    ];
    let options = TrafficOptions { pace, patience: ANSWER, under_way: 1 };
    let start = Instant::now();
    let mut all = Vec::new();
    for (from, protocol, to) in ways {
        for address in to.addresses(bed.lab.plan(), families) {
            all.push((protocol, bed.from(from.clone()).connections(protocol, address, options).unwrap()));
        }
    }
    let history = change(bed, start);
    let seen = all.into_iter().map(|(protocol, traffic)| Seen { protocol, start, log: traffic.stop() });
    (history, seen.collect())
}

/// What happened when, since the start.
pub(crate) type History = Vec<(Duration, String)>;

/// What a client saw when.
pub(crate) struct Seen {
    pub(crate) protocol: Protocol,
    start: Instant,
    pub(crate) log: Log,
}

impl Seen {
    /// All connections but so many were answered.
    pub(crate) fn assert_answered(&self, but: usize, history: &History) {
        let lost = self.log.lost();
        let when: Vec<_> = lost.iter().map(|sent| (sent.at - self.start, &sent.outcome)).collect();
        let (what, all) = (&self.log.what, self.log.sent.len());
        assert!(lost.len() <= but, "{what}: {when:?} of {all}, while\n{history:#?}");
    }
}

/// Replaces every pod, one by one, as a rolling update does.
fn replace_pods(bed: &mut Bed, start: Instant) -> History {
    let mut history = Vec::new();
    let mut note = |what: String| history.push((start.elapsed(), what));
    let mut old: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    for round in 0..ROUNDS {
        let fresh = format!("fresh-{round}");
        note(format!("{fresh} is made"));
        bed.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {fresh}, labels: {{app: web}}}}, \
             spec: {{nodeName: node-{}}}}}",
            1 + round % 2
        ));
        note(format!("{fresh} is served at {:?}", bed.lab.plan().pod(&fresh).unwrap().addresses));
        old.push(fresh);
        thread::sleep(Duration::from_millis(100));
        let gone = old.remove(0);
        bed.lab.terminate(&gone).unwrap();
        bed.synced();
        note(format!("{gone} is served no more"));
        // The grace period: connections that were made just before get their answer.
        thread::sleep(Duration::from_millis(500));
        note(format!("{gone} goes"));
        bed.lab.delete(&ObjectRef::new("Pod", "default", &gone)).unwrap();
        bed.synced();
        note(format!("{gone} is gone"));
    }
    history
}
