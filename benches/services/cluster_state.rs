//! A cluster with many Services, as its API server stores it.

use serde_json::{Value, json};

use super::api_server::ApiServer;
use super::namespace::Namespace;

/// The number of endpoints of each Service.
pub(crate) const ENDPOINTS: usize = 10;

/// The node of the daemon.
pub(crate) const NODE: &str = "n0";

/// The value of `--cluster-cidr`.
pub(crate) const CLUSTER_CIDR: &str = "10.0.0.0/8";

/// The number of nodes that the endpoints are spread over.
const NODES: usize = 1_000;

/// Starts an API server with all objects in a namespace.
pub(crate) fn server(services: usize, namespace: &Namespace) -> ApiServer {
    namespace.run(|| {
        let server = ApiServer::start();
        server.load(objects(services));
        server.set_revision(1);
        server
    })
}

/// Returns a Service with one endpoint, after all others by name and by number.
pub(crate) fn last_service(i: usize, endpoint: &str) -> [Value; 2] {
    const NAME: &str = "service-last";
    [service(NAME, i), slice_with(NAME, i, 1, Some(endpoint))]
}

/// Returns the node, and a number of ClusterIP Services with one EndpointSlice each.
fn objects(services: usize) -> impl Iterator<Item = Value> {
    objects_with(services, ENDPOINTS)
}

/// Returns the same with a number of endpoints per Service.
pub(crate) fn objects_with(services: usize, endpoints: usize) -> impl Iterator<Item = Value> {
    let pair = move |i| [service(&service_name(i), i), slice_with(&service_name(i), i, endpoints, None)];
    std::iter::once(node()).chain((0..services).flat_map(pair))
}

/// Returns the name of a Service by its number.
pub(crate) fn service_name(i: usize) -> String {
    format!("service-{i:05}")
}

/// Returns the daemon's node.
pub(crate) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "resourceVersion": "1"},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
    })
}

/// Returns a Service; its number gives its address.
pub(crate) fn service(name: &str, i: usize) -> Value {
    let ip = format!("172.30.{}.{}", i / 250, i % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "bench", "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app": name},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// Returns the EndpointSlice of a Service; `moved` replaces the address of its first endpoint.
pub(crate) fn slice(service: &str, i: usize, moved: Option<&str>) -> Value {
    slice_with(service, i, ENDPOINTS, moved)
}

/// Returns the same with a number of endpoints.
pub(crate) fn slice_with(service: &str, i: usize, endpoints: usize, moved: Option<&str>) -> Value {
    let endpoint = |e: usize| {
        let k = i * ENDPOINTS + e;
        let own = || format!("10.{}.{}.{}", 1 + k / 62_500, k / 250 % 250, k % 250 + 1);
        let address = moved.filter(|_| e == 0).map_or_else(own, str::to_owned);
        json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("n{}", k % NODES),
            "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("{service}-{e}")},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(service), "namespace": "bench", "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
}

/// Returns the name of the EndpointSlice of a Service.
pub(crate) fn slice_name(service: &str) -> String {
    format!("{service}-slice")
}
