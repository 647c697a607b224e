//! Matrices over a cluster of nine pods, with rules written here by hand as what enforces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_lab::{
    Cluster, EchoPort, End, Families, Family, Lab, LabOptions, Matrix, MatrixOptions, Outcome, PlanOptions,
    Protocol, Question, TrafficOptions, Vantage,
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
    Lab::up(Cluster::read(cluster).unwrap(), LabOptions { plan, daemon: None }).unwrap()
}

/// Drops new connections of these kinds on every node; what is not TCP or UDP passes, as neighbours must be found.
fn forbid(lab: &Lab, rules: &[String]) {
    let rules = rules.join("\n");
    for node in &lab.plan().nodes {
        let table = "table inet enforcer";
        machine::nft(
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

fn pairs(from: &End, to: &End, what: &str) -> Vec<String> {
    let families = [(Family::V4, "ip"), (Family::V6, "ip6")];
    let rules = families.into_iter().filter_map(|(family, word)| {
        let (from, to) = (from.address_of(family)?, to.address_of(family)?);
        Some(format!("{word} saddr {from} {word} daddr {to} {what} drop"))
    });
    rules.collect()
}

fn is_good(matrix: &Matrix) {
    println!("{} cells in {:?}", matrix.cells().count(), matrix.took);
    assert!(matrix.is_good(), "\n{matrix}");
}

#[test]
fn a_matrix_of_nine_pods_takes_a_moment() {
    let started = Instant::now();
    let lab = lab();
    println!("nine pods are up in {:?}", started.elapsed());
    let pods = End::pods(lab.plan());
    assert_eq!(pods.len(), 9);
    let options = MatrixOptions::new(pods.clone(), pods.clone(), PORTS);
    let all = lab.matrix(&options, |_| Some(true)).unwrap();
    is_good(&all);
    assert_eq!(all.cells().count(), 648);
    for (question, cell) in all.cells() {
        let seen = cell.seen.as_ref().unwrap();
        assert_eq!(seen.by(), Some(question.to.name()), "{question}");
        assert_eq!(seen.source(), question.from.address_of(question.family), "{question}");
    }

    // Most pairs, by one port or all, over the bridge of a node and between nodes.
    let allowed = |question: &Question<'_>| {
        let ends = [question.from, question.to];
        let [from, to] = ends.map(|end| pods.iter().position(|pod| pod == end).unwrap());
        from == to || (from * 3 + to * 5) % 4 == 0 || (question.port == PORTS[3] && (from + to) % 3 == 0)
    };
    let mut rules = Vec::new();
    for from in &pods {
        for to in &pods {
            for (port, what) in
                PORTS.into_iter().zip(["tcp dport 80", "udp dport 80", "tcp dport 81", "udp dport 81"])
            {
                if !allowed(&Question { from, to, port, family: Family::V4 }) {
                    rules.extend(pairs(from, to, what));
                }
            }
        }
    }
    forbid(&lab, &rules);
    let some = lab.matrix(&options, |question| Some(allowed(question))).unwrap();
    is_good(&some);
    let denied = some.cells().filter(|(_, cell)| cell.is_allowed() == Some(false)).count();
    assert!(denied > 400, "{denied}");
    // A few seconds for a machine that is busy; less than one when it is idle.
    assert!(some.took < Duration::from_secs(10), "{:?}", some.took);

    // What is not as expected is found, whichever way, and nothing else.
    let (x_a, y_b) = (&pods[0], &pods[4]);
    let wrong = |question: &Question<'_>| question.from == x_a && question.to == y_b;
    let expected = |question: &Question<'_>| Some(allowed(question) != wrong(question));
    let options = MatrixOptions { again: vec![Duration::from_millis(500)], ..options };
    let matrix = lab.matrix(&options, expected).unwrap();
    let found = matrix.differences();
    assert_eq!(found.len(), 8, "\n{matrix}");
    assert!(found.iter().all(|(question, _)| wrong(question)), "\n{matrix}");
    let asked: BTreeSet<usize> = found.iter().map(|(_, cell)| cell.asked).collect();
    assert_eq!(asked, BTreeSet::from([if allowed(&found[0].0) { 1 } else { 2 }]));
    println!("{matrix}");
}

#[test]
fn nodes_and_hosts_outside_have_their_rows_too() {
    let lab = lab();
    let plan = lab.plan();
    let outside = End::outside(OUTSIDE.map(ip));
    let mut ends = vec![End::pod(plan, "x/a").unwrap(), End::pod(plan, "x/b").unwrap()];
    ends.extend(End::nodes(plan));
    ends.push(outside.clone());
    let [x_a, x_b, node_1, node_2] = [0, 1, 2, 3].map(|index| ends[index].clone());
    let mut options = MatrixOptions::new(ends.clone(), ends, [EchoPort::tcp(80), EchoPort::udp(80)]);
    let all = lab.matrix(&options, |_| Some(true)).unwrap();
    is_good(&all);
    for (question, cell) in all.cells() {
        let source = cell.seen.as_ref().unwrap().source();
        assert_eq!(source, question.from.address_of(question.family), "{question}");
    }
    let forbidden = [(&outside, &x_a), (&node_2, &x_a), (&node_1, &x_b), (&x_a, &node_1), (&x_b, &outside)];
    forbid(
        &lab,
        &forbidden
            .iter()
            .flat_map(|(from, to)| pairs(from, to, "meta l4proto {tcp, udp}"))
            .collect::<Vec<_>>(),
    );
    let allowed = |question: &Question<'_>| Some(!forbidden.contains(&(question.from, question.to)));
    options.from.reverse();
    is_good(&lab.matrix(&options, allowed).unwrap());
}

#[test]
fn a_service_is_a_destination() {
    let lab = lab();
    let plan = lab.plan();
    for node in &plan.nodes {
        let rules = "table inet fake {\n chain pre { type nat hook prerouting priority -100;
            ip daddr $4 tcp dport 80 dnat ip to 10.244.1.20:80
            ip6 daddr $6 tcp dport 80 dnat ip6 to [fd00:10:244:1::14]:80\n }\n }";
        let fronts = End::service(plan, "y/s-y-b").unwrap();
        let [four, six] = Family::BOTH.map(|family| fronts.address_of(family).unwrap().to_string());
        machine::nft(&lab, &node.name, &rules.replace("$4", &four).replace("$6", &six));
    }
    let pods = End::pods(plan);
    let y_b = End::pod(plan, "y/b").unwrap();
    forbid(&lab, &pairs(&pods[0], &y_b, "tcp dport 80"));
    let to = vec![End::service(plan, "y/s-y-b").unwrap(), y_b.clone()];
    // A pod that meets itself through a Service needs to be masqueraded.
    let from: Vec<End> = pods.iter().filter(|pod| **pod != y_b).cloned().collect();
    let matrix = lab
        .matrix(&MatrixOptions::new(from, to, [EchoPort::tcp(80)]), |question| {
            Some(question.from != &pods[0])
        })
        .unwrap();
    is_good(&matrix);
    let seen = matrix.cell("z/a", "y/s-y-b", EchoPort::tcp(80), Family::V6).unwrap();
    assert_eq!(seen.seen.as_ref().unwrap().by(), Some("y/b"));
}

#[test]
fn a_pod_has_its_row_from_when_it_has_an_address() {
    let mut lab = lab();
    let pod = |name: &str, status: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\nspec: {{nodeName: node-2}}\nstatus: {status}\n---\n"
        )
    };
    let finished = pod("done", "{phase: Succeeded, podIPs: [{ip: 10.244.1.10}]}");
    lab.apply_text(&(finished + &pod("late", "{phase: Pending}"))).unwrap();
    let error = lab.from(Vantage::pod("x/late")).unwrap_err().to_string();
    assert!(error.contains("Pod x/late: does not run"), "{error}");
    let ask = |lab: &Lab| {
        let ends = ["x/a", "x/b", "x/late", "x/done"].map(|name| End::pod(lab.plan(), name).unwrap());
        lab.matrix(&MatrixOptions::new(ends.to_vec(), ends.to_vec(), PORTS), |_| Some(true)).unwrap()
    };
    let count = |matrix: &Matrix, family| {
        matrix.cells().filter(|(question, cell)| question.family == family && cell.seen.is_some()).count()
    };
    let before = ask(&lab);
    is_good(&before);
    assert_eq!(Family::BOTH.map(|family| count(&before, family)), [2 * 2 * 4; 2]);
    // The address of the one that has finished is the live one's.
    assert_eq!(
        before.cell("x/b", "x/a", PORTS[0], Family::V4).unwrap().seen.as_ref().unwrap().by(),
        Some("x/a")
    );

    lab.apply_text(&pod("late", "{phase: Running, podIPs: [{ip: 10.244.2.99}]}")).unwrap();
    let after = ask(&lab);
    is_good(&after);
    assert_eq!(Family::BOTH.map(|family| count(&after, family)), [3 * 3 * 4, 2 * 2 * 4]);
    lab.terminate("x/late").unwrap();
    is_good(&ask(&lab));
    lab.apply_text(&pod("late", "{phase: Failed, podIPs: [{ip: 10.244.2.99}]}")).unwrap();
    assert_eq!(count(&ask(&lab), Family::V4), 2 * 2 * 4);
}

#[test]
fn traffic_tells_what_was_lost_and_when() {
    let lab = lab();
    let plan = lab.plan();
    let to = |family| (End::pod(plan, "y/a").unwrap().address_of(family).unwrap(), 80).into();
    let options = TrafficOptions { patience: Duration::from_millis(300), ..Default::default() };
    let from = |name: &str| lab.from(Vantage::pod(name)).unwrap();
    let mut all = Vec::new();
    for family in Family::BOTH {
        all.push(from("x/a").connections(Protocol::Tcp, to(family), options).unwrap());
        all.push(from("x/a").connections(Protocol::Udp, to(family), options).unwrap());
        all.push(from("x/a").datagrams(to(family), options).unwrap());
    }
    std::thread::sleep(Duration::from_millis(600));
    let barrier = Instant::now();
    // Everything, also what is established.
    for node in &plan.nodes {
        machine::nft(
            &lab,
            &node.name,
            "table inet enforcer { chain through { type filter hook postrouting priority 99;
               ip saddr 10.244.1.10 meta l4proto {tcp, udp} drop; ip6 saddr fd00:10:244:1::a meta l4proto {tcp, udp} drop\n }\n }",
        );
    }
    let shut = Instant::now();
    std::thread::sleep(Duration::from_millis(600));
    for log in all.into_iter().map(portcullis_lab::Traffic::stop) {
        println!("{log}");
        let (first, last) = (log.sent[0].at, Instant::now());
        let before = log.between(first, barrier - Duration::from_millis(50));
        assert!(before.lost().is_empty(), "{log}");
        assert!(before.sent.len() > 40, "{log}");
        let after = log.between(shut, last);
        assert!(after.answered().is_empty(), "{log}");
        assert!(after.sent.len() > 40, "{log}");
        assert_eq!(after.tally().others.keys().collect::<Vec<_>>(), [&Outcome::TimedOut]);
    }
}

#[test]
fn one_family_is_half_the_matrix() {
    let lab = lab();
    let pods = End::pods(lab.plan());
    let options = MatrixOptions::new(pods.clone(), pods, [EchoPort::tcp(80)]).families(Families::V6);
    let matrix = lab.matrix(&options, |_| Some(true)).unwrap();
    is_good(&matrix);
    assert_eq!((matrix.tables.len(), matrix.cells().count()), (1, 81));
    assert!(matrix.to_string().starts_with("80/TCP · IPv6\n"), "{matrix}");
}
