//! Ports of the echo servers.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};

use super::endpoint_slices::container_ports;
use super::{PlanOptions, PodPlan};
use crate::stream;

/// A transport protocol of the echo servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, where the kernel has its sockets: see [`Protocol::is_supported`].
    Sctp,
}

impl Protocol {
    /// Parses the API's spelling: `TCP`, `UDP` or `SCTP`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Returns true if this kernel has sockets for the protocol. Many kernels have none for SCTP; then no pod listens on
    /// SCTP ports, and these are not probed.
    pub fn is_supported(self) -> bool {
        self != Self::Sctp || stream::has_sctp()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Port and protocol of an echo server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EchoPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl EchoPort {
    /// Returns a TCP port.
    pub const fn tcp(port: u16) -> Self {
        Self { port, protocol: Protocol::Tcp }
    }

    /// Returns a UDP port.
    pub const fn udp(port: u16) -> Self {
        Self { port, protocol: Protocol::Udp }
    }
}

impl fmt::Display for EchoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.port, self.protocol))
    }
}

/// Sets each pod's ports: those that its containers declare, those of the EndpointSlices that list it, and those of the
/// options. `containerPort` is informational in Kubernetes, and a Service may use a port that no container declares.
pub(super) fn assign(pods: &mut [PodPlan], slices: &[EndpointSlice], options: &PlanOptions) {
    for pod in pods.iter_mut().filter(|pod| pod.is_running) {
        let declared = container_ports(&pod.object)
            .filter_map(|port| echo_port(port.protocol.as_deref(), port.container_port));
        let mut ports: BTreeSet<EchoPort> = declared.collect();
        for slice in slices.iter().filter(|slice| lists(slice, pod)) {
            let listed = slice.ports.iter().flatten();
            ports.extend(listed.filter_map(|port| echo_port(port.protocol.as_deref(), port.port?)));
        }
        if pod.host_network {
            ports.retain(|port| !options.node_echo_ports.contains(port));
        } else {
            ports.extend(&options.echo_ports);
        }
        pod.ports = ports;
    }
}

fn echo_port(protocol: Option<&str>, port: i32) -> Option<EchoPort> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    Some(EchoPort { protocol: Protocol::parse(protocol.unwrap_or("TCP"))?, port })
}

fn lists(slice: &EndpointSlice, pod: &PodPlan) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| {
        let mut addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.any(|address| pod.addresses.contains(&address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_objects::ClusterObjects;
    use crate::plan::ClusterPlan;

    #[test]
    fn pods_and_nodes_listen_on_declared_and_requested_ports() {
        let ports = |ports: &[u16]| ports.iter().map(|port| EchoPort::tcp(*port)).collect::<BTreeSet<_>>();
        let options = PlanOptions {
            echo_ports: ports(&[80, 81]),
            node_echo_ports: ports(&[80]),
            outside: vec!["203.0.113.7".parse().unwrap()],
            ..Default::default()
        };
        let containers = "containers: [{name: c, ports: [{containerPort: 80}, {containerPort: 9000}]}]";
        let pod = |name: &str, spec: &str, status: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}{containers}}}{status}}}\n---\n"
            )
        };
        let pods = pod("own", "", "")
            + &pod("host", "hostNetwork: true, ", "")
            + &pod("done", "", ", status: {phase: Failed}");
        let plan =
            ClusterObjects::parse(&pods).unwrap().plan_after(&ClusterPlan::default(), &options).unwrap();
        for (name, expected) in
            [("own", ports(&[80, 81, 9000])), ("host", ports(&[9000])), ("done", ports(&[]))]
        {
            assert_eq!(plan.pod(name).unwrap().ports, expected, "{name}");
        }
        assert!(plan.nodes.iter().all(|node| node.ports == ports(&[80])));
        assert_eq!(plan.outside, (options.outside, ports(&[80, 81])));
    }
}
