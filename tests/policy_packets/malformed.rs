//! Invalid and partly invalid policies: they allow nothing, an invalid `podSelector` isolates all pods of the namespace, all
//! other policies are enforced, and the problems are counted.

use crate::daemons::{NODES, wait_until};
use crate::test_cluster::TestCluster;

/// A valid policy beside them: only x/a may connect to x/b.
const VALID: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: good, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}}";

/// Connections that the invalid policies must not change.
const UNCHANGED: &str = "
    x/a → x/b 80/tcp allow
    y/b → x/b 80/tcp deny
    z/b → y/c 80/tcp allow";

/// Case, the policy's `spec`, the metric's label, the expected connections.
const ROWS: [(&str, &str, &str, &str); 13] = [
    (
        "an unknown operator among the pods that are isolated",
        "{podSelector: {matchExpressions: [{key: pod, operator: Near, values: [c]}]}}",
        "field",
        "y/b → x/c 80/tcp deny\n y/b → x/a 80/tcp deny\n x/c → y/b 80/tcp allow",
    ),
    (
        "an unknown operator among the peers",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: Near}]}}]}]}",
        "field",
        "x/a → x/c 80/tcp deny\n y/b → x/c 80/tcp deny",
    ),
    (
        "a bad block",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{ipBlock: {cidr: 10.244.300.0/24}}, {podSelector: {matchLabels: {pod: a}}}]}]}",
        "field",
        "x/a → x/c 80/tcp allow\n y/b → x/c 80/tcp deny",
    ),
    (
        "a bad exception",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.20/99]}}]}]}",
        "field",
        "x/b → x/c 80/tcp deny\n y/b → x/c 80/tcp deny",
    ),
    (
        "the end before the start",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 81, endPort: 80}, {port: 80, protocol: UDP}]}]}",
        "field",
        "x/a → x/c 80/tcp deny\n x/a → x/c 81/tcp deny\n x/a → x/c 80/udp allow",
    ),
    (
        "an unknown protocol",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 80, protocol: QUIC}]}]}",
        "field",
        "x/a → x/c 80/tcp deny\n x/a → x/c 80/udp deny",
    ),
    (
        "peers of the other direction",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{to: [{podSelector: {matchLabels: {pod: a}}}]}]}",
        "field",
        "x/a → x/c 80/tcp deny\n y/b → x/c 80/tcp deny",
    ),
    (
        "an empty peer",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{}]}]}",
        "field",
        "x/a → x/c 80/tcp deny\n y/b → x/c 80/tcp deny",
    ),
    (
        "an unknown type of policy",
        "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Inbound]}",
        "field",
        "y/b → x/c 80/tcp deny\n x/c → y/b 80/tcp deny\n y/b → x/a 80/tcp allow",
    ),
    ("a number for a spec", "7", "unreadable", "y/b → x/c 80/tcp allow"),
    ("text for rules", "{podSelector: {}, ingress: none}", "unreadable", "y/b → x/c 80/tcp allow"),
    ("a list for a selector", "{podSelector: [c]}", "unreadable", "y/b → x/c 80/tcp allow"),
    (
        "text for an end",
        "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 80, endPort: last}]}]}",
        "unreadable",
        "y/b → x/c 80/tcp allow",
    ),
];

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: x}}, spec: {spec}}}"
    )
}

#[test]
fn invalid_policy_never_allows_connections() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(VALID);
    for (what, spec, problem, lines) in ROWS {
        cluster.apply(&policy("odd", spec));
        cluster.check(what, &format!("{lines}\n{UNCHANGED}"));
        for node in NODES {
            let problem = format!("problem=\"{problem}\"");
            let labels = ["kind=\"NetworkPolicy\"", &problem];
            let problems = || cluster.metric(node, "portcullis_object_problems", &labels);
            wait_until(&format!("{what}: it is counted as {problem}"), || problems() >= 1.0);
            assert!(cluster.log(node).contains("NetworkPolicy"), "{what}: the log names it");
        }
        cluster.delete_policy("odd");
    }
    for node in NODES {
        wait_until("no problems are left", || {
            cluster.metric(node, "portcullis_object_problems", &["kind=\"NetworkPolicy\""]) == 0.0
        });
    }
    // The last valid version of a policy that becomes unreadable is enforced.
    cluster.apply(&policy("odd", "{podSelector: {matchLabels: {pod: c}}}"));
    cluster.check("valid", "y/b → x/c 80/tcp deny");
    cluster.apply(&policy("odd", "{podSelector: {matchLabels: {pod: c}}, ingress: all}"));
    cluster.check("unreadable", &format!("y/b → x/c 80/tcp deny\n{UNCHANGED}"));
}
