//! Names of nf_tables objects must be the same after a restart, on every node and in every version; otherwise each start
//! would replace all objects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use portcullis_policy::Scope;
use serde_json::json;
use support::CompiledCluster;

#[test]
fn names_and_descriptions_are_functions_of_content() {
    let mut cluster = CompiledCluster::new(&[]);
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "red", "name": "web", "labels": {"app": "web"}},
        "status": {"podIPs": [{"ip": "10.0.0.1"}]},
    }));
    for (name, peer) in [
        ("allow-web", json!({"podSelector": {"matchLabels": {"app": "web"}}})),
        (
            "allow-any",
            json!({"namespaceSelector": {"matchExpressions": [
                {"key": "team", "operator": "In", "values": ["red", "blue"]}, {"key": "old", "operator": "DoesNotExist"},
            ]}}),
        ),
    ] {
        cluster.apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "red", "name": name},
            "spec": {"ingress": [{"from": [peer], "ports": [{"port": "http"}]}]},
        }));
    }
    cluster.apply(&json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{
                "action": "Deny", "protocols": [{"udp": {"destinationPort": {"number": 53}}}],
                "to": [{"nodes": {"matchLabels": {"os": "linux"}}}, {"namespaces": {}}],
            }],
        },
    }));
    cluster.update();
    let compiled = cluster.compiled(Scope::Cluster);
    let mut names: Vec<String> = Vec::new();
    names.extend(compiled.profiles().map(|profile| format!("{}: {}", profile.name(), profile.describe())));
    names.extend(compiled.rules().map(|(id, _)| format!("{}: {}", id.name(), id.describe())));
    names.extend(compiled.sets().map(|(id, _)| format!("{}: {}", id.name(), id.describe())));
    names.extend(compiled.named_ports().map(|(id, _)| format!("{}: {}", id.name(), id.describe())));
    let expected = [
        "profile-in-red/allow-any-and-1-more-nrdajayres5eprmk: ingress by NetworkPolicy red/allow-any, red/allow-web",
        "profile-out-guard-6lftdlpt3fuknbfr: egress by Admin guard",
        "policy-in-red/allow-any-xb7iirmzeqwcjbxq: NetworkPolicy red/allow-any ingress",
        "policy-in-red/allow-web-ddvzi44pucu6oaea: NetworkPolicy red/allow-web ingress",
        "cluster-policy-out-guard-672ecpbtrhsmkeqq: ClusterNetworkPolicy guard egress",
        "set-pods.app_web.in.namespace.red-pyzprdgphjbkegtw: pods app=web in namespace red",
        "set-all.pods.in.namespaces._old_team.in._blue_red_-y4nmgufl7dnqp7di: all pods in namespaces !old,team in (blue,red)",
        "set-all.pods.in.all.namespaces_.nodes.os_linux-36fzj3bnm7sus2ch: all pods in all namespaces; nodes os=linux",
        "port-in-http/tcp-nhzd3vmdx25o2r2p: port http/tcp of pods judged here",
    ];
    assert_eq!(names, expected);
}
