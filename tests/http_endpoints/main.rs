//! Tests of the HTTP endpoints: recorded responses of kube-proxy v1.36.2, and limits of connections.

mod client;
mod connections;
mod health_check_node_port;
mod proxy;
mod service_syncs;
