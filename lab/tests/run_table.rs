//! The table of a run, with iptables rules of the test instead of a daemon.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node_tools;

use std::time::Duration;

use portcullis_lab::{
    ClusterObjects, Family, FrontendKind, Lab, LabOptions, ProbeReport, Protocol, RunOptions, Vantage, probe,
};

const MANIFESTS: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a}}
spec: {nodeName: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, labels: {app: a}}
spec: {nodeName: node-2}
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, allocateLoadBalancerNodePorts: false, selector: {app: a}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {selector: {app: none}, ports: [{port: 80}, {name: s, port: 81, protocol: SCTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: c}
spec: {clusterIP: None, selector: {app: a}, ports: [{port: 80}]}
";

/// Rules that balance `a` over its pods, reject `b`, and route the load balancer address of `a` to the pod on node-1.
fn rules(lab: &Lab, node: &str) -> String {
    let frontend = |service: &str, kind: &FrontendKind| {
        lab.plan().frontend_address(service, kind, Family::V4, 80).unwrap().ip()
    };
    let pod = |name: &str| lab.plan().pod(name).unwrap().addresses[0];
    let (cluster, balancer) =
        (frontend("a", &FrontendKind::ClusterIp), frontend("a", &FrontendKind::LoadBalancer));
    let (one, two, none) = (pod("a-1"), pod("a-2"), frontend("b", &FrontendKind::ClusterIp));
    let masquerade = if node == "node-1" {
        format!("-A POSTROUTING -s 192.168.77.0/24 -d {one} -j MASQUERADE\n")
    } else {
        String::new()
    };
    format!(
        "*nat\n:BALANCE - [0:0]\n-A PREROUTING -j BALANCE\n-A OUTPUT -j BALANCE\n\
         -A BALANCE -d {cluster} -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to {one}:8080\n\
         -A BALANCE -d {cluster} -p tcp -j DNAT --to {two}:8080\n-A BALANCE -d {balancer} -p tcp -j DNAT --to {one}:8080\n\
         {masquerade}-A POSTROUTING -s {one} -d {one} -j MASQUERADE\nCOMMIT\n\
         *filter\n-A FORWARD -d {none} -j REJECT\n-A OUTPUT -d {none} -j REJECT\nCOMMIT\n"
    )
}

fn rows(report: &ProbeReport, service: &str) -> Vec<String> {
    let of = report.rows.iter().filter(|row| row.service == service);
    of.map(|row| {
        let by = row.tally.as_ref().map(|tally| tally.responders().into_iter().collect::<Vec<_>>().join(" "));
        let violation = row.violation().map(|violation| format!(" ✗ {violation}")).unwrap_or_default();
        format!(
            "{} {} {}: {}{violation}",
            row.frontend.kind,
            row.frontend.port,
            row.vantage,
            by.unwrap_or("-".into())
        )
    })
    .collect()
}

#[test]
fn the_table_shows_violations() {
    let lab = Lab::up(ClusterObjects::parse(MANIFESTS).unwrap(), LabOptions::default()).unwrap();
    for node in ["node-1", "node-2"] {
        node_tools::restore(&lab, node, &rules(&lab, node));
    }
    let options = RunOptions { timeout: Duration::from_millis(500), ..Default::default() };
    let report = probe(&lab, &options).unwrap();
    let both = "default/a-1 default/a-2";
    assert_eq!(
        rows(&report, "default/a"),
        [
            format!("ClusterIP 80 pod portcullis-lab/client-node-1: {both}"),
            format!("ClusterIP 80 pod portcullis-lab/client-node-2: {both}"),
            format!("ClusterIP 80 node node-1: {both}"),
            format!("ClusterIP 80 node node-2: {both}"),
            "LoadBalancer 80 pod portcullis-lab/client-node-1: default/a-1".to_owned(),
            "LoadBalancer 80 pod portcullis-lab/client-node-2: default/a-1".to_owned(),
            "LoadBalancer 80 node node-1: default/a-1".to_owned(),
            "LoadBalancer 80 node node-2: default/a-1".to_owned(),
            "LoadBalancer 80 outside: default/a-1".to_owned(),
        ]
    );
    let refused: Vec<String> = [
        "pod portcullis-lab/client-node-1",
        "pod portcullis-lab/client-node-2",
        "node node-1",
        "node node-2",
    ]
    .iter()
    .flat_map(|vantage| [format!("ClusterIP 80 {vantage}: ")])
    .collect();
    assert_eq!(rows(&report, "default/b")[..4], refused, "{report}");
    let not_probed_or_no_response = if Protocol::Sctp.is_supported() { ": " } else { ": -" };
    let sctp = &rows(&report, "default/b")[4..];
    assert!(
        sctp.iter().all(|row| row.contains("81") && row.ends_with(not_probed_or_no_response)),
        "{sctp:?}"
    );
    assert_eq!(report.skipped.len(), 1);
    assert!(report.is_as_expected(), "{report}");
    let text = report.to_string();
    assert!(
        text.contains("a-1 ") && text.contains("a-2 ") && text.contains("kept") && text.contains("refused"),
        "{text}"
    );
    assert!(text.contains("seen as node-1 (10.244.1.1)"), "{text}");

    // Break it: masquerade, reject nothing, and route the load balancer address to the other node's pod.
    let balancer =
        lab.plan().frontend_address("a", &FrontendKind::LoadBalancer, Family::V4, 80).unwrap().ip();
    let two = lab.plan().pod("a-2").unwrap().addresses[0];
    let broken = format!(
        "*nat\n-F BALANCE\n-A BALANCE -d {balancer} -p tcp -j DNAT --to {two}:8080\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n*filter\n-F\nCOMMIT\n"
    );
    let netns = lab.netns(&Vantage::node("node-1")).unwrap();
    let script = format!("printf '{}' | iptables-restore --noflush", broken.replace('\n', "\\n"));
    assert!(netns.command("sh").args(["-c", &script]).status().unwrap().success());
    let report = probe(&lab, &options).unwrap();
    let outside: Vec<String> =
        rows(&report, "default/a").into_iter().filter(|row| row.contains("outside")).collect();
    assert_eq!(outside, ["LoadBalancer 80 outside: default/a-2 ✗ unexpected response from default/a-2"]);
    assert!(rows(&report, "default/b")[0].ends_with("✗ expected refused"), "{report}");
    assert!(!report.is_as_expected());
}
