//! The endpoints of a Service's port, gathered from all its slices.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use super::serving_endpoints::ServingEndpoints;
use crate::address::Family;
use crate::endpoint_slice::{EndpointConditions, EndpointSlice};
use crate::endpoint_topology::EndpointTopology;
use crate::name::Name;
use crate::protocol::Protocol;
use crate::slice_endpoints::SliceEndpoint;
use crate::traffic_policy::TrafficPolicy;

/// The serving endpoints of a Service port, sorted by their text (`address:port`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub(super) all: ServingEndpoints,
    pub(super) local_not_serving: Box<[SocketAddr]>,
    pub(super) has_usable: bool,
    pub(super) total: u32,
}

/// An endpoint, and the traffic policies for which this node uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: NonZeroU16,
    pub(super) flags: u8,
}

impl Endpoint {
    const LOCAL: u8 = 1;
    const READY: u8 = 2;
    const FOR_CLUSTER: u8 = 4;
    const FOR_LOCAL: u8 = 8;

    pub(super) fn new(candidate: &Candidate<'_>, for_cluster: bool, for_local: bool) -> Self {
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

    /// Returns true if it is on this node.
    pub fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// Returns true if it is ready, and not only serving while it terminates.
    pub fn is_ready(&self) -> bool {
        self.flags & Self::READY != 0
    }

    /// Returns true if it takes new connections by traffic policy Cluster.
    pub fn is_for_cluster(&self) -> bool {
        self.flags & Self::FOR_CLUSTER != 0
    }

    /// Returns true if it takes new connections by traffic policy Local.
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
    /// Returns all serving endpoints, selected or not: a flow to any other address is stale.
    pub fn serving(&self) -> &ServingEndpoints {
        &self.all
    }

    /// Returns the endpoints on this node: the serving ones, then the others.
    pub fn local(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let serving = self.all.iter().filter(Endpoint::is_local).map(|e| e.socket());
        serving.chain(self.local_not_serving.iter().copied())
    }

    /// Returns the endpoints that take new connections by a traffic policy.
    pub fn for_policy(&self, policy: TrafficPolicy) -> impl Iterator<Item = Endpoint> + Clone {
        self.all.iter().filter(move |endpoint| match policy {
            TrafficPolicy::Cluster => endpoint.is_for_cluster(),
            TrafficPolicy::Local => endpoint.is_for_local(),
        })
    }

    /// Returns true if an endpoint takes new connections by a traffic policy.
    pub fn has_any_for(&self, policy: TrafficPolicy) -> bool {
        self.for_policy(policy).next().is_some()
    }

    /// Returns the endpoints that take new connections from this node by either traffic policy.
    pub fn reachable(&self) -> impl Iterator<Item = Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_for_cluster() || e.is_for_local())
    }

    /// Returns the number of endpoints in the slices, serving or not.
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Returns true if the Service has a usable endpoint anywhere in the cluster, whether this node uses it or not. Connections
    /// without an endpoint on this node are then dropped, not rejected.
    pub fn has_usable(&self) -> bool {
        self.has_usable
    }

    /// Returns the ready endpoints on this node, as the health check of a load balancer counts them.
    pub fn local_ready(&self) -> impl Iterator<Item = Endpoint> + Clone {
        self.all.iter().filter(|e| e.is_local() && e.is_ready())
    }
}

/// An endpoint of the slices, before selection.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) ip: IpAddr,
    pub(super) port: NonZeroU16,
    pub(super) conditions: EndpointConditions,
    pub(super) local: bool,
    pub(super) topology: &'a EndpointTopology,
}

impl<'a> Candidate<'a> {
    fn new(endpoint: SliceEndpoint<'a>, port: NonZeroU16, node: &Name) -> Self {
        Candidate {
            ip: endpoint.address,
            port,
            conditions: endpoint.conditions,
            local: endpoint.topology.node() == Some(node),
            topology: endpoint.topology,
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

/// The slices of a Service by port. A Service and its slices may have thousands of ports.
pub(super) struct SlicePorts<'a>(HashMap<(&'a Name, Protocol), Vec<(&'a EndpointSlice, NonZeroU16)>>);

impl<'a> SlicePorts<'a> {
    pub(super) fn new(slices: &'a [EndpointSlice]) -> Self {
        let mut ports: HashMap<_, Vec<_>> = HashMap::new();
        for slice in slices {
            for port in &slice.ports {
                ports.entry((&port.name, port.protocol)).or_default().push((slice, port.port));
            }
        }
        SlicePorts(ports)
    }

    /// Returns the endpoints of a port from all slices, without duplicates, sorted by text.
    pub(super) fn candidates(
        &self,
        family: Family,
        port: (&Name, Protocol),
        node: &Name,
    ) -> Vec<Candidate<'a>> {
        let mut found = Vec::new();
        for (slice, port) in self.0.get(&port).into_iter().flatten() {
            if slice.endpoints.family() == family {
                found.extend(slice.endpoints.iter().map(|e| Candidate::new(e, *port, node)));
            }
        }
        let mut found = without_duplicates(found);
        found.sort_by_cached_key(|c| SocketAddr::new(c.ip, c.port.get()).to_string());
        found
    }
}

fn without_duplicates(found: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let mut best: HashMap<(IpAddr, NonZeroU16), Candidate<'_>> = HashMap::with_capacity(found.len());
    for candidate in found {
        let chosen = best.entry((candidate.ip, candidate.port)).or_insert_with(|| candidate.clone());
        if candidate.rank() > chosen.rank() {
            *chosen = candidate;
        }
    }
    best.into_values().collect()
}
