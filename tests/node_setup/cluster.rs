//! API server with a cluster of one node and one Service.

use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// Starts a server with the node and the Service shop/web at 10.96.0.10:80, with one endpoint.
pub(crate) fn server(endpoint: &str) -> ApiServer {
    let server = ApiServer::start();
    server.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}}));
    server.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
    }));
    server.apply(slice(endpoint));
    server
}

/// Returns the EndpointSlice of the Service, with one endpoint at port 8080.
pub(crate) fn slice(endpoint: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}], "ports": [{"port": 8080}],
    })
}

/// Returns the rules of table nat.
pub(crate) fn rules() -> String {
    let output = std::process::Command::new("iptables-save").args(["-t", "nat"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
