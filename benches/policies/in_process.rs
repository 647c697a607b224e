//! First sync and changes of a large cluster, in this process.

use serde_json::{Value, json};

use super::cluster_state::{self, APP_OF_NO_POD_HERE, LOCAL_PODS, NAMESPACES};
use super::follower::{Change, Cluster, First, Kind};

/// Measures the first sync of a cluster, then all changes.
pub(crate) fn measure(pods: usize, repeats: usize, rounds: usize) -> (First, Vec<Change>) {
    let (first, mut cluster) = Cluster::measure_first(|| cluster_state::index(pods), repeats);
    (first, kinds(pods).iter().flat_map(|kind| cluster.measure(kind, rounds)).collect())
}

/// Measures the start of a remote pod in a cluster with this number of pods.
pub(crate) fn pod_start(pods: usize, rounds: usize) -> Change {
    let mut changes = Cluster::new(cluster_state::index(pods)).measure(&remote_pod(pods), rounds);
    changes.swap_remove(0)
}

fn remote_pod(pods: usize) -> Kind {
    // This number has a namespace of stage `live` and the app `web`, which many rules select.
    let number = pods.next_multiple_of(NAMESPACES * 10);
    Kind::object(["pod elsewhere starts", "pod elsewhere stops"], cluster_state::pod(number, 7))
}

fn kinds(pods: usize) -> Vec<Kind> {
    let number = pods.next_multiple_of(NAMESPACES * 10);
    let relabelled = |stage| cluster_state::namespace(1, stage);
    let added = |port| {
        let rules = cluster_state::app_rules(0, "web", port);
        cluster_state::named_policy(0, "added", json!({"matchLabels": {"app": "web"}}), rules)
    };
    vec![
        remote_pod(pods),
        Kind::object(["pod here starts", "pod here stops"], cluster_state::pod(number + 1, 0)),
        Kind::object(
            ["pod here starts, new profile", "pod here stops, last of it"],
            cluster_state::pod_of(number + 2, APP_OF_NO_POD_HERE, 0),
        ),
        Kind::object(["policy added", "policy deleted"], added(8081)),
        Kind::versions(
            ["policy changed, ports", "policy changed back"],
            cluster_state::policy(0, 1, 8081),
            cluster_state::policy(0, 1, 8080),
        ),
        Kind::versions(
            ["policy changed, peers", "policy changed back"],
            with_new_peers(cluster_state::policy(0, 1, 8080)),
            cluster_state::policy(0, 1, 8080),
        ),
        Kind::versions(
            ["namespace relabelled", "namespace relabelled back"],
            relabelled("live"),
            relabelled("trial"),
        ),
    ]
}

/// Changes the first rule to allow all pods of some apps in all namespaces, a set that no other rule uses.
fn with_new_peers(mut policy: Value) -> Value {
    let apps = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db", "mail"]}]});
    policy["spec"]["ingress"][0]["from"] = json!([{"namespaceSelector": {}, "podSelector": apps}]);
    policy
}

/// Describes the cluster.
pub(crate) fn about(pods: usize) -> String {
    format!(
        "{} pods on {} nodes, {LOCAL_PODS} of them here; {} namespaces; {} policies, {} of them for pods here",
        grouped(pods),
        cluster_state::NODES,
        NAMESPACES,
        grouped(cluster_state::POLICIES),
        cluster_state::LOCAL_POLICIES
    )
}

/// Formats a number with thousands separators.
pub(crate) fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}
