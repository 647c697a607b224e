//! Selection of the endpoints that take connections from this node: readiness, termination, topology hints.

use std::net::SocketAddr;

use super::endpoints::{Candidate, Endpoint, Endpoints};
use super::serving_endpoints::ServingEndpoints;
use crate::name::Name;
use crate::traffic_policy::TrafficPolicy;

/// The name and zone of this node.
#[derive(Clone, Copy)]
pub(super) struct NodeTopology<'a> {
    pub(super) name: &'a Name,
    pub(super) zone: Option<&'a Name>,
}

/// The topology hint that applies to policy Cluster.
#[derive(Clone, Copy, PartialEq)]
enum Hint {
    /// `forNodes` (KEP-3015, PreferSameNode).
    Node,
    /// `forZones` (KEP-2433, PreferSameZone).
    Zone,
}

/// Selects the endpoints of a port for each of these traffic policies.
pub(super) fn select(
    candidates: Vec<Candidate<'_>>,
    policies: &[TrafficPolicy],
    node: NodeTopology<'_>,
) -> Endpoints {
    let uses = |policy| policies.contains(&policy);
    let cluster =
        if uses(TrafficPolicy::Cluster) { select_for_cluster(&candidates, node) } else { Selection::None };
    let local = if uses(TrafficPolicy::Local) { select_for_local(&candidates) } else { Selection::None };
    let usable = |c: &Candidate| c.conditions.ready() || terminating(c);
    let has_usable = match uses(TrafficPolicy::Local) {
        true => candidates.iter().any(usable),
        false => candidates.iter().any(|c| cluster.includes(c, node)),
    };
    let serving = candidates.iter().filter(|c| c.conditions.ready() || c.conditions.serving());
    let all =
        serving.map(|c| Endpoint::new(c, cluster.includes(c, node), c.local && local.includes(c, node)));
    let local_not_serving =
        candidates.iter().filter(|c| c.local && !c.conditions.ready() && !c.conditions.serving());
    Endpoints {
        all: ServingEndpoints::new(all),
        local_not_serving: local_not_serving.map(|c| SocketAddr::new(c.ip, c.port.get())).collect(),
        has_usable,
        total: candidates.len() as u32,
    }
}

/// The candidates that are selected.
#[derive(Clone, Copy, PartialEq)]
enum Selection {
    None,
    Ready,
    Hinted(Hint),
    /// No endpoint is ready: terminating endpoints that still serve (KEP-1669).
    Terminating,
}

impl Selection {
    fn includes(self, c: &Candidate<'_>, node: NodeTopology<'_>) -> bool {
        match self {
            Selection::None => false,
            Selection::Ready => c.conditions.ready(),
            Selection::Hinted(hint) => c.conditions.ready() && hinted(c, hint, node),
            Selection::Terminating => terminating(c),
        }
    }
}

fn terminating(c: &Candidate<'_>) -> bool {
    c.conditions.serving() && c.conditions.terminating()
}

fn hinted(c: &Candidate<'_>, hint: Hint, node: NodeTopology<'_>) -> bool {
    match hint {
        Hint::Node => c.topology.nodes().contains(node.name),
        Hint::Zone => node.zone.is_some_and(|zone| c.topology.zones().contains(zone)),
    }
}

fn select_for_cluster(candidates: &[Candidate<'_>], node: NodeTopology<'_>) -> Selection {
    let ready = || candidates.iter().filter(|c| c.conditions.ready());
    if ready().next().is_none() {
        return Selection::Terminating;
    }
    // A hint applies only if every ready endpoint has one and at least one of them names this node or zone: otherwise some
    // endpoint would get all traffic, or none.
    if ready().all(|c| !c.topology.nodes().is_empty()) && ready().any(|c| hinted(c, Hint::Node, node)) {
        return Selection::Hinted(Hint::Node);
    }
    if ready().all(|c| !c.topology.zones().is_empty()) && ready().any(|c| hinted(c, Hint::Zone, node)) {
        return Selection::Hinted(Hint::Zone);
    }
    Selection::Ready
}

fn select_for_local(candidates: &[Candidate<'_>]) -> Selection {
    let mut local = candidates.iter().filter(|c| c.local);
    if local.clone().any(|c| c.conditions.ready()) {
        Selection::Ready
    } else if local.any(terminating) {
        Selection::Terminating
    } else {
        Selection::None
    }
}
