//! The path of a connection to one endpoint, and the decisions of policies on it.
//!
//! On the node that routes the connection, policies see it after DNAT and before masquerading. On another node they see the
//! masqueraded source.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::{Family, Name, NamespacedName, Protocol};
use portcullis_policy::Direction;
use portcullis_policy::evaluation::{Connection, Decision, PolicyVerdict};

use super::advice::{Denied, advise};
use super::client::{Client, ClientKind};
use super::explanation::{Advice, PathExplanation, PodNetworkExplanation, PolicyExplanation};
use super::policy_decision::{decided, not_evaluated};
use crate::commands::cluster_lookup::ClusterLookup;

/// A connection to one endpoint.
pub(super) struct Path<'a> {
    pub(super) cluster: &'a ClusterLookup<'a>,
    pub(super) client: &'a Client,
    pub(super) from: IpAddr,
    /// The destination to which the client connects.
    pub(super) client_destination: SocketAddr,
    /// The destination after DNAT.
    pub(super) to: SocketAddr,
    pub(super) protocol: Protocol,
    /// The node that routes it to an endpoint; `None` if the destination is not a Service.
    pub(super) routed_by: Option<Name>,
    /// That node masquerades it.
    pub(super) masqueraded: bool,
    /// That node forwards a host port.
    pub(super) is_host_port: bool,
}

impl Path<'_> {
    /// Explains it, and returns the changes that would allow it. One in `one_in` connections goes to this endpoint.
    pub(super) fn explain(&self, one_in: usize) -> (PathExplanation, Vec<Advice>) {
        let seen_as = self.seen_at_destination();
        let (egress, ingress) = match self.stays_inside() {
            true => {
                let inside = not_evaluated("the connection does not leave the pod");
                (inside.clone(), inside)
            }
            false => (self.egress(), self.ingress(seen_as)),
        };
        let mut advice = Vec::new();
        for (explanation, direction) in [(&egress, Direction::Egress), (&ingress, Direction::Ingress)] {
            advice.extend(self.advice(explanation, direction, seen_as));
        }
        let lost = self.lost_reply();
        let pod_network = self.pod_network();
        let has_route = pod_network.as_ref().is_none_or(|network| network.no_route.is_none());
        let explanation = PathExplanation {
            allowed: egress.allowed && ingress.allowed && lost.is_none() && has_route,
            lost,
            to: self.to,
            name: self.destination_name(),
            undeclared_port: self.undeclared_port(),
            node: self.cluster.node_of_address(self.to.ip()).map(|node| node.to_string()),
            one_in,
            seen_as: (seen_as != self.from).then_some(seen_as),
            masqueraded_by: self.masqueraded_by().map(|node| node.to_string()),
            pod_network,
            egress,
            ingress,
        };
        (explanation, advice)
    }

    /// Returns true for a pod's connection to its own address without a Service: it does not leave the pod.
    fn stays_inside(&self) -> bool {
        self.routed_by.is_none() && self.from == self.to.ip()
    }

    /// Returns true for a pod's connection through a Service to itself.
    fn is_hairpin(&self) -> bool {
        self.routed_by.is_some() && self.from == self.to.ip()
    }

    /// Returns true if the rules of a node masquerade the hairpin connection: in iptables mode for every endpoint, in the other
    /// modes for endpoints on that node, as in kube-proxy.
    fn masquerades_hairpin(&self, node: &Name) -> bool {
        self.is_hairpin()
            && (self.cluster.config.mode.capabilities().masquerades_remote_hairpins
                || self.cluster.node_of_address(self.to.ip()).as_ref() == Some(node))
    }

    /// Returns the node that masquerades the connection.
    fn masqueraded_by(&self) -> Option<&Name> {
        self.routed_by.as_ref().filter(|node| self.masqueraded || self.masquerades_hairpin(node))
    }

    /// Returns the reason why replies do not reach the client: a node other than the client's applied DNAT without masquerading,
    /// and the endpoint is not on that node. The endpoint replies to the client directly, so nothing translates the source
    /// address of the replies back.
    fn lost_reply(&self) -> Option<String> {
        let is_of_client = |node: &Name| self.client.node.as_ref().is_none_or(|own| own == node);
        let node = self.routed_by.as_ref().filter(|node| !is_of_client(node))?;
        let of_endpoint = self.cluster.node_of_address(self.to.ip());
        if self.masqueraded_by().is_some() || of_endpoint.as_ref() == Some(node) {
            return None;
        }
        if self.is_hairpin() {
            return Some(format!(
                "node {node} sends the connection back to the pod with the pod's own source address, and the pod's \
                 kernel drops it"
            ));
        }
        Some(format!(
            "node {node} preserves the client's address, and the endpoint is not on {node}: it replies to the client \
             directly, not through {node}, so the source address of the replies is not translated back"
        ))
    }

    fn destination_name(&self) -> Option<String> {
        let address = self.to.ip();
        let pod = self.cluster.pod_at(address).map(|pod| pod.key.to_string());
        pod.or_else(|| self.cluster.node_at(address).map(|node| format!("node {node}")))
    }

    /// Returns a note if no container of the destination declares the port.
    fn undeclared_port(&self) -> Option<String> {
        let pod = self.cluster.pod_at(self.to.ip())?;
        let is_declared = pod.declares_port(self.to.port(), self.protocol)?;
        (!is_declared).then(|| {
            format!("no container of {} declares port {}/{}", pod.key, self.to.port(), self.protocol)
        })
    }

    /// Returns the destination as policies on the client's node see it.
    fn seen_at_client(&self) -> SocketAddr {
        match &self.routed_by {
            Some(node) if self.client.node.as_ref() != Some(node) => self.client_destination,
            _ => self.to,
        }
    }

    /// Returns what the pod network does with the connection.
    fn pod_network(&self) -> Option<PodNetworkExplanation> {
        let network = self.cluster.pod_network.as_ref()?;
        let way = || {
            let from = self.routed_by.as_ref().or(self.client.node.as_ref())?;
            let to = self.cluster.pod_at(self.to.ip())?.node.clone().filter(|node| node != from)?;
            let way = network.way(from, &to, self.to.ip())?;
            Some(way.map_err(|problem| format!("node {from} has no route to pods of node {to}: {problem}")))
        };
        let (route, no_route) = match way() {
            Some(Ok(route)) => (Some(route), None),
            Some(Err(problem)) => (None, Some(problem)),
            None => (None, None),
        };
        Some(PodNetworkExplanation {
            host_port_of: self.routed_by.as_ref().filter(|_| self.is_host_port).map(ToString::to_string),
            masqueraded_by: self.egress_masqueraded_by().map(ToString::to_string),
            route,
            no_route,
        })
    }

    /// Returns the client's node if it masquerades the connection because it leaves the pod network.
    fn egress_masqueraded_by(&self) -> Option<&Name> {
        let network = self.cluster.pod_network.as_ref()?;
        let node = self.client.node.as_ref().filter(|_| matches!(self.client.kind, ClientKind::Pod(_)))?;
        // The rules of Services come first.
        if self.masqueraded_by() == Some(node) {
            return None;
        }
        let destination = self.seen_at_client().ip();
        let leaves = !self.cluster.is_own_address(node, destination);
        (leaves && network.masquerades(node, self.from, destination)).then_some(node)
    }

    /// Returns the source with which the connection leaves the client's node.
    fn source_behind_client(&self) -> IpAddr {
        let node = self.egress_masqueraded_by();
        let address = node.and_then(|node| self.cluster.node_address(node, Family::from_address(self.from)));
        address.unwrap_or(self.from)
    }

    /// Returns the source as policies on the destination's node see it.
    fn seen_at_destination(&self) -> IpAddr {
        let Some(node) = self.masqueraded_by() else { return self.source_behind_client() };
        if self.cluster.node_of_address(self.to.ip()).as_ref() == Some(node) {
            return self.source_behind_client();
        }
        self.cluster.node_address(node, Family::from_address(self.from)).unwrap_or(self.from)
    }

    fn decision(&self, from: IpAddr, to: SocketAddr, direction: Direction) -> Option<Decision> {
        let connection = Connection { from, to: to.ip(), port: to.port(), protocol: self.protocol };
        let evaluation = self.cluster.evaluate(connection);
        match direction {
            Direction::Egress => evaluation.egress,
            Direction::Ingress => evaluation.ingress,
        }
    }

    fn egress(&self) -> PolicyExplanation {
        match (
            self.decision(self.from, self.seen_at_client(), Direction::Egress),
            self.subject(Direction::Egress),
        ) {
            (Some(decision), Some(pod)) => decided(self.cluster, &pod, Direction::Egress, &decision),
            _ => not_evaluated(match &self.client.kind {
                ClientKind::OnHostNetwork(_) => "the client is on the host network",
                ClientKind::Node(_) => "the client is a node",
                _ => "the client is neither a pod nor a node",
            }),
        }
    }

    fn ingress(&self, seen_as: IpAddr) -> PolicyExplanation {
        match (self.decision(seen_as, self.to, Direction::Ingress), self.subject(Direction::Ingress)) {
            (Some(decision), Some(pod)) => decided(self.cluster, &pod, Direction::Ingress, &decision),
            _ if self.cluster.node_at(self.to.ip()).is_some() => not_evaluated("the destination is a node"),
            _ if self.is_own_address() => not_evaluated("the destination is the pod's own node"),
            _ => not_evaluated("no known pod has this address"),
        }
    }

    /// Returns true if the destination is an address of the client's own node.
    fn is_own_address(&self) -> bool {
        self.client.node.as_ref().is_some_and(|node| self.cluster.is_own_address(node, self.to.ip()))
    }

    /// Returns the pod at one end, to which policies apply.
    fn subject(&self, direction: Direction) -> Option<NamespacedName> {
        let address = match direction {
            Direction::Egress => self.from,
            Direction::Ingress => self.to.ip(),
        };
        self.cluster.compiled().pod_at(address).map(|pod| pod.key.clone())
    }

    fn advice(
        &self,
        explanation: &PolicyExplanation,
        direction: Direction,
        seen_as: IpAddr,
    ) -> Option<Advice> {
        if explanation.allowed {
            return None;
        }
        let to = match direction {
            Direction::Egress => self.seen_at_client(),
            Direction::Ingress => self.to,
        };
        let from = if direction == Direction::Egress { self.from } else { seen_as };
        let decision =
            self.decision(from, to, direction).filter(|decision| decision.verdict == PolicyVerdict::Deny)?;
        let (subject, peer) = match direction {
            Direction::Egress => (self.from, to.ip()),
            Direction::Ingress => (to.ip(), from),
        };
        let denied = Denied {
            cluster: self.cluster,
            direction,
            subject: self.cluster.pod_at(subject)?,
            peer,
            port: to.port(),
            protocol: self.protocol,
            client_port: self.client_destination.port(),
            is_host_port: self.is_host_port,
            masqueraded: (direction == Direction::Ingress && seen_as != self.from).then_some(self.client),
        };
        Some(advise(&denied, &decision))
    }
}
