//! Matrices over a cluster of nine pods, with nftables rules of the test instead of an enforcing daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node_tools;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_lab::{
    ClusterObjects, EchoPort, Families, Family, Lab, LabOptions, Matrix, MatrixOptions, MatrixPeer,
    MatrixProbe, PlanOptions, ProbeOutcome, Protocol, TrafficOptions, Vantage,
};

const PORTS: [EchoPort; 4] = [EchoPort::tcp(80), EchoPort::udp(80), EchoPort::tcp(81), EchoPort::udp(81)];
const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8::7"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn lab() -> Lab {
    let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/network-policy/cluster.yaml");
    let ports: BTreeSet<EchoPort> = PORTS.into_iter().collect();
    let plan = PlanOptions {
        clients: false,
        echo_ports: ports.clone(),
        node_echo_ports: ports,
        outside: OUTSIDE.map(ip).to_vec(),
        ..Default::default()
    };
    Lab::up(ClusterObjects::read(cluster).unwrap(), LabOptions { plan, daemon: None }).unwrap()
}

/// Replaces the rules on every node that drop new connections.
fn deny(lab: &Lab, rules: &[String]) {
    let rules = rules.join("\n");
    for node in &lab.plan().nodes {
        let table = "table inet enforcer";
        node_tools::nft(
            lab,
            &node.name,
            &format!(
                "{table}\ndelete {table}\n{table} {{
                   chain check {{\nct state established,related accept\n{rules}\n}}
                   chain through {{ type filter hook postrouting priority 99; jump check; }}
                   chain input {{ type filter hook input priority 0; jump check; }}
                 }}"
            ),
        );
    }
}

/// Returns rules that drop packets from one peer to another, one per family.
fn drop_rules(from: &MatrixPeer, to: &MatrixPeer, what: &str) -> Vec<String> {
    let families = [(Family::V4, "ip"), (Family::V6, "ip6")];
    let rules = families.into_iter().filter_map(|(family, word)| {
        let (from, to) = (from.address_of(family)?, to.address_of(family)?);
        Some(format!("{word} saddr {from} {word} daddr {to} {what} drop"))
    });
    rules.collect()
}

fn assert_as_expected(matrix: &Matrix) {
    println!("{} cells in {:?}", matrix.cells().count(), matrix.duration);
    assert!(matrix.is_as_expected(), "\n{matrix}");
}

#[test]
fn a_matrix_of_nine_pods_finds_all_denied_connections_quickly() {
    let started = Instant::now();
    let lab = lab();
    println!("nine pods are up in {:?}", started.elapsed());
    let pods = MatrixPeer::pods(lab.plan());
    assert_eq!(pods.len(), 9);
    let options = MatrixOptions::new(pods.clone(), pods.clone(), PORTS);
    let all = lab.matrix(&options, |_| Some(true)).unwrap();
    assert_as_expected(&all);
    assert_eq!(all.cells().count(), 648);
    for (probe, cell) in all.cells() {
        let outcome = cell.outcome.as_ref().unwrap();
        assert_eq!(outcome.responder(), Some(probe.to.name()), "{probe}");
        assert_eq!(outcome.source(), probe.from.address_of(probe.family), "{probe}");
    }

    // Deny most pairs, at one port or all, over the bridge of a node and between nodes.
    let allowed = |probe: &MatrixProbe<'_>| {
        let peers = [probe.from, probe.to];
        let [from, to] = peers.map(|peer| pods.iter().position(|pod| pod == peer).unwrap());
        from == to || (from * 3 + to * 5) % 4 == 0 || (probe.port == PORTS[3] && (from + to) % 3 == 0)
    };
    let mut rules = Vec::new();
    for from in &pods {
        for to in &pods {
            for (port, what) in
                PORTS.into_iter().zip(["tcp dport 80", "udp dport 80", "tcp dport 81", "udp dport 81"])
            {
                if !allowed(&MatrixProbe { from, to, port, family: Family::V4 }) {
                    rules.extend(drop_rules(from, to, what));
                }
            }
        }
    }
    deny(&lab, &rules);
    let some = lab.matrix(&options, |probe| Some(allowed(probe))).unwrap();
    assert_as_expected(&some);
    let denied = some.cells().filter(|(_, cell)| cell.is_allowed() == Some(false)).count();
    assert!(denied > 400, "{denied}");
    // Less than a second on an idle machine, a few seconds on a busy one.
    assert!(some.duration < Duration::from_secs(10), "{:?}", some.duration);

    // Exactly the unexpected outcomes are found, allowed and denied.
    let (x_a, y_b) = (&pods[0], &pods[4]);
    let wrong = |probe: &MatrixProbe<'_>| probe.from == x_a && probe.to == y_b;
    let expected = |probe: &MatrixProbe<'_>| Some(allowed(probe) != wrong(probe));
    let options = MatrixOptions { retry_timeouts: vec![Duration::from_millis(500)], ..options };
    let matrix = lab.matrix(&options, expected).unwrap();
    let found = matrix.unexpected();
    assert_eq!(found.len(), 8, "\n{matrix}");
    assert!(found.iter().all(|(probe, _)| wrong(probe)), "\n{matrix}");
    let attempts: BTreeSet<usize> = found.iter().map(|(_, cell)| cell.attempts).collect();
    assert_eq!(attempts, BTreeSet::from([if allowed(&found[0].0) { 1 } else { 2 }]));
    println!("{matrix}");
}

#[test]
fn nodes_and_the_outside_host_are_sources_and_destinations() {
    let lab = lab();
    let plan = lab.plan();
    let outside = MatrixPeer::outside(OUTSIDE.map(ip));
    let mut peers = vec![MatrixPeer::pod(plan, "x/a").unwrap(), MatrixPeer::pod(plan, "x/b").unwrap()];
    peers.extend(MatrixPeer::nodes(plan));
    peers.push(outside.clone());
    let [x_a, x_b, node_1, node_2] = [0, 1, 2, 3].map(|index| peers[index].clone());
    let mut options = MatrixOptions::new(peers.clone(), peers, [EchoPort::tcp(80), EchoPort::udp(80)]);
    let all = lab.matrix(&options, |_| Some(true)).unwrap();
    assert_as_expected(&all);
    for (probe, cell) in all.cells() {
        let source = cell.outcome.as_ref().unwrap().source();
        assert_eq!(source, probe.from.address_of(probe.family), "{probe}");
    }
    let denied_pairs =
        [(&outside, &x_a), (&node_2, &x_a), (&node_1, &x_b), (&x_a, &node_1), (&x_b, &outside)];
    deny(
        &lab,
        &denied_pairs
            .iter()
            .flat_map(|(from, to)| drop_rules(from, to, "meta l4proto {tcp, udp}"))
            .collect::<Vec<_>>(),
    );
    let allowed = |probe: &MatrixProbe<'_>| Some(!denied_pairs.contains(&(probe.from, probe.to)));
    options.from.reverse();
    assert_as_expected(&lab.matrix(&options, allowed).unwrap());
}

#[test]
fn a_service_is_a_destination() {
    let lab = lab();
    let plan = lab.plan();
    for node in &plan.nodes {
        let rules = "table inet fake {\n chain pre { type nat hook prerouting priority -100;
            ip daddr $4 tcp dport 80 dnat ip to 10.244.1.20:80
            ip6 daddr $6 tcp dport 80 dnat ip6 to [fd00:10:244:1::14]:80\n }\n }";
        let frontends = MatrixPeer::service(plan, "y/s-y-b").unwrap();
        let [four, six] = Family::BOTH.map(|family| frontends.address_of(family).unwrap().to_string());
        node_tools::nft(&lab, &node.name, &rules.replace("$4", &four).replace("$6", &six));
    }
    let pods = MatrixPeer::pods(plan);
    let y_b = MatrixPeer::pod(plan, "y/b").unwrap();
    deny(&lab, &drop_rules(&pods[0], &y_b, "tcp dport 80"));
    let to = vec![MatrixPeer::service(plan, "y/s-y-b").unwrap(), y_b.clone()];
    // A pod that connects to itself through a Service would need masquerading.
    let from: Vec<MatrixPeer> = pods.iter().filter(|pod| **pod != y_b).cloned().collect();
    let matrix = lab
        .matrix(&MatrixOptions::new(from, to, [EchoPort::tcp(80)]), |probe| Some(probe.from != &pods[0]))
        .unwrap();
    assert_as_expected(&matrix);
    let cell = matrix.cell("z/a", "y/s-y-b", EchoPort::tcp(80), Family::V6).unwrap();
    assert_eq!(cell.outcome.as_ref().unwrap().responder(), Some("y/b"));
}

#[test]
fn a_pod_is_probed_once_it_has_an_address() {
    let mut lab = lab();
    let pod = |name: &str, status: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\nspec: {{nodeName: node-2}}\nstatus: {status}\n---\n"
        )
    };
    let finished = pod("done", "{phase: Succeeded, podIPs: [{ip: 10.244.1.10}]}");
    lab.apply_text(&(finished + &pod("late", "{phase: Pending}"))).unwrap();
    let error = lab.prober(Vantage::pod("x/late")).unwrap_err().to_string();
    assert!(error.contains("Pod x/late: is not running"), "{error}");
    let probe = |lab: &Lab| {
        let peers = ["x/a", "x/b", "x/late", "x/done"].map(|name| MatrixPeer::pod(lab.plan(), name).unwrap());
        lab.matrix(&MatrixOptions::new(peers.to_vec(), peers.to_vec(), PORTS), |_| Some(true)).unwrap()
    };
    let count = |matrix: &Matrix, family| {
        matrix.cells().filter(|(probe, cell)| probe.family == family && cell.outcome.is_some()).count()
    };
    let before = probe(&lab);
    assert_as_expected(&before);
    assert_eq!(Family::BOTH.map(|family| count(&before, family)), [2 * 2 * 4; 2]);
    // The address of the terminated pod belongs to the running one.
    assert_eq!(
        before.cell("x/b", "x/a", PORTS[0], Family::V4).unwrap().outcome.as_ref().unwrap().responder(),
        Some("x/a")
    );

    lab.apply_text(&pod("late", "{phase: Running, podIPs: [{ip: 10.244.2.99}]}")).unwrap();
    let after = probe(&lab);
    assert_as_expected(&after);
    assert_eq!(Family::BOTH.map(|family| count(&after, family)), [3 * 3 * 4, 2 * 2 * 4]);
    lab.terminate("x/late").unwrap();
    assert_as_expected(&probe(&lab));
    lab.apply_text(&pod("late", "{phase: Failed, podIPs: [{ip: 10.244.2.99}]}")).unwrap();
    assert_eq!(count(&probe(&lab), Family::V4), 2 * 2 * 4);
}

#[test]
fn traffic_logs_show_which_probes_were_lost_when() {
    let lab = lab();
    let plan = lab.plan();
    let to = |family| (MatrixPeer::pod(plan, "y/a").unwrap().address_of(family).unwrap(), 80).into();
    let options = TrafficOptions { timeout: Duration::from_millis(300), ..Default::default() };
    let from = |name: &str| lab.prober(Vantage::pod(name)).unwrap();
    let mut all = Vec::new();
    for family in Family::BOTH {
        all.push(from("x/a").connections(Protocol::Tcp, to(family), options).unwrap());
        all.push(from("x/a").connections(Protocol::Udp, to(family), options).unwrap());
        all.push(from("x/a").datagrams(to(family), options).unwrap());
    }
    std::thread::sleep(Duration::from_millis(600));
    let barrier = Instant::now();
    // Drop all packets, including those of established connections.
    for node in &plan.nodes {
        node_tools::nft(
            &lab,
            &node.name,
            "table inet enforcer { chain through { type filter hook postrouting priority 99;
               ip saddr 10.244.1.10 meta l4proto {tcp, udp} drop; ip6 saddr fd00:10:244:1::a meta l4proto {tcp, udp} drop\n }\n }",
        );
    }
    let shut = Instant::now();
    std::thread::sleep(Duration::from_millis(600));
    for log in all.into_iter().map(portcullis_lab::TrafficGenerator::stop) {
        println!("{log}");
        let (first, last) = (log.probes[0].sent_at, Instant::now());
        let before = log.between(first, barrier - Duration::from_millis(50));
        assert!(before.lost().is_empty(), "{log}");
        assert!(before.probes.len() > 40, "{log}");
        let after = log.between(shut, last);
        assert!(after.answered().is_empty(), "{log}");
        assert!(after.probes.len() > 40, "{log}");
        assert_eq!(after.tally().failures.keys().collect::<Vec<_>>(), [&ProbeOutcome::TimedOut]);
    }
}

#[test]
fn a_matrix_of_one_family_has_no_cells_of_the_other() {
    let lab = lab();
    let pods = MatrixPeer::pods(lab.plan());
    let options = MatrixOptions::new(pods.clone(), pods, [EchoPort::tcp(80)]).families(Families::V6);
    let matrix = lab.matrix(&options, |_| Some(true)).unwrap();
    assert_as_expected(&matrix);
    assert_eq!((matrix.tables.len(), matrix.cells().count()), (1, 81));
    assert!(matrix.to_string().starts_with("80/TCP · IPv6\n"), "{matrix}");
}
