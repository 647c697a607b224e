//! Pods, with the fields that NetworkPolicy needs.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Deserialize;

use crate::address::parse_ip;
use crate::interned::{InternTable, Internable, Interned};
use crate::labels::{Labels, null_is_empty};
use crate::metadata::Metadata;
use crate::name::{Name, NamespacedName};
use crate::problem::Problem;
use crate::protocol::Protocol;

pub use crate::pod_ips::PodIps;

/// A pod. A cluster has up to 150,000, so what the pods of a workload have in common is interned.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// Its labels.
    pub labels: Labels,
    /// The node to which it is bound.
    pub node: Option<Name>,
    /// Its addresses.
    pub ips: PodIps,
    /// It uses the host network.
    pub host_network: bool,
    /// Its phase is `Succeeded` or `Failed`: its addresses are no longer valid.
    pub is_finished: bool,
    /// It has a deletion timestamp: it runs until its termination completes.
    pub is_terminating: bool,
    /// Its creation time, in seconds since 1970; 0 if unknown.
    pub created: i64,
    /// Its named container ports.
    pub named_ports: Interned<[NamedPort]>,
    /// All its container ports, named or not; `None` if the object has no containers.
    pub container_ports: Option<Interned<[(NonZeroU16, Protocol)]>>,
    /// Its host ports. Few pods have any, so the list takes one word here: the outer box makes the pointer thin.
    pub host_ports: Option<Box<Box<[HostPort]>>>,
}

impl Pod {
    /// Returns whether a container declares a port; `None` if that is unknown. The declaration is informational: processes may
    /// listen on other ports (API `ContainerPort`).
    pub fn declares_port(&self, port: u16, protocol: Protocol) -> Option<bool> {
        let ports = self.container_ports.as_ref()?;
        Some(ports.iter().any(|(number, of)| (number.get(), *of) == (port, protocol)))
    }
}

impl Pod {
    /// Returns its host ports.
    pub fn host_ports(&self) -> &[HostPort] {
        self.host_ports.as_ref().map_or(&[], |ports| ports)
    }
}

/// A port of the node that is forwarded to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The port of the node.
    pub host_port: NonZeroU16,
    /// The address of the node; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// The port of the container.
    pub container_port: NonZeroU16,
    /// Their protocol.
    pub protocol: Protocol,
}

impl Internable for [NamedPort] {
    fn table() -> &'static InternTable<[NamedPort]> {
        static PORTS: LazyLock<InternTable<[NamedPort]>> = LazyLock::new(InternTable::new);
        &PORTS
    }
}

impl Internable for [(NonZeroU16, Protocol)] {
    fn table() -> &'static InternTable<[(NonZeroU16, Protocol)]> {
        static PORTS: LazyLock<InternTable<[(NonZeroU16, Protocol)]>> = LazyLock::new(InternTable::new);
        &PORTS
    }
}

fn intern<T>(values: impl Iterator<Item = T>) -> Interned<[T]>
where
    T: Clone,
    [T]: Internable,
{
    Internable::table().intern(&*values.collect::<Vec<T>>())
}

/// A named container port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: Name,
    /// Its number.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
}

#[derive(Deserialize)]
pub(crate) struct RawPod {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
    #[serde(default, deserialize_with = "null_is_empty")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(default, deserialize_with = "null_is_empty")]
    init_containers: Vec<Container>,
    #[serde(default, deserialize_with = "null_is_empty")]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<ContainerPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
    host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

#[derive(Default, Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", default, deserialize_with = "null_is_empty")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: String,
}

impl RawPod {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> Pod {
        let mut ips: Vec<String> = self.status.pod_ips.into_iter().map(|p| p.ip).collect();
        if ips.is_empty() {
            ips.extend(self.status.pod_ip.filter(|ip| !ip.is_empty()));
        }
        let ips = ips.iter().enumerate().filter_map(|(i, text)| {
            let ip = parse_ip(text);
            if ip.is_none() {
                problems.push(Problem::new(format!("status.podIPs[{i}].ip"), text, "an IP address"));
            }
            ip
        });
        let ips = ips.collect();
        let created = self.metadata.creation_timestamp.as_deref().map_or(0, |text| {
            text.parse::<Timestamp>().map_or_else(
                |_| {
                    let field = "metadata.creationTimestamp";
                    problems.push(Problem::new(field, text, "a time such as 2026-01-01T00:00:00Z"));
                    0
                },
                Timestamp::as_second,
            )
        });
        // Sidecars, which are init containers with restart policy Always (KEP-753), have ports as well.
        let sidecars =
            self.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let containers: Vec<&Container> = self.spec.containers.iter().chain(sidecars).collect();
        let ports = containers.iter().flat_map(|c| &c.ports);
        let container_ports = ports.clone().filter_map(|p| {
            // A problem of the protocol is reported for named ports.
            let protocol = Protocol::parse(p.protocol.as_deref(), String::new(), &mut Vec::new())?;
            Some((NonZeroU16::new(p.container_port)?, protocol))
        });
        let container_ports = (!containers.is_empty()).then(|| intern(container_ports));
        let host_ports = ports.clone().filter_map(|p| {
            let host_ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty());
            let protocol = Protocol::parse(p.protocol.as_deref(), String::new(), &mut Vec::new())?;
            Some(HostPort {
                host_port: NonZeroU16::new(p.host_port?)?,
                // An unreadable address forwards nothing.
                host_ip: host_ip.map(|ip| parse_ip(ip).ok_or(())).transpose().ok()?,
                container_port: NonZeroU16::new(p.container_port)?,
                protocol,
            })
        });
        // The API server sets the host ports of pods on the host network to their container ports.
        let host_network = self.spec.host_network.unwrap_or(false);
        let host_ports: Box<[HostPort]> = if host_network { Box::default() } else { host_ports.collect() };
        let named_ports = ports.filter_map(|p| {
            let name = p.name.as_deref().filter(|name| !name.is_empty())?;
            let field = || format!("spec.containers[*].ports[name={name}].protocol");
            Some(NamedPort {
                name: Name::new(name),
                port: NonZeroU16::new(p.container_port)?,
                protocol: Protocol::parse(p.protocol.as_deref(), field(), problems)?,
            })
        });
        let named_ports = intern(named_ports);
        Pod {
            named_ports,
            container_ports,
            host_ports: (!host_ports.is_empty()).then(|| Box::new(host_ports)),
            ips,
            node: self.spec.node_name.filter(|n| !n.is_empty()).map(|n| Name::new(&n)),
            host_network,
            is_finished: matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            is_terminating: self.metadata.deletion_timestamp.is_some(),
            created,
            key: self.metadata.key(),
            labels: self.metadata.labels.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn host_ports_are_those_that_are_forwarded() {
        let ports = json!([{"ports": [
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
            {"containerPort": 81, "hostPort": 0},
            {"containerPort": 82, "hostPort": 82, "hostIP": "node"},
            {"containerPort": 83},
        ]}]);
        for (host_network, expected) in
            [(false, vec![(8080, None, 80), (53, Some("127.0.0.1"), 53)]), (true, Vec::new())]
        {
            let spec = json!({"containers": ports, "hostNetwork": host_network});
            let raw = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
            let raw: RawPod = serde_json::from_value(raw).expect("a pod");
            let pod = raw.convert(&mut Vec::new());
            let found: Vec<_> = pod
                .host_ports()
                .iter()
                .map(|port| (port.host_port.get(), port.host_ip, port.container_port.get()))
                .collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(host, ip, container)| (host, ip.map(|ip| ip.parse().expect("an address")), container))
                .collect();
            assert_eq!(found, expected, "{host_network}");
        }
    }

    #[test]
    fn declared_ports_are_those_of_containers_and_sidecars() {
        let containers = json!([{"ports": [
            {"containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 9, "protocol": "X"},
        ]}]);
        let sidecar = json!([{"restartPolicy": "Always", "ports": [{"containerPort": 15001}]}, {"ports": [{"containerPort": 1}]}]);
        let both = json!({"containers": containers, "initContainers": sidecar});
        let rows = [
            (both.clone(), 8080, Protocol::Tcp, Some(true)),
            (both.clone(), 8080, Protocol::Udp, Some(false)),
            (both.clone(), 53, Protocol::Udp, Some(true)),
            (both.clone(), 15001, Protocol::Tcp, Some(true)),
            (both.clone(), 1, Protocol::Tcp, Some(false)),
            (both, 9, Protocol::Tcp, Some(false)),
            (json!({"containers": [{}]}), 80, Protocol::Tcp, Some(false)),
            (json!({}), 80, Protocol::Tcp, None),
        ];
        for (spec, port, protocol, expected) in rows {
            let raw = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
            let raw: RawPod = serde_json::from_value(raw).expect("a pod");
            let pod = raw.convert(&mut Vec::new());
            assert_eq!(pod.declares_port(port, protocol), expected, "{spec} {port}/{protocol}");
        }
    }
}
