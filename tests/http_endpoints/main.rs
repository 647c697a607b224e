//! Tests of the HTTP endpoints against recorded responses of kube-proxy v1.36.2.

mod client;
mod health_check_node_port;
mod proxy;
mod service_syncs;
