//! Changes after which established connections must be searched for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use portcullis_cluster::{Kind, Name};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};
use support::CompiledCluster;

fn pod(name: &str, node: &str, address: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "x", "name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "web", "containerPort": 80}]}]},
        "status": {"podIPs": [{"ip": address}]}})
}

fn policy(name: &str, app: &str, peer: &str, port: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": name}, "spec": {"podSelector": {"matchLabels": {"app": app}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": peer}}}], "ports": [{"port": port}]}]}})
}

fn cluster_policy(action: &str, peer: &str) -> Value {
    let pods =
        |app: &str| json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}});
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": action.to_lowercase()}, "spec": {"tier": "Admin", "priority": 1, "subject": pods("server"),
        "ingress": [{"action": action, "from": [pods(peer)]}]}})
}

#[test]
fn connections_are_searched_for_only_if_one_may_be_denied() {
    let mut cluster = CompiledCluster::new(&[]);
    let mut compiler = Compiler::new(Scope::Node(Name::new("n1")));
    let mut check = |what: &str, expected: bool, objects: &[Value], deleted: &[(Kind, &str)]| {
        objects.iter().for_each(|object| cluster.apply(object));
        deleted.iter().for_each(|(kind, name)| cluster.delete(*kind, "x", name));
        let dirty = cluster.take_dirty();
        let changes = compiler.update(&cluster.index, &dirty);
        assert!(!changes.is_empty(), "{what}: nothing changed");
        assert_eq!(changes.may_deny(compiler.compiled()), expected, "{what}: {changes:#?}");
    };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    check("a pod that no policy selects", false, &[namespace, pod("other", "n1", "10.1.0.9", "other")], &[]);
    check("a pod that no policy selects yet", false, &[pod("server", "n1", "10.1.0.1", "server")], &[]);
    check("a policy isolates it", true, &[policy("a", "server", "client", json!(80))], &[]);
    check("a peer is added", false, &[pod("client", "n2", "10.2.0.1", "client")], &[]);
    check("a peer loses the label", true, &[pod("client", "n2", "10.2.0.1", "other")], &[]);
    check("a rule changes", true, &[policy("a", "server", "client", json!(81))], &[]);
    check("a second policy selects the pod", true, &[policy("b", "server", "client", json!(82))], &[]);
    check("it is deleted: its rule is missing", true, &[], &[(Kind::NetworkPolicy, "b")]);
    check("a second isolated pod", true, &[pod("server-2", "n1", "10.1.0.2", "server")], &[]);
    check("it is deleted", false, &[], &[(Kind::Pod, "server-2")]);
    check("the rule has a named port", true, &[policy("a", "server", "client", json!("web"))], &[]);
    check("a ClusterNetworkPolicy accepts friends", true, &[cluster_policy("Accept", "friend")], &[]);
    check("a friend is added", false, &[pod("friend", "n2", "10.2.0.2", "friend")], &[]);
    check("another one denies enemies", true, &[cluster_policy("Deny", "enemy")], &[]);
    check("an enemy is added", true, &[pod("enemy", "n2", "10.2.0.3", "enemy")], &[]);
    check("a third one skips the tier for guests", true, &[cluster_policy("Pass", "guest")], &[]);
    check("a guest is added", true, &[pod("guest", "n2", "10.2.0.4", "guest")], &[]);
    check("the last policy is deleted", true, &[], &[(Kind::NetworkPolicy, "a")]);
}
