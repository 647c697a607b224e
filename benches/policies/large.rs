//! Changes that meet policies with many rules or address blocks, and policies of all pods.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::cluster_state::{self, LOCAL_PODS, applied, named_policy};
use super::follower::{Change, Cluster, Kind};

/// Number of address blocks in one policy, which is near the limit of 20,000 entries, and in several.
const BLOCKS: usize = 19_900;
const POLICIES_WITH_BLOCKS: usize = 200;

/// Number of rules, with a selector and a port each. As many in one policy are above the limit.
const RULES: usize = 2_000;
const POLICIES_WITH_RULES: usize = 3;

/// Number of pods that these rules apply to.
const SELECTED_PODS: usize = 3_000;

/// Measures all changes in clusters with this number of pods.
pub(crate) fn measure(pods: usize, rounds: usize) -> Vec<Change> {
    [blocks_of_one_policy(), blocks_of_several_policies(), many_rules(), policy_of_all_pods()]
        .into_iter()
        .flat_map(|Scenario { objects, kind, is_slow }| {
            let mut index = cluster_state::index(pods);
            objects.into_iter().for_each(|object| _ = index.handle(applied(object)));
            // A change of thousands of rules takes seconds.
            let rounds = if is_slow { rounds.min(5) } else { rounds };
            Cluster::new(index).measure(&kind, rounds)
        })
        .collect()
}

/// Objects in addition to those of the cluster, and a change.
struct Scenario {
    objects: Vec<Value>,
    kind: Kind,
    is_slow: bool,
}

/// Returns blocks, none of them adjacent to another. `more` are additional ones among them.
fn blocks(numbers: impl Iterator<Item = usize>, more: usize) -> Value {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let address = |n: usize| Ipv4Addr::from(first + u32::try_from(n).expect("they are few"));
    let block = |n: usize| json!({"ipBlock": {"cidr": format!("{}/32", address(n))}});
    let more = (0..more).map(|n| 4 * (7_000 + n) + 2);
    let blocks: Vec<Value> = numbers.map(|n| 4 * n).chain(more).map(block).collect();
    json!({"egress": [{"to": blocks}]})
}

/// Returns the policy of all blocks, for the pods of a namespace.
pub(crate) fn policy_with_blocks(more: usize) -> Value {
    named_policy(0, "blocks", json!({}), blocks(0..BLOCKS, more))
}

fn blocks_of_one_policy() -> Scenario {
    Scenario {
        objects: vec![policy_with_blocks(0)],
        kind: Kind::versions(
            ["1 of 19,900 blocks added", "1 of 19,900 blocks removed"],
            policy_with_blocks(1),
            policy_with_blocks(0),
        ),
        is_slow: false,
    }
}

fn blocks_of_several_policies() -> Scenario {
    let size = BLOCKS / POLICIES_WITH_BLOCKS;
    let policy = |n: usize, more| {
        let spec = blocks(n * size..(n + 1) * size, more);
        named_policy(0, &format!("blocks-{n:03}"), json!({}), spec)
    };
    Scenario {
        objects: (0..POLICIES_WITH_BLOCKS).map(|n| policy(n, 0)).collect(),
        kind: Kind::versions(
            ["the same in 200 policies", "the same in 200 policies"],
            policy(7, 1),
            policy(7, 0),
        ),
        is_slow: false,
    }
}

fn many_rules() -> Scenario {
    let size = RULES.div_ceil(POLICIES_WITH_RULES);
    let app = "selected";
    let pods = (0..SELECTED_PODS).map(|n| cluster_state::pod_of(600_000 + 50 * n, app, 0));
    let policies = |app: &str| -> Vec<Value> {
        let policy = |k: usize| {
            let rule = |n: usize| {
                let apps = json!({"matchLabels": {"app": format!("client-{}", k * size + n)}});
                json!({"from": [{"podSelector": apps}], "ports": [{"port": 1_000 + n}]})
            };
            let rules: Vec<Value> = (0..size).map(rule).collect();
            named_policy(
                0,
                &format!("rules-{k}"),
                json!({"matchLabels": {"app": app}}),
                json!({"ingress": rules}),
            )
        };
        (0..POLICIES_WITH_RULES).map(policy).collect()
    };
    Scenario {
        objects: pods.chain(policies("none")).collect(),
        kind: Kind::versions_of_all(
            ["2,000 rules, 3,000 pods selected", "the same, no pod selected"],
            policies(app),
            policies("none"),
        ),
        is_slow: true,
    }
}

/// A ClusterNetworkPolicy that applies to all pods; each pod also has a policy of its own, and so its own profile.
fn policy_of_all_pods() -> Scenario {
    let own = |n: usize| {
        let (number, app) = (500_000 + n, format!("own-{n}"));
        let selector = json!({"matchLabels": {"app": app}});
        let policy = named_policy(number % 50, &app, selector, cluster_state::app_rules(n % 50, &app, 8080));
        [cluster_state::pod_of(number, &app, 0), policy]
    };
    let guard = |ports: u16| {
        let rule = |n: u16| {
            let peer = json!({"namespaces": {"matchLabels": {"stage": "trial"}}});
            let port = json!({"tcp": {"destinationPort": {"number": 7_000 + n}}});
            json!({"action": "Deny", "to": [peer], "protocols": [port]})
        };
        let rules: Vec<Value> = (0..ports).map(rule).collect();
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "guard", "resourceVersion": "1"},
            "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, "egress": rules},
        })
    };
    Scenario {
        objects: (0..LOCAL_PODS).flat_map(own).chain([guard(5)]).collect(),
        kind: Kind::versions(
            ["policy of all pods: rule added", "policy of all pods: rule removed"],
            guard(6),
            guard(5),
        ),
        is_slow: false,
    }
}
