//! Which ports each pod's echo server listens on.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};

use super::endpoint_slices::container_ports;
use super::{PlanOptions, PodPlan};
use crate::stream;

/// A transport protocol that the echo server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, where the kernel has its sockets: see [`Protocol::is_spoken`].
    Sctp,
}

impl Protocol {
    /// Reads the API's spelling, `TCP`, `UDP` or `SCTP`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Whether this kernel has sockets for it. Many have none for SCTP: no pod listens there then, and none is probed.
    pub fn is_spoken(self) -> bool {
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

/// A port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EchoPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl EchoPort {
    /// A TCP port.
    pub const fn tcp(port: u16) -> Self {
        Self { port, protocol: Protocol::Tcp }
    }

    /// A UDP port.
    pub const fn udp(port: u16) -> Self {
        Self { port, protocol: Protocol::Udp }
    }
}

impl fmt::Display for EchoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.port, self.protocol))
    }
}

/// Gives each pod the ports that its containers name, and those under which a slice lists it: in Kubernetes
/// `containerPort` is a remark, and a Service may lead to a port that no container names. All that the options ask for
/// come on top.
pub(super) fn assign(pods: &mut [PodPlan], slices: &[EndpointSlice], options: &PlanOptions) {
    for pod in pods.iter_mut().filter(|pod| pod.runs) {
        let named = container_ports(&pod.object)
            .filter_map(|port| echo_port(port.protocol.as_deref(), port.container_port));
        let mut ports: BTreeSet<EchoPort> = named.collect();
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
    Some(EchoPort { protocol: Protocol::named(protocol.unwrap_or("TCP"))?, port })
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
    use crate::cluster::Cluster;
    use crate::plan::Plan;

    #[test]
    fn every_pod_and_node_listens_where_it_is_told_to() {
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
        let plan = Cluster::parse(&pods).unwrap().plan_after(&Plan::default(), &options).unwrap();
        for (name, expected) in
            [("own", ports(&[80, 81, 9000])), ("host", ports(&[9000])), ("done", ports(&[]))]
        {
            assert_eq!(plan.pod(name).unwrap().ports, expected, "{name}");
        }
        assert!(plan.nodes.iter().all(|node| node.ports == ports(&[80])));
        assert_eq!(plan.outside, (options.outside, ports(&[80, 81])));
    }
}
