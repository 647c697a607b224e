//! Which endpoints take traffic from this node: readiness, termination, topology hints, traffic policies.

use std::net::SocketAddr;

use super::endpoints::{Candidate, Endpoint, Endpoints};
use super::service_port::ServicePort;
use crate::name::Name;

/// Where this node is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) node: Name,
    pub(super) zone: Option<&'static str>,
}

/// The hint that all traffic by policy Cluster follows.
#[derive(Clone, Copy, PartialEq)]
enum Hint {
    /// `forNodes` (KEP-3015, PreferSameNode).
    Node,
    /// `forZones` (KEP-2433, PreferSameZone).
    Zone,
}

/// Chooses among all endpoints of a port.
pub(super) fn choose(candidates: Vec<Candidate>, port: &ServicePort, place: Place) -> Endpoints {
    let cluster =
        if port.uses_cluster_endpoints() { cluster_choice(&candidates, place) } else { Choice::None };
    let local = if port.uses_local_endpoints() { local_choice(&candidates) } else { Choice::None };
    let usable = |c: &Candidate| c.conditions.ready() || terminating(c);
    let has_usable = match port.uses_local_endpoints() {
        true => candidates.iter().any(usable),
        false => candidates.iter().any(|c| cluster.takes(c, place)),
    };
    let serving = candidates.iter().filter(|c| c.conditions.ready() || c.conditions.serving());
    let all = serving.map(|c| Endpoint::new(c, cluster.takes(c, place), c.local && local.takes(c, place)));
    let silent = candidates.iter().filter(|c| c.local && !c.conditions.ready() && !c.conditions.serving());
    Endpoints {
        all: all.collect(),
        local_not_serving: silent.map(|c| SocketAddr::new(c.ip, c.port.get())).collect(),
        has_usable,
        total: candidates.len() as u32,
    }
}

/// What is taken of the candidates.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    None,
    Ready,
    Hinted(Hint),
    /// No endpoint is ready, so those that still serve while they terminate are better than none (KEP-1669).
    Terminating,
}

impl Choice {
    fn takes(self, c: &Candidate, place: Place) -> bool {
        match self {
            Choice::None => false,
            Choice::Ready => c.conditions.ready(),
            Choice::Hinted(hint) => c.conditions.ready() && hinted(c, hint, place),
            Choice::Terminating => terminating(c),
        }
    }
}

fn terminating(c: &Candidate) -> bool {
    c.conditions.serving() && c.conditions.terminating()
}

fn hinted(c: &Candidate, hint: Hint, place: Place) -> bool {
    match hint {
        Hint::Node => c.nodes.is_some_and(|nodes| nodes.contains(place.node.as_str())),
        Hint::Zone => c.zones.zip(place.zone).is_some_and(|(zones, zone)| zones.contains(zone)),
    }
}

fn cluster_choice(candidates: &[Candidate], place: Place) -> Choice {
    let ready = || candidates.iter().filter(|c| c.conditions.ready());
    if ready().next().is_none() {
        return Choice::Terminating;
    }
    // A hint counts only if every ready endpoint has one and at least one of them names this place:
    // otherwise some endpoint would get all traffic, or none.
    if ready().all(|c| c.nodes.is_some()) && ready().any(|c| hinted(c, Hint::Node, place)) {
        return Choice::Hinted(Hint::Node);
    }
    if ready().all(|c| c.zones.is_some()) && ready().any(|c| hinted(c, Hint::Zone, place)) {
        return Choice::Hinted(Hint::Zone);
    }
    Choice::Ready
}

fn local_choice(candidates: &[Candidate]) -> Choice {
    let mut local = candidates.iter().filter(|c| c.local);
    if local.clone().any(|c| c.conditions.ready()) {
        Choice::Ready
    } else if local.any(terminating) {
        Choice::Terminating
    } else {
        Choice::None
    }
}
