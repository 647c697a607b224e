//! The client of a connection.

use std::net::IpAddr;

use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Name, NamespacedName};

use super::error::ExplainError;
use super::peer_argument::Peer;
use crate::commands::cluster_lookup::ClusterLookup;

/// The flag that names the client.
const FLAG: &str = "--from";

/// The client of a connection.
pub(super) struct Client {
    /// The kind of client.
    pub(super) kind: ClientKind,
    /// The node on which it runs.
    pub(super) node: Option<Name>,
    /// Its addresses; connections begin from the first one of their family.
    pub(super) addresses: Box<[IpAddr]>,
}

/// The kind of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// A pod with addresses of its own.
    Pod(NamespacedName),
    /// A pod on the host network, with the addresses of its node.
    OnHostNetwork(NamespacedName),
    /// A process on a node.
    Node(Name),
    /// Neither pod nor node.
    Outside,
}

impl Client {
    /// Finds the client that an argument names.
    pub(super) fn find(cluster: &ClusterLookup<'_>, peer: &Peer) -> Result<Client, ExplainError> {
        match peer {
            Peer::Named(key) | Peer::Pod(key) => match cluster.index.pod(key) {
                Some(pod) => Client::from_pod(cluster, pod),
                None => {
                    let pods = cluster.index.pods().map(|pod| &pod.key).collect();
                    Err(ExplainError::argument(FLAG, cluster.unknown("pod", key, pods)))
                }
            },
            Peer::Service(key) => {
                let message = format!("{key} is a Service, expected a pod, a node or an address");
                Err(ExplainError::argument(FLAG, message))
            }
            Peer::Node(name) => Client::from_node(cluster, name),
            Peer::Address(address) => {
                if let Some(pod) = cluster.pod_at(*address) {
                    return Client::from_pod(cluster, pod);
                }
                let node = cluster.node_at(*address);
                let kind = node.clone().map_or(ClientKind::Outside, ClientKind::Node);
                Ok(Client { kind, node, addresses: Box::new([*address]) })
            }
        }
    }

    fn from_pod(cluster: &ClusterLookup<'_>, pod: &Pod) -> Result<Client, ExplainError> {
        check_addresses(pod).map_err(|message| ExplainError::argument(FLAG, message))?;
        if !pod.host_network {
            let kind = ClientKind::Pod(pod.key.clone());
            return Ok(Client { kind, node: pod.node.clone(), addresses: (*pod.ips).into() });
        }
        let node = pod.node.as_ref().and_then(|name| cluster.index.node(name));
        let addresses = node.map_or_else(|| (*pod.ips).into(), |node| node.ips().collect());
        Ok(Client { kind: ClientKind::OnHostNetwork(pod.key.clone()), node: pod.node.clone(), addresses })
    }

    fn from_node(cluster: &ClusterLookup<'_>, name: &Name) -> Result<Client, ExplainError> {
        let Some(node) = cluster.index.node(name) else {
            return Err(ExplainError::argument(FLAG, cluster.unknown_node(name)));
        };
        let addresses: Box<[IpAddr]> = node.ips().collect();
        if addresses.is_empty() {
            return Err(ExplainError::argument(FLAG, format!("node {name} has no address")));
        }
        Ok(Client { kind: ClientKind::Node(name.clone()), node: Some(name.clone()), addresses })
    }

    /// Returns its address of a family.
    pub(super) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::from_address(*ip) == family)
    }

    /// Returns the source address of its connections to `to`. For a connection of a node to one of its own addresses, the
    /// kernel uses the destination as the source.
    pub(super) fn source_address(&self, cluster: &ClusterLookup<'_>, to: IpAddr) -> Option<IpAddr> {
        let is_own =
            self.is_node() && self.node.as_ref().is_some_and(|node| cluster.is_own_address(node, to));
        if is_own { Some(to) } else { self.address(Family::from_address(to)) }
    }

    /// Returns true if it has the addresses of its node.
    pub(super) fn is_node(&self) -> bool {
        matches!(self.kind, ClientKind::Node(_) | ClientKind::OnHostNetwork(_))
    }

    /// Returns its name for messages.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            ClientKind::Pod(key) | ClientKind::OnHostNetwork(key) => key.to_string(),
            ClientKind::Node(name) => format!("node {name}"),
            ClientKind::Outside => {
                self.addresses.first().map_or_else(String::new, |address| address.to_string())
            }
        }
    }
}

/// Returns an error message if a pod cannot have connections.
pub(super) fn check_addresses(pod: &Pod) -> Result<(), String> {
    if pod.is_finished {
        return Err(format!("pod {} has terminated; its addresses are no longer valid", pod.key));
    }
    if pod.ips.is_empty() {
        return Err(format!("pod {} has no address yet", pod.key));
    }
    Ok(())
}
