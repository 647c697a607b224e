//! Who asks.

use std::net::IpAddr;

use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Name, NamespacedName};

use super::asked::End;
use super::error::ExplainError;
use crate::commands::world::World;

/// The flag that names it.
const FLAG: &str = "--from";

/// The client of a connection.
pub(super) struct Client {
    /// What it is.
    pub(super) kind: ClientKind,
    /// The node it is on.
    pub(super) node: Option<Name>,
    /// Its addresses; connections begin from the first one of their family.
    pub(super) addresses: Box<[IpAddr]>,
}

/// What a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// A pod with addresses of its own.
    Pod(NamespacedName),
    /// A pod that has those of its node.
    OnHostNetwork(NamespacedName),
    /// A process on a node.
    Node(Name),
    /// Neither pod nor node.
    Outside,
}

impl Client {
    /// Finds who was named.
    pub(super) fn find(world: &World<'_>, end: &End) -> Result<Client, ExplainError> {
        match end {
            End::Named(key) | End::Pod(key) => match world.index.pod(key) {
                Some(pod) => Client::of_pod(world, pod),
                None => {
                    let pods = world.index.pods().map(|pod| &pod.key).collect();
                    Err(ExplainError::asked(FLAG, world.unknown("pod", key, pods)))
                }
            },
            End::Service(key) => {
                let message = format!("{key} is a Service; connections begin at pods, nodes and addresses");
                Err(ExplainError::asked(FLAG, message))
            }
            End::Node(name) => Client::of_node(world, *name),
            End::Address(address) => {
                if let Some(pod) = world.pod_at(*address) {
                    return Client::of_pod(world, pod);
                }
                let node = world.node_at(*address);
                let kind = node.map_or(ClientKind::Outside, ClientKind::Node);
                Ok(Client { kind, node, addresses: Box::new([*address]) })
            }
        }
    }

    fn of_pod(world: &World<'_>, pod: &Pod) -> Result<Client, ExplainError> {
        usable(pod).map_err(|message| ExplainError::asked(FLAG, message))?;
        if !pod.host_network {
            let kind = ClientKind::Pod(pod.key.clone());
            return Ok(Client { kind, node: pod.node, addresses: pod.ips.clone() });
        }
        let node = pod.node.and_then(|name| world.index.node(name));
        let addresses = node.map_or_else(|| pod.ips.clone(), |node| node.ips().collect());
        Ok(Client { kind: ClientKind::OnHostNetwork(pod.key.clone()), node: pod.node, addresses })
    }

    fn of_node(world: &World<'_>, name: Name) -> Result<Client, ExplainError> {
        let Some(node) = world.index.node(name) else {
            return Err(ExplainError::asked(FLAG, world.unknown_node(name)));
        };
        let addresses: Box<[IpAddr]> = node.ips().collect();
        if addresses.is_empty() {
            return Err(ExplainError::asked(FLAG, format!("node {name} has no address")));
        }
        Ok(Client { kind: ClientKind::Node(name), node: Some(name), addresses })
    }

    /// Its address of a family.
    pub(super) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::from_address(*ip) == family)
    }

    /// The address from which it connects to another: the kernel takes the destination itself for the source of what a
    /// node sends to one of its own addresses.
    pub(super) fn source_towards(&self, world: &World<'_>, to: IpAddr) -> Option<IpAddr> {
        let is_own = self.is_node() && self.node.is_some_and(|node| world.is_own_address(node, to));
        if is_own { Some(to) } else { self.address(Family::from_address(to)) }
    }

    /// Whether it has the addresses of its node.
    pub(super) fn is_node(&self) -> bool {
        matches!(self.kind, ClientKind::Node(_) | ClientKind::OnHostNetwork(_))
    }

    /// What to call it.
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

/// Whether a pod can have connections; if not, why.
pub(super) fn usable(pod: &Pod) -> Result<(), String> {
    if pod.is_finished {
        return Err(format!("pod {} has ended; its addresses no longer count", pod.key));
    }
    if pod.ips.is_empty() {
        return Err(format!("pod {} has no address yet", pod.key));
    }
    Ok(())
}
