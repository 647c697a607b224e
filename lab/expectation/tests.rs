//! Tables of Services, pods and clients with the expected outcomes.

use std::net::SocketAddr;

use super::*;
use crate::ClusterObjects;

/// Plans a Service `a` with this `spec`, and pods written as `NAME@NODE`, with `:x` for not ready and `:t` for
/// terminating.
fn plan(spec: &str, pods: &str) -> ClusterPlan {
    let pods = pods.split_whitespace().map(|pod| {
        let (name, node) = pod.split_once('@').unwrap();
        let (node, state) = node.split_once(':').unwrap_or((node, ""));
        let deleted = if state == "t" { ", deletionTimestamp: '2026-01-01T00:00:00Z'" } else { "" };
        let ready = if state == "x" { "False" } else { "True" };
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a}}{deleted}}}\nspec: {{nodeName: \
             {node}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
        )
    });
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}], {spec}}}\n"
    );
    let node2 = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n";
    ClusterObjects::parse(&(service + node2 + &pods.collect::<String>())).unwrap().plan().unwrap()
}

fn describe(expected: &Expectation) -> String {
    match expected {
        Expectation::AnswerFrom { pods, same, source_kept } => {
            let names: Vec<&str> = pods.iter().map(|pod| pod.trim_start_matches("default/")).collect();
            let marks = [(*same, " same"), (*source_kept, " kept")];
            names.join(" ") + &marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect::<String>()
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn expectations_follow_from_the_service() {
    let all = "a-1@node-1 a-2@node-2";
    let one = "a-1@node-1";
    let local = "type: LoadBalancer, externalTrafficPolicy: Local";
    let cluster_ip = || FrontendKind::ClusterIp;
    let balancer = || FrontendKind::LoadBalancer;
    let node_port = |node: &str| FrontendKind::NodePort(node.into());
    let outside = || (Vantage::Outside, None);
    let on = |node: &'static str| (Vantage::client_on(node), Some(node));
    let rows = [
        ("", all, cluster_ip(), on("node-1"), "a-1 a-2"),
        ("", "", cluster_ip(), on("node-1"), "Refused"),
        ("", "a-1@node-1:x a-2@node-2", cluster_ip(), on("node-1"), "a-2"),
        ("", "a-1@node-1:x", cluster_ip(), on("node-1"), "Refused"),
        ("", "a-1@node-1:t a-2@node-2", cluster_ip(), on("node-1"), "a-2"),
        ("", "a-1@node-1:t", cluster_ip(), on("node-1"), "a-1"),
        ("type: LoadBalancer", "", balancer(), outside(), "Refused"),
        ("type: LoadBalancer", "", balancer(), on("node-1"), "Refused"),
        ("type: LoadBalancer", "", balancer(), (Vantage::node("node-1"), Some("node-1")), "Unspecified"),
        ("publishNotReadyAddresses: true", "a-1@node-1:x", cluster_ip(), on("node-1"), "a-1"),
        ("sessionAffinity: ClientIP", all, cluster_ip(), on("node-1"), "a-1 a-2 same"),
        ("internalTrafficPolicy: Local", all, cluster_ip(), on("node-2"), "a-2"),
        ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Dropped"),
        ("internalTrafficPolicy: Local", "", cluster_ip(), on("node-2"), "Refused"),
        ("type: NodePort", all, node_port("node-2"), outside(), "a-1 a-2"),
        (local, all, node_port("node-2"), outside(), "a-2 kept"),
        (local, one, node_port("node-2"), outside(), "Dropped"),
        (local, one, node_port("node-2"), on("node-2"), "a-1"),
        (local, one, node_port("node-2"), on("node-1"), "Unspecified"),
        (local, "a-2@node-2", balancer(), outside(), "a-2 kept"),
        (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
        (
            "type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8]",
            all,
            balancer(),
            outside(),
            "Unspecified",
        ),
        ("trafficDistribution: PreferSameNode", all, cluster_ip(), on("node-1"), "Unspecified"),
    ];
    // Expectations that differ with IPVS.
    let in_ipvs = [
        ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-1"), "a-1"),
        ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Refused"),
        ("type: NodePort, internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Unspecified"),
        (local, one, node_port("node-2"), outside(), "Dropped"),
        (local, one, node_port("node-2"), on("node-2"), "a-1"),
        (local, all, node_port("node-2"), on("node-2"), "a-2"),
        (local, all, balancer(), on("node-1"), "a-1"),
        (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
        (local, "a-2@node-2", balancer(), (Vantage::node("node-1"), Some("node-1")), "Unspecified"),
        ("type: NodePort", all, node_port("node-2"), on("node-2"), "a-1 a-2"),
    ];
    let rows = rows
        .map(|row| (DataPath::Netfilter, row))
        .into_iter()
        .chain(in_ipvs.map(|row| (DataPath::Ipvs, row)));
    for (data_path, (spec, pods, kind, (vantage, node), wanted)) in rows {
        let plan = plan(spec, pods);
        let service = plan.service("a").unwrap();
        let frontend = plan.frontends(service).into_iter().find(|frontend| frontend.kind == kind).unwrap();
        let found = describe(&expectation(&plan, data_path, service, &frontend, &vantage, node));
        assert_eq!(found, wanted, "{data_path:?}: {{{spec}}} with {pods:?} at {kind:?} from {vantage}");
    }
}

#[test]
fn services_of_another_proxy_are_not_checked() {
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut plan = plan("", "a-1@node-1");
        plan.services[0].metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
        let service = plan.service("a").unwrap();
        let frontend = plan.frontends(service).remove(0);
        let vantage = Vantage::client_on("node-1");
        assert_eq!(
            expectation(&plan, DataPath::Netfilter, service, &frontend, &vantage, Some("node-1")),
            Expectation::Unspecified,
            "{label}"
        );
    }
}

#[test]
fn a_few_losses_are_tolerated_in_ipvs_mode_where_a_node_masquerades() {
    let plan = plan("", "a@node-1");
    let from_a = Expectation::AnswerFrom { pods: ["a".to_owned()].into(), same: false, source_kept: false };
    // The pod is on node-1, and node-2 masquerades.
    let (of_node, of_bridge) = (plan.nodes[1].addresses[0], plan.nodes[0].bridge_addresses()[0]);
    let of_client: IpAddr = "10.0.0.1".parse().unwrap();
    for (data_path, source, lost, is_as_expected) in [
        (DataPath::Ipvs, of_node, 0, true),
        (DataPath::Ipvs, of_node, 2, true),
        (DataPath::Ipvs, of_bridge, 2, false),
        (DataPath::Ipvs, of_node, 3, false),
        (DataPath::Ipvs, of_node, 24, false),
        (DataPath::Ipvs, of_client, 0, true),
        (DataPath::Ipvs, of_client, 1, false),
        (DataPath::Netfilter, of_node, 1, false),
    ] {
        let answered = ProbeOutcome::Answered { responder: "a".into(), source: SocketAddr::new(source, 1) };
        let outcomes = (0..24).map(|n| if n < lost { ProbeOutcome::TimedOut } else { answered.clone() });
        let tally = tolerating_ipvs_losses(data_path, &plan, &outcomes.collect());
        assert_eq!(
            from_a.violation(&tally, &[]).is_none(),
            is_as_expected,
            "{data_path:?}, {source}, {lost} lost"
        );
    }
}

#[test]
fn violations_name_the_difference() {
    let answered = |by: &str, source: &str| ProbeOutcome::Answered {
        responder: by.into(),
        source: format!("{source}:1").parse().unwrap(),
    };
    let from = |pods: &[&str], same, source_kept| Expectation::AnswerFrom {
        pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
        same,
        source_kept,
    };
    let client: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
    let both = vec![answered("a", "10.0.0.1"), answered("b", "10.0.0.1")];
    let rows = [
        (from(&["a", "b"], false, true), both.clone(), None),
        (from(&["a"], false, false), both.clone(), Some("unexpected response from b")),
        (from(&["a", "b"], true, false), both.clone(), Some("session affinity was not kept")),
        (
            from(&["a"], false, true),
            vec![answered("a", "10.0.0.9")],
            Some("source address was translated to 10.0.0.9, expected the client's"),
        ),
        (from(&["a"], false, false), vec![answered("a", "10.0.0.9")], None),
        (
            from(&["a"], false, false),
            vec![ProbeOutcome::Refused],
            Some("1 of 1 refused, expected a response"),
        ),
        (Expectation::Refused, vec![ProbeOutcome::Refused, ProbeOutcome::Refused], None),
        (Expectation::Refused, vec![ProbeOutcome::Refused, ProbeOutcome::TimedOut], Some("expected refused")),
        (Expectation::Dropped, vec![ProbeOutcome::TimedOut], None),
        (Expectation::Dropped, vec![ProbeOutcome::Refused], Some("expected lost")),
        (Expectation::Unspecified, vec![ProbeOutcome::Refused], None),
    ];
    for (expected, outcomes, violation) in rows {
        let tally: ProbeTally = outcomes.into_iter().collect();
        assert_eq!(expected.violation(&tally, &client).as_deref(), violation, "{expected:?} {tally:?}");
    }
}
