//! State of a large cluster: nodes, namespaces, dual-stack pods, and typical NetworkPolicies.

use portcullis_cluster::{Event, Index, Kind, NamespacedName, Object, ObjectKey};
use serde_json::{Value, json};

use super::api_server::ApiServer;
use super::namespace::Namespace;

/// The node on which policies are enforced.
pub(crate) const NODE: &str = "node-000";

/// Value of `--cluster-cidr`.
pub(crate) const CLUSTER_CIDR: &str = "10.0.0.0/8,fd00:10::/32";

/// Number of pods on that node.
pub(crate) const LOCAL_PODS: usize = 110;

/// Number of NetworkPolicies. In each namespace, policies 0 and 1 select pods of the node.
pub(crate) const POLICIES: usize = NAMESPACES * POLICIES_OF_NAMESPACE;

/// Number of policies that select pods of the node.
pub(crate) const LOCAL_POLICIES: usize = 2 * NAMESPACES;

pub(crate) const NAMESPACES: usize = 50;
pub(crate) const NODES: usize = 100;
/// App without pods on the node, which is selected by its own policies.
pub(crate) const APP_OF_NO_POD_HERE: &str = "cache";

const POLICIES_OF_NAMESPACE: usize = 20;

/// Apps in the order of pods. The node has the first pods of each namespace: `web` and `api` in all of them, and a few `db`.
const APPS: [&str; 10] =
    ["web", "api", "db", "cache", "queue", "auth", "search", "billing", "mail", "worker"];

/// Returns all objects of a cluster with this number of pods.
pub(crate) fn objects(pods: usize) -> impl Iterator<Item = Value> {
    let nodes = (0..NODES).map(node);
    let namespaces = (0..NAMESPACES).map(|n| namespace(n, stage(n)));
    let pods = (0..pods).map(|n| pod(n, if n < LOCAL_PODS { 0 } else { 1 + n % (NODES - 1) }));
    let policies = (0..NAMESPACES).flat_map(|n| (0..POLICIES_OF_NAMESPACE).map(move |k| policy(n, k, 8080)));
    nodes.chain(namespaces).chain(pods).chain(policies)
}

/// Starts an API server with all objects in a namespace.
pub(crate) fn server(pods: usize, namespace: &Namespace) -> ApiServer {
    namespace.run(|| {
        let server = ApiServer::start();
        server.load(objects(pods));
        server.set_revision(1);
        server
    })
}

/// Returns an index with all objects.
pub(crate) fn index(pods: usize) -> Index {
    let mut index = Index::new();
    objects(pods).for_each(|object| _ = index.handle(applied(object)));
    index
}

/// Returns the event of an added or changed object.
pub(crate) fn applied(object: Value) -> Event {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that is used");
    Event::Applied(Object::parse(kind, object).expect("an object as the API has it").object)
}

/// Returns the event of a deleted object.
pub(crate) fn deleted(object: &Value) -> Event {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::from_api(text("/apiVersion"), text("/kind")).expect("a kind that is used");
    let name = NamespacedName::new(text("/metadata/namespace"), text("/metadata/name"));
    Event::Deleted(ObjectKey { kind, name })
}

fn node(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{n:03}"), "resourceVersion": "1"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.1.{}", n + 1)},
            {"type": "InternalIP", "address": format!("fd00:192::{:x}", n + 1)},
        ]},
    })
}

/// Returns the stage of a namespace; half of them are `live`.
fn stage(n: usize) -> &'static str {
    if n.is_multiple_of(2) { "live" } else { "trial" }
}

/// Returns a namespace with this stage as label.
pub(crate) fn namespace(n: usize, stage: &str) -> Value {
    let name = namespace_name(n);
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "resourceVersion": "1",
            "labels": {"kubernetes.io/metadata.name": name, "stage": stage},
        },
    })
}

fn namespace_name(n: usize) -> String {
    format!("team-{n:02}")
}

/// Returns the pod with this number, which determines its namespace, app and addresses, on a node.
pub(crate) fn pod(n: usize, node: usize) -> Value {
    pod_of(n, APPS[n / NAMESPACES % APPS.len()], node)
}

/// Returns a pod of an app.
pub(crate) fn pod_of(n: usize, app: &str, node: usize) -> Value {
    let [_, a, b, c] = u32::try_from(n).expect("pods are few").to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-5d59d67564-{n:05}"), "namespace": namespace_name(n % NAMESPACES),
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": app, "pod-template-hash": "5d59d67564"},
        },
        "spec": {
            "nodeName": format!("node-{node:03}"),
            "containers": [{"name": app, "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
            ]}],
        },
        "status": {
            "phase": "Running",
            "podIP": format!("10.{a}.{b}.{c}"),
            "podIPs": [{"ip": format!("10.{a}.{b}.{c}")}, {"ip": format!("fd00:10::{n:x}")}],
        },
    })
}

/// Returns a policy of a namespace: policy 0 isolates all pods and allows common traffic, policy 1 selects `web`
/// and `api`, the others select one of the other apps, which have no pods on the node. `port` is one of its ports.
pub(crate) fn policy(n: usize, k: usize, port: u16) -> Value {
    let others = &APPS[3..];
    let (name, selector, spec) = match k {
        0 => ("default".to_owned(), json!({}), default_rules()),
        1 => {
            let apps =
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]});
            ("front".to_owned(), apps, app_rules(n, "web", port))
        }
        _ => {
            let app = others[(k - 2) % others.len()];
            (format!("{app}-{k}"), json!({"matchLabels": {"app": app}}), app_rules(n, app, port))
        }
    };
    named_policy(n, &name, selector, spec)
}

/// Returns a policy with this name, pod selector and rules.
pub(crate) fn named_policy(n: usize, name: &str, selector: Value, mut spec: Value) -> Value {
    spec["podSelector"] = selector;
    spec["policyTypes"] = json!(["Ingress", "Egress"]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace_name(n), "resourceVersion": "1"},
        "spec": spec,
    })
}

fn default_rules() -> Value {
    json!({
        "ingress": [
            {"from": [{"namespaceSelector": {}}], "ports": [{"port": "metrics"}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "worker"}}}]},
        ],
        "egress": [
            {
                "to": [{
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-00"}},
                    "podSelector": {"matchLabels": {"app": "search"}},
                }],
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
            },
        ],
    })
}

/// Returns typical rules for an app.
pub(crate) fn app_rules(n: usize, app: &str, port: u16) -> Value {
    json!({
        "ingress": [
            {
                "from": [
                    {"podSelector": {"matchLabels": {"app": app}}},
                    {
                        "namespaceSelector": {"matchLabels": {"stage": "live"}},
                        "podSelector": {"matchLabels": {"app": "web"}},
                    },
                ],
                "ports": [{"port": port}, {"port": "http"}],
            },
            {
                "from": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": [format!("192.168.{n}.0/24")]}}],
                "ports": [{"port": 9000, "endPort": 9100}],
            },
        ],
        "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432}]},
            {
                "to": [{
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace_name((n + 1) % NAMESPACES)}},
                    "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["api", "auth"]}]},
                }],
                "ports": [{"port": "http"}],
            },
            {
                "to": [
                    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}},
                    {"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}},
                ],
                "ports": [{"port": 443}],
            },
        ],
    })
}
