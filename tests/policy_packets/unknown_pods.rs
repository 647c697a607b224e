//! `--network-policy-unknown-pods=deny`: a pod that the daemon does not know yet can only communicate with its own node.

use crate::daemons::{NODES, wait_until};
use crate::settle::wait_until_settled;
use crate::test_cluster::{TestCluster, daemon_args};
use crate::tools;

const DENY: [&str; 2] = ["--network-policy", "--network-policy-unknown-pods=deny"];

const NEW_PODS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: x, labels: {pod: d}}, spec: {nodeName: node-2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: e, namespace: x, labels: {pod: e}}, spec: {nodeName: node-2}}";

/// Only x/a may connect to x/e.
const ONLY_A: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-a, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: e}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}}";

#[test]
fn unknown_pod_can_only_communicate_with_its_node() {
    let mut cluster = TestCluster::enforcing(&DENY[1..]);
    cluster.apply(ONLY_A);
    // The daemon is stopped while pods start, like one that waits for its API server.
    cluster.signal("node-2", libc::SIGSTOP);
    cluster.lab.apply_text(NEW_PODS).unwrap();
    cluster.check(
        "while they are unknown",
        "x/d → x/b 80/tcp deny
         x/d → x/a 80/udp deny
         x/b → x/d 80/tcp deny
         x/a → x/d 80/udp deny
         x/d → x/e 80/tcp deny
         node/node-1 → x/d 80/tcp deny
         node/node-2 → x/d 80/tcp allow
         node/node-2 → x/e 80/udp allow
         x/d → node/node-2 80/tcp allow
         x/b → x/c 80/tcp allow
         x/a → x/b 80/udp allow",
    );
    cluster.signal("node-2", libc::SIGCONT);
    cluster.wait_for("once they are known", "x/d → x/b 80/tcp allow");
    wait_until_settled(&mut cluster.lab);
    cluster.check(
        "once they are known",
        "x/d → x/a 80/udp allow
         x/b → x/d 80/tcp allow
         x/a → x/e 80/tcp allow
         x/d → x/e 80/tcp deny
         node/node-1 → x/e 80/tcp deny
         node/node-2 → x/e 80/tcp allow",
    );
    let dropped =
        cluster.metric("node-2", "portcullis_network_policy_dropped_packets_total", &["unknown-pods"]);
    assert!(dropped >= 12.0, "{dropped}");
}

/// Without `spec.podCIDRs` in the Node, unknown pods cannot be denied, and health reports that.
#[test]
fn health_reports_a_node_without_pod_cidrs() {
    let mut cluster = TestCluster::enforcing(&DENY[1..]);
    cluster.apply(ONLY_A.replace("pod: e", "pod: b").as_str());
    let folder = tempfile::tempdir().unwrap();
    let all = std::fs::read_dir(cluster.lab.manifests()).unwrap();
    for file in all.map(|file| file.unwrap().path()) {
        let mut list: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for item in list["items"].as_array_mut().unwrap() {
            if item["kind"] == "Node" {
                item["spec"] = serde_json::json!({});
            }
        }
        std::fs::write(folder.path().join(file.file_name().unwrap()), list.to_string()).unwrap();
    }
    NODES.iter().for_each(|node| cluster.stop(node));
    let mut child = cluster.netns("node-2").command(env!("CARGO_BIN_EXE_portcullis"));
    child.args(daemon_args("iptables", &DENY)).args(["--hostname-override=node-2", "--socket="]);
    let mut child = child.arg("--manifests").arg(folder.path()).spawn().unwrap();
    let netns = cluster.netns("node-2");
    let healthz = || tools::http_get(&netns, "127.0.0.1:10256", "/healthz").unwrap_or_default();
    wait_until("healthz reports it", || healthz().contains("pod CIDRs (spec.podCIDRs)"));
    let answer = healthz();
    assert!(answer.contains(" 503 ") && answer.contains("\"NetworkPolicy: "), "{answer}");
    assert!(cluster.metric("node-2", "portcullis_network_policy_sync_failures_total", &[]) >= 1.0);
    cluster.check(
        "policies of known pods are enforced",
        "x/a → x/b 80/tcp allow\n x/c → x/b 80/tcp deny\n y/c → z/b 80/udp allow",
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
