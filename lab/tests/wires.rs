//! The wiring, without a daemon: every way that a packet may take before Services come into it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_lab::plan::client_on;
use portcullis_lab::{
    Cluster, Families, Lab, LabOptions, ObjectRef, Outcome, PlanOptions, Protocol, Vantage,
};

const PODS: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec: {nodeName: node-2, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 9000}, {containerPort: 9000, protocol: UDP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec: {nodeName: node-1, containers: [{name: c, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.99.0.7}, {ip: 'fd00:99::7'}]}
";

fn lab(manifests: &str) -> Lab {
    Lab::up(Cluster::parse(manifests).unwrap(), LabOptions::default()).unwrap()
}

fn answered(by: &str, source: IpAddr) -> (Option<String>, Option<IpAddr>) {
    (Some(by.to_owned()), Some(source))
}

#[test]
fn every_place_reaches_every_pod_and_is_seen_as_itself() {
    let lab = lab(PODS);
    let plan = lab.plan();
    let mut vantages =
        vec![(Vantage::Outside, vec!["198.51.100.10".parse().unwrap(), "2001:db8:100::10".parse().unwrap()])];
    for node in &plan.nodes {
        vantages.push((Vantage::node(&node.name), node.addresses.clone()));
        let client = plan.pod(&client_on(&node.name)).unwrap();
        vantages.push((Vantage::pod(&client.name), client.addresses.clone()));
    }
    let mut probes = 0;
    for (vantage, sources) in vantages {
        let prober = lab.from(vantage.clone()).unwrap();
        for pod in plan.pods.iter().filter(|pod| !pod.ports.is_empty()) {
            for (address, source) in pod.addresses.iter().zip(&sources) {
                for port in &pod.ports {
                    let outcome = prober.probe(port.protocol, SocketAddr::new(*address, port.port));
                    // A node speaks to its own pods from its bridge, and to itself from the address it calls.
                    let node = plan.node(&pod.node).unwrap();
                    let source = match &vantage {
                        Vantage::Node(name) if *name == pod.node && pod.host_network => *address,
                        Vantage::Node(name) if *name == pod.node => {
                            let net =
                                node.pod_cidrs.iter().find(|net| net.addr().is_ipv4() == address.is_ipv4());
                            net.unwrap().hosts().find(|ip| *ip != net.unwrap().network()).unwrap()
                        }
                        _ => *source,
                    };
                    let found = (outcome.by().map(str::to_owned), outcome.source());
                    assert_eq!(
                        found,
                        answered(&pod.name, source),
                        "{} {address} from {vantage}: {outcome}",
                        port.port
                    );
                    probes += 1;
                }
            }
        }
    }
    assert_eq!(probes, 5 * 6 * 2 * 2);
}

#[test]
fn what_is_not_there_is_refused_lost_or_out_of_reach() {
    let lab = lab(PODS);
    let from = lab.from(Vantage::client_on("node-1")).unwrap().timeout(Duration::from_millis(300));
    let pod = lab.plan().pod("web-1").unwrap().addresses.clone();
    let rows: [(SocketAddr, Outcome); 5] = [
        ((pod[0], 81).into(), Outcome::Refused),
        ((pod[1], 81).into(), Outcome::Refused),
        // A node hands what it does not know to the host outside, which forwards nothing.
        ("10.96.0.10:80".parse().unwrap(), Outcome::TimedOut),
        ("[fd00:10:96::a]:80".parse().unwrap(), Outcome::TimedOut),
        ("10.244.1.200:80".parse().unwrap(), Outcome::TimedOut),
    ];
    for (to, expected) in rows {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(from.probe(protocol, to), expected, "{to}/{protocol}");
        }
    }
    let error = lab.from(Vantage::pod("nobody")).unwrap_err().to_string();
    assert!(error.contains("no pod named nobody") && error.contains("default/web-1"), "{error}");
}

#[test]
fn what_rules_reject_is_refused() {
    let lab = lab(PODS);
    let node = lab.netns(&Vantage::node("node-1")).unwrap();
    for (tool, rejected, dropped) in
        [("iptables", "10.96.9.1", "10.96.9.2"), ("ip6tables", "fd00:10:96::91", "fd00:10:96::92")]
    {
        for (chain, to, target) in
            [("OUTPUT", rejected, "REJECT"), ("FORWARD", rejected, "REJECT"), ("OUTPUT", dropped, "DROP")]
        {
            let rule = ["-A", chain, "-d", to, "-j", target];
            assert!(node.command(tool).args(rule).status().unwrap().success(), "{tool} {rule:?}");
        }
        let to = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        for vantage in [Vantage::client_on("node-1"), Vantage::node("node-1")] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let from = lab.from(vantage.clone()).unwrap();
                assert_eq!(
                    from.probe(protocol, to(rejected)),
                    Outcome::Refused,
                    "{rejected}/{protocol} {vantage}"
                );
            }
        }
        let from = lab.from(Vantage::node("node-1")).unwrap();
        assert_eq!(from.udp(to(dropped)), Outcome::Unreachable, "{dropped}");
    }
}

#[test]
fn a_probe_comes_from_the_address_and_port_of_choice() {
    let lab = lab(PODS);
    let pod = lab.plan().pod("web-2").unwrap().addresses.clone();
    for (protocol, port) in [(Protocol::Tcp, 8080), (Protocol::Udp, 53)] {
        for (to, source) in [(pod[0], "198.51.100.77"), (pod[1], "2001:db8:100::77")] {
            let source: IpAddr = source.parse().unwrap();
            let prober = lab.from(Vantage::Outside).unwrap().source(source).source_port(4321);
            let saw_source = SocketAddr::new(source, 4321);
            let expected = Outcome::Answered { by: "default/web-2".into(), saw_source };
            assert_eq!(prober.probe(protocol, (to, port).into()), expected);
        }
    }
    let foreign = lab.from(Vantage::Outside).unwrap().source("192.0.2.1".parse().unwrap());
    assert!(matches!(foreign.tcp((pod[0], 8080).into()), Outcome::Failed(_)));
}

#[test]
fn a_conversation_stays_open_until_its_pod_goes() {
    let mut lab = lab(PODS);
    let pod = lab.plan().pod("web-1").unwrap().addresses[0];
    let from = lab.from(Vantage::client_on("node-2")).unwrap().timeout(Duration::from_millis(500));
    let mut tcp = from.open(Protocol::Tcp, (pod, 8080).into()).unwrap();
    let mut udp = from.open(Protocol::Udp, (pod, 53).into()).unwrap();
    for word in ["one", "two", "three"] {
        for conversation in [&mut tcp, &mut udp] {
            let saw_source = conversation.local_addr().unwrap();
            assert_eq!(conversation.ask(word), Outcome::Answered { by: "default/web-1".into(), saw_source });
        }
    }
    lab.delete(&ObjectRef::new("Deployment", "default", "web")).unwrap();
    assert_eq!(tcp.ask("four").by(), None);
    assert_eq!(udp.ask("four").by(), None);
}

#[test]
fn pods_come_and_go_while_the_lab_runs() {
    let mut lab = lab(PODS);
    let before = lab.plan().clone();
    lab.apply_text(
        &PODS.replace("replicas: 4", "replicas: 6").replace("containerPort: 8080", "containerPort: 8081"),
    )
    .unwrap();
    let plan = lab.plan().clone();
    assert_eq!(before.pod("web-3").unwrap().addresses, plan.pod("web-3").unwrap().addresses);
    let from = lab.from(Vantage::client_on("node-1")).unwrap().timeout(Duration::from_millis(300));
    for name in ["web-1", "web-6"] {
        let address = plan.pod(name).unwrap().addresses[0];
        assert_eq!(from.tcp((address, 8081).into()).by(), Some(format!("default/{name}").as_str()));
        assert_eq!(from.tcp((address, 8080).into()), Outcome::Refused);
    }
    lab.apply_text(&PODS.replace("replicas: 4", "replicas: 1")).unwrap();
    assert_eq!(from.tcp((plan.pod("web-1").unwrap().addresses[0], 8080).into()).by(), Some("default/web-1"));
    assert_eq!(from.tcp((plan.pod("web-6").unwrap().addresses[0], 8081).into()), Outcome::TimedOut);
    let error =
        lab.apply_text("{apiVersion: v1, kind: Node, metadata: {name: late}}").unwrap_err().to_string();
    assert!(error.contains("Node late: cannot join a lab that runs"), "{error}");
}

#[test]
fn readiness_reaches_the_manifests() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n";
    let mut lab = lab(&(service.to_owned() + PODS));
    let conditions = |lab: &Lab| {
        let written = Cluster::read(lab.manifests()).unwrap();
        let slices = written.objects().filter_map(|object| match object {
            portcullis_lab::Object::EndpointSlice(slice) => Some(slice.clone()),
            _ => None,
        });
        let endpoints = slices.flat_map(|slice| slice.endpoints.unwrap_or_default());
        endpoints
            .map(|e| (e.target_ref.unwrap().name.unwrap(), e.conditions.unwrap()))
            .map(|(name, c)| (name, c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()))
            .collect::<Vec<_>>()
    };
    let ready = |name: &str| (name.to_owned(), true, true, false);
    lab.set_ready("web-1", false).unwrap();
    lab.terminate("web-3").unwrap();
    let mut found = conditions(&lab);
    found.sort();
    let expected = vec![
        ("web-1".to_owned(), false, false, false),
        ready("web-2"),
        ("web-3".to_owned(), false, true, true),
        ready("web-4"),
    ];
    assert_eq!(found, expected);
    lab.set_ready("web-1", true).unwrap();
    assert!(conditions(&lab).contains(&ready("web-1")));
}

#[test]
fn a_cluster_of_one_family_has_no_other_addresses() {
    for (families, is_v4) in [(Families::V4, true), (Families::V6, false)] {
        let plan = PlanOptions { families, ..Default::default() };
        let manifests = PODS.replace(", {ip: 'fd00:99::7'}", "").replace("{podIPs: [{ip: 10.99.0.7}]}", "{}");
        let lab = Lab::up(Cluster::parse(&manifests).unwrap(), LabOptions { plan, daemon: None }).unwrap();
        let from = lab.from(Vantage::Outside).unwrap();
        for pod in lab.plan().pods.iter().filter(|pod| pod.name.starts_with("default/web")) {
            assert_eq!(pod.addresses.iter().map(|ip| ip.is_ipv4()).collect::<Vec<_>>(), [is_v4]);
            assert_eq!(from.tcp((pod.addresses[0], 8080).into()).by(), Some(pod.name.as_str()));
        }
    }
}

/// Balances by rules written here by hand, to see that shares and sources are told truly.
#[test]
fn tallies_tell_shares_and_sources() {
    let lab = lab(PODS);
    let plan = lab.plan();
    let web = |name: &str| plan.pod(name).unwrap().addresses[0];
    let rules = format!(
        "*nat\n-A PREROUTING -d 10.96.9.9 -p tcp -m statistic --mode random --probability 0.25 -j DNAT --to {}:8080\n\
         -A PREROUTING -d 10.96.9.9 -p tcp -j DNAT --to {}:8080\n-A POSTROUTING -d {} -j MASQUERADE\nCOMMIT\n",
        web("web-1"),
        web("web-2"),
        web("web-2")
    );
    machine::restore(&lab, "node-1", &rules);
    let client = plan.pod(&client_on("node-1")).unwrap().addresses[0];
    let started = Instant::now();
    let tally =
        lab.from(Vantage::client_on("node-1")).unwrap().tcp_many("10.96.9.9:80".parse().unwrap(), 400);
    let took = started.elapsed();
    assert_eq!(tally.total(), 400);
    assert_eq!(tally.answerers().into_iter().collect::<Vec<_>>(), ["default/web-1", "default/web-2"]);
    // Ten standard deviations of 400 draws at 0.25 are 0.22.
    let share = tally.share("default/web-1");
    assert!((0.03..0.47).contains(&share), "{share}");
    // web-2 lies on the other node: it sees the first one's address there.
    let node = plan.node("node-1").unwrap().addresses[0];
    assert_eq!(
        tally.sources.iter().copied().collect::<Vec<_>>(),
        [client, node].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert!(took < Duration::from_secs(5), "400 connections took {took:?}");
    let lost = lab.from(Vantage::client_on("node-2")).unwrap().timeout(Duration::from_millis(200));
    let tally = lost.tcp_many("10.96.9.9:80".parse().unwrap(), 30);
    assert_eq!((tally.answered(), tally.others.get(&Outcome::TimedOut)), (0, Some(&30)));
}

/// The bridge's ports send a pod's packets back to it, as a Service does that picks the client itself.
#[test]
fn a_pod_may_meet_itself() {
    let lab = lab(PODS);
    let pod = lab.plan().pod("web-1").unwrap();
    let (own, node) = (pod.addresses[0], pod.node.clone());
    let rules = format!(
        "*nat\n-A PREROUTING -d 10.96.9.9 -p tcp -j DNAT --to {own}:8080\n-A POSTROUTING -s {own} -d {own} -j MASQUERADE\nCOMMIT\n"
    );
    machine::restore(&lab, &node, &rules);
    let outcome = lab.from(Vantage::pod("web-1")).unwrap().tcp("10.96.9.9:80".parse().unwrap());
    assert_eq!(outcome.by(), Some("default/web-1"), "{outcome}");
    assert_eq!(outcome.source(), Some("10.244.1.1".parse().unwrap()));
}

#[test]
fn curl_and_people_are_answered_too() {
    let lab = lab(PODS);
    let address = lab.plan().pod("web-1").unwrap().addresses[0];
    let netns = lab.netns(&Vantage::client_on("node-2")).unwrap();
    let text = netns.run(|| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect((address, 8080)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let text = text.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\ndefault/web-1 10.244."),
        "{text}"
    );
}

#[test]
fn a_lab_is_built_and_gone_in_a_moment() {
    let started = Instant::now();
    let lab = lab(PODS);
    let built = started.elapsed();
    lab.down().unwrap();
    let gone = started.elapsed() - built;
    println!("built in {built:?}, gone in {gone:?}");
    // A few hundred ms when the machine is idle.
    assert!(
        built < Duration::from_secs(5) && gone < Duration::from_secs(5),
        "built in {built:?}, gone in {gone:?}"
    );
}

#[test]
fn an_address_that_moves_to_another_pod_is_announced() {
    let pod = |name: &str, last: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: node-1, containers: \
             [{{name: c, ports: [{{containerPort: 8080}}]}}]}}, status: {{podIPs: [{{ip: 10.244.1.{last}}}, \
             {{ip: 'fd00:10:244:1::{last}'}}]}}}}\n---\n"
        )
    };
    let mut lab = lab(&(pod("asks", "50") + &pod("before", "60")));
    let addresses = ["10.244.1.60:8080", "[fd00:10:244:1::60]:8080"].map(|text| text.parse().unwrap());
    let ask = |lab: &Lab, address| {
        let prober = lab.from(Vantage::pod("asks")).unwrap().timeout(Duration::from_millis(500));
        prober.probe(Protocol::Tcp, address).by().map(str::to_owned)
    };
    for address in addresses {
        assert_eq!(ask(&lab, address).as_deref(), Some("default/before"), "{address}");
    }
    lab.update(|cluster| {
        *cluster = Cluster::parse(&(pod("asks", "50") + &pod("after", "60"))).unwrap();
    })
    .unwrap();
    for address in addresses {
        assert_eq!(ask(&lab, address).as_deref(), Some("default/after"), "{address}");
    }
}
