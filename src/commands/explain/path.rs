//! What policies say of a connection to one address.
//!
//! They see a connection after the address of a Service was replaced by that of an endpoint, and before its
//! source is replaced: on the node that leads it. On another node the source is what it was replaced by.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::{Family, Name, NamespacedName, Protocol};
use portcullis_policy::Direction;
use portcullis_policy::evaluation::{Connection, Decision, PolicyVerdict};

use super::advice::{Denied, advise};
use super::answer::{Advice, EndAnswer, PathAnswer};
use super::client::{Client, ClientKind};
use super::reason::{decided, not_judged};
use crate::commands::world::World;
use crate::config::ProxyMode;

/// A connection on its way.
pub(super) struct Path<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) client: &'a Client,
    pub(super) from: IpAddr,
    /// As the client knows it.
    pub(super) asked: SocketAddr,
    /// Where it goes in the end.
    pub(super) to: SocketAddr,
    pub(super) protocol: Protocol,
    /// The node that leads it to an endpoint; `None` if nobody does.
    pub(super) led_by: Option<Name>,
    /// That node replaces its source.
    pub(super) masqueraded: bool,
}

impl Path<'_> {
    /// What becomes of it, where one in so many comes here; and what to change if it may not pass.
    pub(super) fn answer(&self, one_in: usize) -> (PathAnswer, Vec<Advice>) {
        let seen_as = self.seen_at_destination();
        let (egress, ingress) = match self.stays_inside() {
            true => {
                let inside = not_judged("it never leaves the pod");
                (inside.clone(), inside)
            }
            false => (self.egress(), self.ingress(seen_as)),
        };
        let mut advice = Vec::new();
        for (answer, direction) in [(&egress, Direction::Egress), (&ingress, Direction::Ingress)] {
            advice.extend(self.advice(answer, direction, seen_as));
        }
        let lost = self.lost_answer();
        let answer = PathAnswer {
            allowed: egress.allowed && ingress.allowed && lost.is_none(),
            lost,
            to: self.to,
            name: self.destination_name(),
            node: self.world.place_of(self.to.ip()).map(|node| node.to_string()),
            one_in,
            seen_as: (seen_as != self.from).then_some(seen_as),
            masqueraded_by: self.masqueraded_by().map(|node| node.to_string()),
            egress,
            ingress,
        };
        (answer, advice)
    }

    /// A pod's connection to its own address; one that comes back through a Service leaves it.
    fn stays_inside(&self) -> bool {
        self.led_by.is_none() && self.from == self.to.ip()
    }

    /// A pod's connection through a Service to itself.
    fn is_hairpin(&self) -> bool {
        self.led_by.is_some() && self.from == self.to.ip()
    }

    /// Whether the rules of a node replace the source of a hairpin connection whatever the Service says: in iptables mode
    /// that of any endpoint, in the others that of the node's own endpoints, as kube-proxy's modes do.
    fn masquerades_hairpin(&self, node: Name) -> bool {
        self.is_hairpin()
            && (self.world.config.mode == ProxyMode::Iptables
                || self.world.place_of(self.to.ip()) == Some(node))
    }

    /// The node whose address the server sees instead of the client's.
    fn masqueraded_by(&self) -> Option<Name> {
        self.led_by.filter(|node| self.masqueraded || self.masquerades_hairpin(*node))
    }

    /// Why the client never sees an answer though the connection arrives: another node than the client's translated the
    /// destination and kept the source, and the endpoint is not on that node. The endpoint answers the client
    /// directly, so nothing translates the answer's source back.
    fn lost_answer(&self) -> Option<String> {
        let node = self.led_by.filter(|node| self.client.node.is_some_and(|own| own != *node))?;
        if self.masqueraded_by().is_some() || self.world.place_of(self.to.ip()) == Some(node) {
            return None;
        }
        if self.is_hairpin() {
            return Some(format!(
                "node {node} sends the connection back to the pod with the pod's own address as its source, which the \
                 pod's kernel drops"
            ));
        }
        Some(format!(
            "node {node} keeps the client's address, and the endpoint is not on {node}: it answers the client directly, \
             not through {node}, and the client takes the answer for a stranger's"
        ))
    }

    fn destination_name(&self) -> Option<String> {
        let address = self.to.ip();
        let pod = self.world.pod_at(address).map(|pod| pod.key.to_string());
        pod.or_else(|| self.world.node_at(address).map(|node| format!("node {node}")))
    }

    /// The destination as it is seen on the client's node.
    fn seen_at_client(&self) -> SocketAddr {
        match self.led_by {
            Some(node) if self.client.node != Some(node) => self.asked,
            _ => self.to,
        }
    }

    /// The source as it is seen on the destination's node.
    fn seen_at_destination(&self) -> IpAddr {
        let Some(node) = self.masqueraded_by() else { return self.from };
        if self.world.place_of(self.to.ip()) == Some(node) {
            return self.from;
        }
        self.world.node_address(node, Family::from_address(self.from)).unwrap_or(self.from)
    }

    fn judged(&self, from: IpAddr, to: SocketAddr, direction: Direction) -> Option<Decision> {
        let connection = Connection { from, to: to.ip(), port: to.port(), protocol: self.protocol };
        let judgement = self.world.judge(connection);
        match direction {
            Direction::Egress => judgement.egress,
            Direction::Ingress => judgement.ingress,
        }
    }

    fn egress(&self) -> EndAnswer {
        match (
            self.judged(self.from, self.seen_at_client(), Direction::Egress),
            self.subject(Direction::Egress),
        ) {
            (Some(decision), Some(pod)) => decided(self.world, &pod, Direction::Egress, &decision),
            _ => not_judged(match &self.client.kind {
                ClientKind::OnHostNetwork(_) => "it is on the host network",
                ClientKind::Node(_) => "it is a node",
                _ => "it is neither a pod nor a node",
            }),
        }
    }

    fn ingress(&self, seen_as: IpAddr) -> EndAnswer {
        match (self.judged(seen_as, self.to, Direction::Ingress), self.subject(Direction::Ingress)) {
            (Some(decision), Some(pod)) => decided(self.world, &pod, Direction::Ingress, &decision),
            _ if self.world.node_at(self.to.ip()).is_some() => not_judged("it is a node"),
            _ if self.is_own_address() => not_judged("it is the pod's own node"),
            _ => not_judged("no pod that is known has this address"),
        }
    }

    /// Whether the destination is an address of the client's own node.
    fn is_own_address(&self) -> bool {
        self.client.node.is_some_and(|node| self.world.is_own_address(node, self.to.ip()))
    }

    /// The pod that is judged at an end.
    fn subject(&self, direction: Direction) -> Option<NamespacedName> {
        let address = match direction {
            Direction::Egress => self.from,
            Direction::Ingress => self.to.ip(),
        };
        self.world.compiled().pod_at(address).map(|pod| pod.key.clone())
    }

    fn advice(&self, answer: &EndAnswer, direction: Direction, seen_as: IpAddr) -> Option<Advice> {
        if answer.allowed {
            return None;
        }
        let to = match direction {
            Direction::Egress => self.seen_at_client(),
            Direction::Ingress => self.to,
        };
        let from = if direction == Direction::Egress { self.from } else { seen_as };
        let decision =
            self.judged(from, to, direction).filter(|decision| decision.verdict == PolicyVerdict::Deny)?;
        let (subject, peer) = match direction {
            Direction::Egress => (self.from, to.ip()),
            Direction::Ingress => (to.ip(), from),
        };
        let denied = Denied {
            world: self.world,
            direction,
            subject: self.world.pod_at(subject)?,
            peer,
            port: to.port(),
            protocol: self.protocol,
            asked_port: self.asked.port(),
            masqueraded: (direction == Direction::Ingress && seen_as != self.from).then_some(self.client),
        };
        Some(advise(&denied, &decision))
    }
}
