//! Connectivity of a lab without daemons: every path between pods, nodes and the outside host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node_tools;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_lab::plan::client_on;
use portcullis_lab::{
    ClusterObjects, Families, Lab, LabOptions, ObjectRef, PlanOptions, ProbeOutcome, Protocol, Vantage,
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
    Lab::up(ClusterObjects::parse(manifests).unwrap(), LabOptions::default()).unwrap()
}

fn answered(by: &str, source: IpAddr) -> (Option<String>, Option<IpAddr>) {
    (Some(by.to_owned()), Some(source))
}

#[test]
fn every_vantage_point_reaches_every_pod_with_its_own_address() {
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
        let prober = lab.prober(vantage.clone()).unwrap();
        for pod in plan.pods.iter().filter(|pod| !pod.ports.is_empty()) {
            for (address, source) in pod.addresses.iter().zip(&sources) {
                for port in &pod.ports {
                    let outcome = prober.probe(port.protocol, SocketAddr::new(*address, port.port));
                    // A node's source address is its bridge's towards its own pods, and the destination towards itself.
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
                    let found = (outcome.responder().map(str::to_owned), outcome.source());
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
fn closed_ports_are_refused_and_unknown_addresses_time_out() {
    let lab = lab(PODS);
    let from = lab.prober(Vantage::client_on("node-1")).unwrap().timeout(Duration::from_millis(300));
    let pod = lab.plan().pod("web-1").unwrap().addresses.clone();
    let rows: [(SocketAddr, ProbeOutcome); 5] = [
        ((pod[0], 81).into(), ProbeOutcome::Refused),
        ((pod[1], 81).into(), ProbeOutcome::Refused),
        // Nodes send packets to unknown addresses to the outside host, which does not forward.
        ("10.96.0.10:80".parse().unwrap(), ProbeOutcome::TimedOut),
        ("[fd00:10:96::a]:80".parse().unwrap(), ProbeOutcome::TimedOut),
        ("10.244.1.200:80".parse().unwrap(), ProbeOutcome::TimedOut),
    ];
    for (to, expected) in rows {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(from.probe(protocol, to), expected, "{to}/{protocol}");
        }
    }
    let error = lab.prober(Vantage::pod("nobody")).unwrap_err().to_string();
    assert!(error.contains("no pod named nobody") && error.contains("default/web-1"), "{error}");
}

#[test]
fn rejecting_rules_refuse_connections() {
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
                let from = lab.prober(vantage.clone()).unwrap();
                assert_eq!(
                    from.probe(protocol, to(rejected)),
                    ProbeOutcome::Refused,
                    "{rejected}/{protocol} {vantage}"
                );
            }
        }
        let from = lab.prober(Vantage::node("node-1")).unwrap();
        assert_eq!(from.udp(to(dropped)), ProbeOutcome::Unreachable, "{dropped}");
    }
}

#[test]
fn a_probe_uses_the_requested_source_address_and_port() {
    let lab = lab(PODS);
    let pod = lab.plan().pod("web-2").unwrap().addresses.clone();
    for (protocol, port) in [(Protocol::Tcp, 8080), (Protocol::Udp, 53)] {
        for (to, source) in [(pod[0], "198.51.100.77"), (pod[1], "2001:db8:100::77")] {
            let source: IpAddr = source.parse().unwrap();
            let prober = lab.prober(Vantage::Outside).unwrap().source(source).source_port(4321);
            let source = SocketAddr::new(source, 4321);
            let expected = ProbeOutcome::Answered { responder: "default/web-2".into(), source };
            assert_eq!(prober.probe(protocol, (to, port).into()), expected);
        }
    }
    let foreign = lab.prober(Vantage::Outside).unwrap().source("192.0.2.1".parse().unwrap());
    assert!(matches!(foreign.tcp((pod[0], 8080).into()), ProbeOutcome::Failed(_)));
}

#[test]
fn an_echo_client_stays_connected_until_its_pod_is_deleted() {
    let mut lab = lab(PODS);
    let pod = lab.plan().pod("web-1").unwrap().addresses[0];
    let from = lab.prober(Vantage::client_on("node-2")).unwrap().timeout(Duration::from_millis(500));
    let mut tcp = from.open(Protocol::Tcp, (pod, 8080).into()).unwrap();
    let mut udp = from.open(Protocol::Udp, (pod, 53).into()).unwrap();
    for word in ["one", "two", "three"] {
        for client in [&mut tcp, &mut udp] {
            let source = client.local_addr().unwrap();
            assert_eq!(
                client.exchange(word),
                ProbeOutcome::Answered { responder: "default/web-1".into(), source }
            );
        }
    }
    lab.delete(&ObjectRef::new("Deployment", "default", "web")).unwrap();
    assert_eq!(tcp.exchange("four").responder(), None);
    assert_eq!(udp.exchange("four").responder(), None);
}

#[test]
fn pods_are_added_and_removed_while_the_lab_runs() {
    let mut lab = lab(PODS);
    let before = lab.plan().clone();
    lab.apply_text(
        &PODS.replace("replicas: 4", "replicas: 6").replace("containerPort: 8080", "containerPort: 8081"),
    )
    .unwrap();
    let plan = lab.plan().clone();
    assert_eq!(before.pod("web-3").unwrap().addresses, plan.pod("web-3").unwrap().addresses);
    let from = lab.prober(Vantage::client_on("node-1")).unwrap().timeout(Duration::from_millis(300));
    for name in ["web-1", "web-6"] {
        let address = plan.pod(name).unwrap().addresses[0];
        assert_eq!(from.tcp((address, 8081).into()).responder(), Some(format!("default/{name}").as_str()));
        assert_eq!(from.tcp((address, 8080).into()), ProbeOutcome::Refused);
    }
    lab.apply_text(&PODS.replace("replicas: 4", "replicas: 1")).unwrap();
    assert_eq!(
        from.tcp((plan.pod("web-1").unwrap().addresses[0], 8080).into()).responder(),
        Some("default/web-1")
    );
    assert_eq!(from.tcp((plan.pod("web-6").unwrap().addresses[0], 8081).into()), ProbeOutcome::TimedOut);
    let error =
        lab.apply_text("{apiVersion: v1, kind: Node, metadata: {name: late}}").unwrap_err().to_string();
    assert!(error.contains("Node late: cannot be added to a running lab"), "{error}");
}

#[test]
fn readiness_is_written_to_the_manifests() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n";
    let mut lab = lab(&(service.to_owned() + PODS));
    let conditions = |lab: &Lab| {
        let written = ClusterObjects::read(lab.manifests()).unwrap();
        let slices = written.objects().filter_map(|object| match object {
            portcullis_lab::LabObject::EndpointSlice(slice) => Some(slice.clone()),
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
        let lab =
            Lab::up(ClusterObjects::parse(&manifests).unwrap(), LabOptions { plan, daemon: None }).unwrap();
        let from = lab.prober(Vantage::Outside).unwrap();
        for pod in lab.plan().pods.iter().filter(|pod| pod.name.starts_with("default/web")) {
            assert_eq!(pod.addresses.iter().map(|ip| ip.is_ipv4()).collect::<Vec<_>>(), [is_v4]);
            assert_eq!(from.tcp((pod.addresses[0], 8080).into()).responder(), Some(pod.name.as_str()));
        }
    }
}

/// Shares and source addresses of a Service that is balanced by rules of the test.
#[test]
fn tallies_have_shares_and_source_addresses() {
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
    node_tools::restore(&lab, "node-1", &rules);
    let client = plan.pod(&client_on("node-1")).unwrap().addresses[0];
    let started = Instant::now();
    let tally =
        lab.prober(Vantage::client_on("node-1")).unwrap().tcp_many("10.96.9.9:80".parse().unwrap(), 400);
    let took = started.elapsed();
    assert_eq!(tally.total(), 400);
    assert_eq!(tally.responders().into_iter().collect::<Vec<_>>(), ["default/web-1", "default/web-2"]);
    // Ten standard deviations of the share of 400 connections at 0.25 are 0.22.
    let share = tally.share("default/web-1");
    assert!((0.03..0.47).contains(&share), "{share}");
    // web-2 is on the other node and sees the masqueraded address of node-1.
    let node = plan.node("node-1").unwrap().addresses[0];
    assert_eq!(
        tally.sources.iter().copied().collect::<Vec<_>>(),
        [client, node].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert!(took < Duration::from_secs(5), "400 connections took {took:?}");
    let lost = lab.prober(Vantage::client_on("node-2")).unwrap().timeout(Duration::from_millis(200));
    let tally = lost.tcp_many("10.96.9.9:80".parse().unwrap(), 30);
    assert_eq!((tally.answered(), tally.failures.get(&ProbeOutcome::TimedOut)), (0, Some(&30)));
}

/// Bridge ports are in hairpin mode, which a Service needs whose endpoint is the client itself.
#[test]
fn a_pod_can_connect_to_itself_through_a_service() {
    let lab = lab(PODS);
    let pod = lab.plan().pod("web-1").unwrap();
    let (own, node) = (pod.addresses[0], pod.node.clone());
    let rules = format!(
        "*nat\n-A PREROUTING -d 10.96.9.9 -p tcp -j DNAT --to {own}:8080\n-A POSTROUTING -s {own} -d {own} -j MASQUERADE\nCOMMIT\n"
    );
    node_tools::restore(&lab, &node, &rules);
    let outcome = lab.prober(Vantage::pod("web-1")).unwrap().tcp("10.96.9.9:80".parse().unwrap());
    assert_eq!(outcome.responder(), Some("default/web-1"), "{outcome}");
    assert_eq!(outcome.source(), Some("10.244.1.1".parse().unwrap()));
}

#[test]
fn http_requests_get_an_http_response() {
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
fn a_lab_is_built_and_removed_quickly() {
    let started = Instant::now();
    let lab = lab(PODS);
    let built = started.elapsed();
    lab.down().unwrap();
    let removed = started.elapsed() - built;
    println!("built in {built:?}, removed in {removed:?}");
    // A few hundred ms on an idle machine.
    assert!(
        built < Duration::from_secs(5) && removed < Duration::from_secs(5),
        "built in {built:?}, removed in {removed:?}"
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
        let prober = lab.prober(Vantage::pod("asks")).unwrap().timeout(Duration::from_millis(500));
        prober.probe(Protocol::Tcp, address).responder().map(str::to_owned)
    };
    for address in addresses {
        assert_eq!(ask(&lab, address).as_deref(), Some("default/before"), "{address}");
    }
    lab.update(|cluster| {
        *cluster = ClusterObjects::parse(&(pod("asks", "50") + &pod("after", "60"))).unwrap();
    })
    .unwrap();
    for address in addresses {
        assert_eq!(ask(&lab, address).as_deref(), Some("default/after"), "{address}");
    }
}
