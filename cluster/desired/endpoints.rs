//! The endpoints of a Service's port, gathered from all its slices.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::address::Family;
use crate::endpoint_slice::{EndpointConditions, EndpointSlice, NameSet, SliceEndpoint};
use crate::name::Name;
use crate::protocol::Protocol;

/// The endpoints of a Service's port that answer at all, sorted by their text (`address:port`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub(super) all: Box<[Endpoint]>,
    pub(super) local_not_serving: Box<[SocketAddr]>,
    pub(super) has_usable: bool,
    pub(super) total: u32,
}

/// One endpoint, and what it is used for on this node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: NonZeroU16,
    flags: u8,
}

impl Endpoint {
    const LOCAL: u8 = 1;
    const READY: u8 = 2;
    const FOR_CLUSTER: u8 = 4;
    const FOR_LOCAL: u8 = 8;

    pub(super) fn new(candidate: &Candidate, for_cluster: bool, for_local: bool) -> Self {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = bit(candidate.local, Self::LOCAL)
            | bit(candidate.conditions.ready(), Self::READY)
            | bit(for_cluster, Self::FOR_CLUSTER)
            | bit(for_local, Self::FOR_LOCAL);
        Endpoint { ip: candidate.ip, port: candidate.port, flags }
    }

    /// Its address and port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.get())
    }

    /// It is on this node.
    pub fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// It is ready (not merely serving while it terminates).
    pub fn is_ready(&self) -> bool {
        self.flags & Self::READY != 0
    }

    /// It takes new connections by policy Cluster.
    pub fn is_for_cluster(&self) -> bool {
        self.flags & Self::FOR_CLUSTER != 0
    }

    /// It takes new connections by policy Local.
    pub fn is_for_local(&self) -> bool {
        self.flags & Self::FOR_LOCAL != 0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket())?;
        let words = [
            (self.is_local(), "local"),
            (self.is_ready(), "ready"),
            (self.is_for_cluster(), "cluster"),
            (self.is_for_local(), "for-local"),
        ];
        words.iter().filter(|(set, _)| *set).try_for_each(|(_, word)| write!(f, " {word}"))
    }
}

impl Endpoints {
    /// Those that answer, chosen or not: a flow to any other is stale.
    pub fn serving(&self) -> &[Endpoint] {
        &self.all
    }

    /// Those on this node: first those that answer, then the others.
    pub fn local(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let answering = self.all.iter().filter(|e| e.is_local()).map(Endpoint::socket);
        answering.chain(self.local_not_serving.iter().copied())
    }

    /// Those that take new connections by policy Cluster.
    pub fn for_cluster(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_for_cluster())
    }

    /// Those that take new connections by policy Local.
    pub fn for_local(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_for_local())
    }

    /// Those that take new connections from this node by either policy.
    pub fn reachable(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_for_cluster() || e.is_for_local())
    }

    /// How many endpoints the slices name, answering or not.
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Whether the Service has a usable endpoint anywhere in the cluster, reachable from this node or not.
    /// Where it has, traffic that finds none here is dropped, not rejected.
    pub fn has_usable(&self) -> bool {
        self.has_usable
    }

    /// Ready endpoints on this node, as the health check of a load balancer counts them.
    pub fn local_ready(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_local() && e.is_ready())
    }
}

/// An endpoint before it is judged.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) ip: IpAddr,
    pub(super) port: NonZeroU16,
    pub(super) conditions: EndpointConditions,
    pub(super) local: bool,
    pub(super) zones: Option<NameSet>,
    pub(super) nodes: Option<NameSet>,
}

impl Candidate {
    fn new(endpoint: &SliceEndpoint, port: NonZeroU16, node: Name) -> Self {
        Candidate {
            ip: endpoint.address,
            port,
            conditions: endpoint.conditions,
            local: endpoint.node == Some(node),
            zones: endpoint.zones,
            nodes: endpoint.nodes,
        }
    }

    /// The precedence of a slice entry among entries with the same address and port: ready, then serving, then not
    /// terminating, then local. A pod that moves between slices is listed twice for a moment, and an address is
    /// reused while the pod that had it before still terminates, possibly on another node (kubernetes #135593). The
    /// node comes last, so that an entry which does not serve never hides one that does. Between equals the first
    /// slice by name takes precedence.
    fn rank(&self) -> (bool, bool, bool, bool) {
        (self.conditions.ready(), self.conditions.serving(), !self.conditions.terminating(), self.local)
    }
}

/// All endpoints for a port from all slices of its Service, each once, sorted by text.
pub(super) fn gather(
    slices: &[EndpointSlice],
    family: Family,
    name: Name,
    protocol: Protocol,
    node: Name,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|p| p.name == name && p.protocol == protocol) {
            let endpoints = slice.endpoints.iter().filter(|e| Family::from_address(e.address) == family);
            found.extend(endpoints.map(|e| Candidate::new(e, port.port, node)));
        }
    }
    let mut found = without_duplicates(found);
    found.sort_by_cached_key(|c| SocketAddr::new(c.ip, c.port.get()).to_string());
    found
}

fn without_duplicates(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut best: HashMap<(IpAddr, NonZeroU16), Candidate> = HashMap::with_capacity(found.len());
    for candidate in found {
        let place = best.entry((candidate.ip, candidate.port)).or_insert_with(|| candidate.clone());
        if candidate.rank() > place.rank() {
            *place = candidate;
        }
    }
    best.into_values().collect()
}
