//! The targets that the arguments name: addresses, ports, and the Services that have them.

use std::net::IpAddr;

use portcullis_cluster::desired::{Desired, Frontend, FrontendAddress, ServicePort};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::NotProxiedReason;
use portcullis_cluster::{Family, Name, NamespacedName, Protocol};

use super::argument::{Destination, PortArgument};
use super::client::{Client, ClientKind, check_addresses};
use super::error::ExplainError;
use super::frontend_text::port_names;
use super::peer_argument::Peer;
use super::routing::NoRoute;
use super::unserved::Unserved;
use crate::commands::cluster_lookup::{ClusterLookup, PortNumber, listed};
use crate::service_report::SPLIT_SERVICE;

/// The flag that names the destination.
const FLAG: &str = "--to";

/// One destination address and port to explain.
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) kind: TargetKind,
}

impl Target {
    /// Returns true if it is a frontend of a Service.
    fn is_service(&self) -> bool {
        matches!(self.kind, TargetKind::Service { .. })
    }
}

/// What serves a target.
pub(super) enum TargetKind {
    /// A frontend of a Service.
    Service {
        /// The Service port, as the routing node serves it.
        port: Box<ServicePort>,
        /// The frontend of the port.
        frontend: FrontendAddress,
        /// The node whose rules route the connection.
        node: Name,
    },
    /// Not an address of a Service.
    Direct,
    /// An address or port of Services that no Service has.
    NotServed(NoRoute),
}

/// Returns the targets that the arguments name, in the given families; if there are none, also the reason.
pub(super) fn find(
    cluster: &ClusterLookup<'_>,
    client: &Client,
    to: &Destination,
    families: &[Family],
    node: Option<Name>,
) -> Result<(Vec<Target>, Option<String>), ExplainError> {
    let finder = Finder { cluster, client, to, families, node };
    match &to.peer {
        Peer::Named(key) => match (cluster.index.pod(key), cluster.index.service(key)) {
            (Some(_), Some(_)) => Err(ExplainError::argument(
                FLAG,
                format!("{key} is both a pod and a Service; use pod/{key} or service/{key}"),
            )),
            (Some(pod), None) => finder.pod_targets(pod),
            (None, Some(_)) => finder.service_targets(key),
            (None, None) => {
                let pods = cluster.index.pods().map(|pod| &pod.key);
                let all = pods.chain(cluster.index.services().map(|service| &service.key)).collect();
                Err(ExplainError::argument(FLAG, cluster.unknown("pod or Service", key, all)))
            }
        },
        Peer::Pod(key) => match cluster.index.pod(key) {
            Some(pod) => finder.pod_targets(pod),
            None => {
                let pods = cluster.index.pods().map(|pod| &pod.key).collect();
                Err(ExplainError::argument(FLAG, cluster.unknown("pod", key, pods)))
            }
        },
        Peer::Service(key) => match cluster.index.service(key) {
            Some(_) => finder.service_targets(key),
            None => {
                let services = cluster.index.services().map(|service| &service.key).collect();
                Err(ExplainError::argument(FLAG, cluster.unknown("Service", key, services)))
            }
        },
        Peer::Node(name) => {
            let Some(node) = cluster.index.node(name) else {
                return Err(ExplainError::argument(FLAG, cluster.unknown_node(name)));
            };
            finder.address_targets(&format!("node {name}"), &node.ips().collect::<Vec<_>>())
        }
        Peer::Address(address) => finder.address_targets(&address.to_string(), &[*address]),
    }
}

struct Finder<'a> {
    cluster: &'a ClusterLookup<'a>,
    client: &'a Client,
    to: &'a Destination,
    families: &'a [Family],
    /// The node of `--node`.
    node: Option<Name>,
}

type Found = Result<(Vec<Target>, Option<String>), ExplainError>;

impl Finder<'_> {
    fn service_targets(&self, key: &NamespacedName) -> Found {
        let service = self.cluster.index.service(key);
        if let Some(reason) = service.and_then(|service| service.not_proxied) {
            return Ok((
                Vec::new(),
                Some(format!("Service {key} is not proxied: {}", not_proxied_reason(reason))),
            ));
        }
        let node = self.routing_node()?;
        let desired = self.cluster.desired(&node);
        let all = desired.services().get(key).cloned().unwrap_or_default();
        let is_wanted = |port: &&ServicePort| {
            let named = match &self.to.port {
                None => true,
                Some(PortArgument::Number(number)) => port.port == *number,
                Some(PortArgument::Name(name)) => port.name.port.as_str() == &**name,
            };
            named && self.to.protocol.is_none_or(|protocol| protocol == port.name.protocol)
        };
        if let Some(size) = desired.oversized().get(key) {
            return Ok((Vec::new(), Some(format!("Service {key} is not served: {size}; {SPLIT_SERVICE}"))));
        }
        // Frontends that conflict with another Service are not served.
        let unserved = desired.unserved(key);
        let not_served = || {
            let reasons: Vec<String> = unserved.iter().map(ToString::to_string).collect();
            Ok((Vec::new(), Some(format!("Service {key} is not served: {}", reasons.join("; ")))))
        };
        if all.is_empty() && !unserved.is_empty() {
            return not_served();
        }
        let wanted: Vec<&ServicePort> = all.iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            let port = self.port_argument();
            let message = format!("Service {key} has no port{port}; it has {}", port_names(all.iter()));
            return Err(ExplainError::argument(FLAG, message));
        }
        let mut targets: Vec<Target> = wanted
            .into_iter()
            .filter(|port| self.families.contains(&port.family))
            .filter_map(|port| {
                let frontend = port.frontends().find(|frontend| !frontend.is_external())?.address;
                Some(Target {
                    address: frontend.ip()?,
                    port: frontend.port(),
                    protocol: frontend.protocol(),
                    kind: TargetKind::Service { port: Box::new(port.clone()), frontend, node: node.clone() },
                })
            })
            .collect();
        if targets.is_empty() && !unserved.is_empty() {
            return not_served();
        }
        targets.sort_by_key(|target| Family::from_address(target.address));
        let families = all.iter().map(|port| port.family);
        self.in_common_families(targets, &format!("Service {key}"), families)
    }

    fn pod_targets(&self, pod: &Pod) -> Found {
        check_addresses(pod).map_err(|message| ExplainError::argument(FLAG, message))?;
        let ports = match &self.to.port {
            Some(PortArgument::Name(name)) => {
                let named = pod.named_ports.iter().filter(|port| port.name.as_str() == &**name);
                let named = named.map(|port| (port.port.get(), port.protocol));
                let wanted = |port: &PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
                let named: Vec<PortNumber> = named.filter(wanted).collect();
                if named.is_empty() {
                    let names = pod.named_ports.iter().map(|port| port.name.as_str());
                    let message = format!(
                        "pod {} has no container port named{}; its named ports are {}",
                        pod.key,
                        self.port_argument(),
                        listed(names)
                    );
                    return Err(ExplainError::argument(FLAG, message));
                }
                named
            }
            _ => self.numbers(&format!("pod {}", pod.key), &pod.ips)?,
        };
        let targets = self.all(&pod.ips, &ports, |_, _, _| Ok(TargetKind::Direct))?;
        self.in_common_families(
            targets,
            &format!("pod {}", pod.key),
            pod.ips.iter().copied().map(Family::from_address),
        )
    }

    /// Returns the targets at addresses of a node, or at any address.
    fn address_targets(&self, what: &str, addresses: &[IpAddr]) -> Found {
        // The frontends of Services are the same on all nodes.
        let node = self.client.node.as_ref().or(self.node.as_ref()).cloned();
        let desired = self.cluster.desired(&node.unwrap_or_else(|| Name::new("")));
        let wanted = |port: &PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
        let mut ports = self.served_ports(&desired, addresses);
        ports.retain(wanted);
        match &self.to.port {
            None => {}
            Some(PortArgument::Number(number)) => ports.retain(|port| port.0 == number.get()),
            Some(PortArgument::Name(name)) => {
                let message = format!("{what}: expected a port number, not the name {name}");
                return Err(ExplainError::argument(FLAG, message));
            }
        }
        if ports.is_empty() {
            ports = self.numbers(what, addresses)?;
        }
        let mut targets = self.all(addresses, &ports, |address, port, protocol| {
            self.target_kind(&desired, address, port, protocol)
        })?;
        // A node port of a single-stack Service does not mean the same port of the node in the other family.
        let service_ports: Vec<PortNumber> = targets
            .iter()
            .filter(|target| target.is_service())
            .map(|target| (target.port, target.protocol))
            .collect();
        targets
            .retain(|target| target.is_service() || !service_ports.contains(&(target.port, target.protocol)));
        self.in_common_families(targets, what, addresses.iter().copied().map(Family::from_address))
    }

    /// Returns the ports of Services at these addresses.
    fn served_ports(&self, desired: &Desired, addresses: &[IpAddr]) -> Vec<PortNumber> {
        let mut found = Vec::new();
        let is_of_node = addresses.iter().any(|address| self.node_of(*address).is_some());
        for frontend in desired.ports().flat_map(ServicePort::frontends) {
            let is_here = frontend.address.ip().map_or(is_of_node, |ip| addresses.contains(&ip));
            if is_here {
                found.push((frontend.address.port(), frontend.address.protocol()));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns what serves an address and port.
    fn target_kind(
        &self,
        desired: &Desired,
        address: IpAddr,
        number: u16,
        protocol: Protocol,
    ) -> Result<TargetKind, ExplainError> {
        let find = |address: FrontendAddress| {
            desired.ports().flat_map(ServicePort::frontends).find(|frontend| frontend.address == address)
        };
        let virtual_ip = FrontendAddress::virtual_ip(protocol, address, number);
        if let Some(frontend) = find(virtual_ip) {
            return Ok(self.routed_by(self.routing_node()?, &frontend));
        }
        let unserved = Unserved { cluster: self.cluster, desired, address, number, protocol };
        let Some(node) = self.node_of(address) else {
            return Ok(unserved.service_address().map_or(TargetKind::Direct, TargetKind::NotServed));
        };
        Ok(match virtual_ip.same_node_port().and_then(find) {
            Some(frontend) => self.routed_by(node, &frontend),
            None => unserved.node_port(&node).map_or(TargetKind::Direct, TargetKind::NotServed),
        })
    }

    /// Returns the node that has an address, as seen from the client's node.
    fn node_of(&self, address: IpAddr) -> Option<Name> {
        let own = self.client.node.as_ref().filter(|node| self.cluster.is_own_address(node, address));
        own.cloned().or_else(|| self.cluster.node_at(address))
    }

    /// Returns the target for a frontend, with its Service port as the routing node serves it.
    fn routed_by(&self, node: Name, frontend: &Frontend<'_>) -> TargetKind {
        let desired = self.cluster.desired(&node);
        let name = &frontend.port.name;
        let ports = desired.services().get(&name.service).cloned().unwrap_or_default();
        let has_frontend = |port: &&ServicePort| {
            port.name == *name && port.frontends().any(|other| other.address == frontend.address)
        };
        let port = ports.iter().find(has_frontend).unwrap_or(frontend.port);
        TargetKind::Service { port: Box::new(port.clone()), frontend: frontend.address, node }
    }

    /// Returns the node whose rules route the client's connections to virtual addresses of Services.
    fn routing_node(&self) -> Result<Name, ExplainError> {
        if self.client.kind != ClientKind::Outside {
            let missing = || {
                ExplainError::argument(
                    "--from",
                    format!("{} is not scheduled to a node yet", self.client.name()),
                )
            };
            return self.client.node.clone().ok_or_else(missing);
        }
        let names = self.cluster.node_names();
        let own = crate::node::name(self.cluster.config).ok().filter(|name| names.contains(name));
        let only = names.first().cloned().filter(|_| names.len() == 1);
        self.node.clone().or(own).or(only).ok_or_else(|| {
            let message = format!(
                "the client is not on a node; specify the node whose rules apply: {}",
                listed(names.iter().map(|name| name.as_str()))
            );
            ExplainError::argument("--node", message)
        })
    }

    /// Returns the port given by number, or all known ports of these addresses.
    fn numbers(&self, what: &str, addresses: &[IpAddr]) -> Result<Vec<PortNumber>, ExplainError> {
        let known = self.cluster.ports_at(&addresses.iter().copied().collect());
        let wanted = |port: &&PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
        if let Some(PortArgument::Number(number)) = self.to.port {
            let same = known.iter().filter(wanted).filter(|port| port.0 == number.get());
            let found: Vec<PortNumber> = same.copied().collect();
            return Ok(match found.is_empty() {
                true => vec![(number.get(), self.to.protocol.unwrap_or_default())],
                false => found,
            });
        }
        let found: Vec<PortNumber> = known.iter().filter(wanted).copied().collect();
        if found.is_empty() {
            let message = format!("{what} has no known port; specify one, as in :80 or :53/udp");
            return Err(ExplainError::argument(FLAG, message));
        }
        Ok(found)
    }

    fn all(
        &self,
        addresses: &[IpAddr],
        ports: &[PortNumber],
        kind: impl Fn(IpAddr, u16, Protocol) -> Result<TargetKind, ExplainError>,
    ) -> Result<Vec<Target>, ExplainError> {
        let mut targets = Vec::new();
        for family in self.families {
            // Connections to a node use its first address.
            let Some(address) = addresses.iter().copied().find(|ip| Family::from_address(*ip) == *family)
            else {
                continue;
            };
            for &(port, protocol) in ports {
                targets.push(Target { address, port, protocol, kind: kind(address, port, protocol)? });
            }
        }
        Ok(targets)
    }

    /// Returns the targets, or the reason if the ends have no IP family in common.
    fn in_common_families(
        &self,
        targets: Vec<Target>,
        what: &str,
        its: impl Iterator<Item = Family>,
    ) -> Found {
        if !targets.is_empty() {
            return Ok((targets, None));
        }
        let names = |families: &mut dyn Iterator<Item = Family>| {
            let mut all: Vec<&str> = families.map(Family::as_str).collect();
            all.sort_unstable();
            all.dedup();
            all.join(" and ")
        };
        let wanted = names(&mut self.families.iter().copied());
        Ok((
            Vec::new(),
            Some(format!(
                "{what} has only {} addresses; the client or --family requires {wanted}",
                names(&mut { its })
            )),
        ))
    }

    /// Returns the port and protocol arguments, as in ` 80/udp`.
    fn port_argument(&self) -> String {
        let port = self.to.port.as_ref().map(|port| format!(" {port}")).unwrap_or_default();
        let protocol = self.to.protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
        format!("{port}{protocol}")
    }
}

fn not_proxied_reason(reason: NotProxiedReason) -> &'static str {
    match reason {
        NotProxiedReason::NoClusterIp => "it has no ClusterIP yet (spec.clusterIP is empty)",
        NotProxiedReason::Headless => {
            "it is headless; its DNS name resolves to its pods, so explain one of them"
        }
        NotProxiedReason::ExternalName => "it is of type ExternalName, which only DNS implements",
        NotProxiedReason::OtherProxy => {
            "it has the label service.kubernetes.io/service-proxy-name, so another proxy serves it"
        }
    }
}
