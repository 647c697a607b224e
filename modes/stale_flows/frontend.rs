//! The frontends of a Service of which a change may have left stale flows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Endpoint, Frontend, ServiceChange, ServicePort};

/// The frontends of which a change may have left stale flows. An endpoint that is merely added leaves none.
pub(super) fn suspects(change: &ServiceChange) -> HashSet<Frontend> {
    let (before, after) = (by_frontend(&change.before), by_frontend(&change.after));
    let gone = before.keys().filter(|frontend| !after.contains_key(frontend) && keeps_flows(frontend));
    let suspect = after.iter().filter(|(frontend, serving)| {
        let served = before.get(frontend).copied().unwrap_or_default();
        let is_new = !before.contains_key(frontend) && keeps_flows(frontend);
        let lost = keeps_flows(frontend) && lost_an_endpoint(served, serving);
        is_new || lost || (served.is_empty() && !serving.is_empty())
    });
    gone.chain(suspect.map(|(frontend, _)| frontend)).copied().collect()
}

/// All frontends of some ports of which flows may be stale for what happened while nothing was seen.
pub(super) fn all_suspects(ports: &[ServicePort], family: Family) -> impl Iterator<Item = Frontend> + '_ {
    let frontends = ports.iter().filter(move |port| port.family == family).flat_map(|port| {
        let serves = !port.endpoints.serving().is_empty();
        port.frontends().map(move |frontend| (frontend, serves))
    });
    frontends.filter(|(frontend, serves)| *serves || keeps_flows(frontend)).map(|(frontend, _)| frontend)
}

/// Whether connections to it outlive their endpoint. Those of TCP do not; of them, only attempts that nothing has
/// answered can be stale, and only once there are endpoints that would answer.
fn keeps_flows(frontend: &Frontend) -> bool {
    frontend.protocol().needs_conntrack_cleanup()
}

fn by_frontend(ports: &[ServicePort]) -> HashMap<Frontend, &[Endpoint]> {
    let frontends = ports.iter().flat_map(|port| port.frontends().map(move |frontend| (frontend, port)));
    frontends.map(|(frontend, port)| (frontend, port.endpoints.serving())).collect()
}

fn lost_an_endpoint(before: &[Endpoint], after: &[Endpoint]) -> bool {
    let after: HashSet<SocketAddr> = after.iter().map(Endpoint::socket).collect();
    before.iter().any(|endpoint| !after.contains(&endpoint.socket()))
}
