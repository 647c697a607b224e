//! What the proxy answers over HTTP, held against the answers of kube-proxy v1.36.2.

mod client;
mod health_check_node_port;
mod proxy;
