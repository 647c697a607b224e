//! The outcomes that a connection may have at the daemon's node.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portcullis_lab::Protocol;
use portcullis_policy::Connection as PolicyConnection;

use super::cluster::ModelCluster;
use super::pools::{NODE, PodSlot, local_addresses, node_addresses};
use super::services::{Frontend, FrontendKind};
use super::step::Mode;

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// A pod, by its index in [`ALL_PODS`](super::pools::ALL_PODS).
    Pod(usize),
    /// The daemon's node.
    Node,
    /// The host outside of the cluster.
    Outside,
}

impl Client {
    pub(crate) fn pod(self) -> Option<PodSlot> {
        match self {
            Client::Pod(index) => Some(super::pools::ALL_PODS[index]),
            _ => None,
        }
    }

    pub(crate) fn address(self, is_ipv4: bool) -> IpAddr {
        let family = usize::from(!is_ipv4);
        match self {
            Client::Pod(index) => super::pools::ALL_PODS[index].addresses()[family],
            Client::Node => node_addresses(NODE)[family],
            Client::Outside => super::pools::OUTSIDE[family].parse().expect("an address"),
        }
    }

    /// Returns true for a client whose traffic is internal: a pod of any node, or the node itself.
    fn is_internal(self) -> bool {
        self != Client::Outside
    }
}

/// A connection through the daemon's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) to: SocketAddr,
    pub(crate) protocol: Protocol,
}

impl Connection {
    pub(crate) fn from(&self) -> IpAddr {
        self.client.address(self.to.is_ipv4())
    }

    fn at(&self, to: SocketAddr) -> PolicyConnection {
        let protocol = match self.protocol {
            Protocol::Tcp => portcullis_cluster::Protocol::Tcp,
            Protocol::Udp => portcullis_cluster::Protocol::Udp,
            Protocol::Sctp => portcullis_cluster::Protocol::Sctp,
        };
        PolicyConnection { from: self.from(), to: to.ip(), port: to.port(), protocol }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client.pod() {
            Some(pod) => write!(f, "{} ({})", pod.full_name(), self.from())?,
            None => write!(f, "{:?} ({})", self.client, self.from())?,
        }
        write!(f, " → {}/{}", self.to, self.protocol)
    }
}

/// One possible outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The packet goes on to this destination.
    To(SocketAddr),
    Rejected,
    Dropped,
}

/// The expected outcomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Each of these for some random number, and no other.
    Exactly(BTreeSet<Outcome>),
    /// No endpoint of a Service.
    NotTranslated,
    /// Any outcome: it depends on properties of IPVS that are not part of the model.
    Unspecified,
}

impl Expected {
    fn one(outcome: Outcome) -> Self {
        Expected::Exactly(BTreeSet::from([outcome]))
    }

    /// Returns true if these outcomes are as expected.
    pub(crate) fn fits(&self, connection: &Connection, found: &BTreeSet<Outcome>) -> bool {
        match self {
            Expected::Exactly(expected) => expected == found,
            Expected::NotTranslated => {
                found.iter().all(|outcome| !matches!(outcome, Outcome::To(to) if *to != connection.to))
            }
            Expected::Unspecified => true,
        }
    }
}

impl ModelCluster {
    /// Returns the expected outcomes of a connection in a mode.
    pub(crate) fn expected(&self, mode: Mode, connection: &Connection) -> Expected {
        let is_node = local_addresses().contains(&connection.to.ip());
        let Some(frontend) = self.frontend(connection.to, connection.protocol, is_node) else {
            let is_pod =
                super::pools::ALL_PODS.iter().any(|pod| pod.addresses().contains(&connection.to.ip()));
            if !(is_node || is_pod) {
                return Expected::NotTranslated;
            }
            return self.with_policies(connection, BTreeSet::from([connection.to]));
        };
        match mode {
            Mode::Ipvs => self.routed_by_ipvs(connection, frontend),
            _ => self.routed(mode, connection, frontend),
        }
    }

    fn routed(&self, mode: Mode, connection: &Connection, frontend: Frontend<'_>) -> Expected {
        let endpoints = self.endpoints(frontend, connection.to.is_ipv4());
        let is_virtual = matches!(frontend.kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
        // Internal clients reach external addresses as if their traffic policy were `Cluster`.
        let is_external = frontend.kind != FrontendKind::ClusterIp;
        let only_local = frontend.is_local() && !(is_external && connection.client.is_internal());
        let all = if only_local { &endpoints.local } else { &endpoints.cluster };
        if !frontend.admits(connection.from()) {
            return match (mode, endpoints.exist) {
                // iptables mode rejects before it checks source ranges.
                (Mode::Iptables, false) if connection.client == Client::Node => Expected::NotTranslated,
                (Mode::Iptables, false) => Expected::one(Outcome::Rejected),
                _ => Expected::one(Outcome::Dropped),
            };
        }
        if !all.is_empty() {
            return self.with_policies(connection, all.clone());
        }
        // The rules of iptables mode that reject external addresses do not apply to packets that the node sends.
        if mode == Mode::Iptables && is_virtual && connection.client == Client::Node {
            return Expected::NotTranslated;
        }
        Expected::one(if endpoints.exist { Outcome::Dropped } else { Outcome::Rejected })
    }

    /// Returns the outcomes of a connection to a virtual server. IPVS has one virtual server for all clients of a frontend,
    /// with only the node's own endpoints for traffic policy `Local`, as long as there are any.
    fn routed_by_ipvs(&self, connection: &Connection, frontend: Frontend<'_>) -> Expected {
        let endpoints = self.endpoints(frontend, connection.to.is_ipv4());
        let is_cluster_ip = frontend.kind == FrontendKind::ClusterIp;
        let is_from_node = connection.client == Client::Node;
        if !endpoints.exist {
            // An error for the node's own datagrams may not be reported to the socket, and source ranges are checked first.
            let depends = is_from_node || !frontend.admits(connection.from());
            return if depends { Expected::Unspecified } else { Expected::one(Outcome::Rejected) };
        }
        if !frontend.admits(connection.from()) {
            return if is_from_node { Expected::Unspecified } else { Expected::one(Outcome::Dropped) };
        }
        let all = match (frontend.is_local(), endpoints.local.is_empty()) {
            (true, false) => endpoints.local,
            (true, true) if is_cluster_ip && frontend.is_external_service() => return Expected::Unspecified,
            (true, true) if is_cluster_ip => return Expected::one(Outcome::Rejected),
            (true, true) if connection.client == Client::Outside => return Expected::one(Outcome::Dropped),
            (true, true) if is_from_node => return Expected::Unspecified,
            _ => endpoints.cluster,
        };
        self.with_policies(connection, all)
    }

    /// Returns the outcomes of a connection that is routed to these destinations.
    fn with_policies(&self, connection: &Connection, to: BTreeSet<SocketAddr>) -> Expected {
        let outcome = |to: SocketAddr| match self.is_allowed(connection.at(to)) {
            true => Outcome::To(to),
            false => Outcome::Dropped,
        };
        Expected::Exactly(to.into_iter().map(outcome).collect())
    }
}
