//! Policies that cannot be understood, or only in part: they open nothing, a selector of isolated pods that is not
//! understood isolates all pods of the namespace, all other policies are enforced, and it is counted.

use crate::daemons::{NODES, wait_until};
use crate::town::Town;

/// A good one beside them: x/b takes only what x/a sends.
const GOOD: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: good, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}}";

/// What stays so whatever else is written.
const OF_THE_GOOD: &str = "
    x/a → x/b 80/tcp allow
    y/b → x/b 80/tcp deny
    z/b → y/c 80/tcp allow";

/// What is wrong, the policy's `spec`, how the count calls it, and which packets pass.
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
fn a_policy_that_is_not_understood_never_opens() {
    let mut town = Town::enforcing(&[]);
    town.apply(GOOD);
    for (what, spec, problem, lines) in ROWS {
        town.apply(&policy("odd", spec));
        town.check(what, &format!("{lines}\n{OF_THE_GOOD}"));
        for node in NODES {
            let problem = format!("problem=\"{problem}\"");
            let labels = ["kind=\"NetworkPolicy\"", &problem];
            let problems = || town.metric(node, "portcullis_object_problems", &labels);
            wait_until(&format!("{what}: it is counted as {problem}"), || problems() >= 1.0);
            assert!(town.log(node).contains("NetworkPolicy"), "{what}: the log names it");
        }
        town.delete_policy("odd");
    }
    for node in NODES {
        wait_until("nothing is wrong any more", || {
            town.metric(node, "portcullis_object_problems", &["kind=\"NetworkPolicy\""]) == 0.0
        });
    }
    // A good one that becomes unreadable is enforced as it last was.
    town.apply(&policy("odd", "{podSelector: {matchLabels: {pod: c}}}"));
    town.check("as it was", "y/b → x/c 80/tcp deny");
    town.apply(&policy("odd", "{podSelector: {matchLabels: {pod: c}}, ingress: all}"));
    town.check("unreadable", &format!("y/b → x/c 80/tcp deny\n{OF_THE_GOOD}"));
}
