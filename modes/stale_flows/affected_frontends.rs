//! The frontends of a Service whose change may have left stale flows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use portcullis_cluster::desired::{FrontendAddress, ServiceChange, ServicePort, ServingEndpoints};

/// Returns the frontends for which a change may have left stale flows. An added endpoint leaves none.
pub(super) fn affected_frontends(change: &ServiceChange) -> HashSet<FrontendAddress> {
    let (before, after) = (by_frontend(&change.before), by_frontend(&change.after));
    let gone = before.keys().filter(|frontend| !after.contains_key(frontend) && keeps_flows(frontend));
    let affected = after.iter().filter(|(frontend, serving)| {
        let served = before.get(frontend);
        let is_new = served.is_none() && keeps_flows(frontend);
        let lost = keeps_flows(frontend) && served.is_some_and(|served| lost_an_endpoint(served, serving));
        is_new || lost || (served.is_none_or(|served| served.is_empty()) && !serving.is_empty())
    });
    gone.chain(affected.map(|(frontend, _)| frontend)).copied().collect()
}

/// Returns the frontends that a change removes and that may have stale flows.
pub(super) fn removed_frontends(change: &ServiceChange) -> HashSet<FrontendAddress> {
    let (before, after) = (by_frontend(&change.before), by_frontend(&change.after));
    let removed = before.into_keys().filter(|frontend| !after.contains_key(frontend));
    removed.filter(keeps_flows).collect()
}

/// Returns true if a frontend of a Service port may have stale flows from a time when no proxy ran.
pub(super) fn may_have_flows(frontend: &FrontendAddress, port: &ServicePort) -> bool {
    !port.endpoints.serving().is_empty() || keeps_flows(frontend)
}

/// Returns true if flows to a frontend outlive their endpoint. TCP connections do not; only TCP connection attempts
/// without a reply can be stale, and only once there are endpoints to reply.
fn keeps_flows(frontend: &FrontendAddress) -> bool {
    frontend.protocol().needs_conntrack_cleanup()
}

fn by_frontend(ports: &[ServicePort]) -> HashMap<FrontendAddress, &ServingEndpoints> {
    let frontends = ports.iter().flat_map(|port| port.frontends());
    frontends.map(|frontend| (frontend.address, frontend.port.endpoints.serving())).collect()
}

fn lost_an_endpoint(before: &ServingEndpoints, after: &ServingEndpoints) -> bool {
    let after: HashSet<SocketAddr> = after.iter().map(|endpoint| endpoint.socket()).collect();
    before.iter().any(|endpoint| !after.contains(&endpoint.socket()))
}
