//! Which ports each pod's echo server listens on.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::PodPlan;
use super::endpoint_slices::container_ports;
use crate::stream;

/// A transport protocol that the echo server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EchoPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// Gives each pod the ports that its containers name, and those under which a slice lists it: in Kubernetes
/// `containerPort` is a remark, and a Service may lead to a port that no container names.
pub(super) fn assign(pods: &mut [PodPlan], slices: &[EndpointSlice]) {
    for pod in pods {
        let named = container_ports(&pod.object)
            .filter_map(|port| echo_port(port.protocol.as_deref(), port.container_port));
        let mut ports: BTreeSet<EchoPort> = named.collect();
        for slice in slices.iter().filter(|slice| lists(slice, pod)) {
            let listed = slice.ports.iter().flatten();
            ports.extend(listed.filter_map(|port| echo_port(port.protocol.as_deref(), port.port?)));
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
