//! The addresses by which Services are reached.

use std::net::IpAddr;

use portcullis_cluster::desired::ServicePort;

use crate::commands::cluster_lookup::listed;

/// By which sort of address a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

impl Entry {
    /// In words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Entry::ClusterIp => "cluster IP",
            Entry::ExternalIp => "external IP",
            Entry::LoadBalancer => "load balancer",
            Entry::NodePort => "node port",
        }
    }
}

/// By which sort of address a Service's port is at an address; node ports aside.
pub(super) fn entry_at(port: &ServicePort, address: IpAddr) -> Option<Entry> {
    if port.cluster_ip == Some(address) {
        return Some(Entry::ClusterIp);
    }
    if port.external_ips.contains(&address) {
        return Some(Entry::ExternalIp);
    }
    port.load_balancer_vips.contains(&address).then_some(Entry::LoadBalancer)
}

/// `http 80/tcp, 53/udp`.
pub(super) fn ports_of<'a>(ports: impl Iterator<Item = &'a ServicePort>) -> String {
    let mut words = Vec::new();
    for port in ports {
        let number = format!("{}/{}", port.port, port.name.protocol);
        let word = match port.name.port.as_str() {
            "" => number,
            name => format!("{name} {number}"),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    listed(words.iter().map(String::as_str))
}
