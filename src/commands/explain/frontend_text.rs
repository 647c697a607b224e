//! Names of frontends and Service ports in explanations.

use portcullis_cluster::desired::{FrontendKind, ServicePort};

use crate::commands::cluster_lookup::listed;

/// Returns the name of a kind of frontend. The JSON output has the same names.
pub(super) fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::LoadBalancer => "load balancer",
        FrontendKind::NodePort => "node port",
    }
}

/// Returns the names and numbers of Service ports: `http 80/tcp, 53/udp`.
pub(super) fn port_names<'a>(ports: impl Iterator<Item = &'a ServicePort>) -> String {
    let mut names = Vec::new();
    for port in ports {
        let number = format!("{}/{}", port.port, port.name.protocol);
        let name = match port.name.port.as_str() {
            "" => number,
            name => format!("{name} {number}"),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    listed(names.iter().map(String::as_str))
}
