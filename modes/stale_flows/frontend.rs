//! The frontends of a Service of which a change may have left stale flows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use portcullis_cluster::desired::{Endpoint, Frontend, ServiceChange, ServicePort};

/// The ports whose flows can go stale.
pub(super) fn tracked(ports: &[ServicePort]) -> impl Iterator<Item = &ServicePort> {
    ports.iter().filter(|port| port.name.protocol.keeps_stale_flows())
}

/// The frontends of which a change may have left stale flows. An endpoint that is merely added leaves none.
pub(super) fn suspects(change: &ServiceChange) -> HashSet<Frontend> {
    let (before, after) = (by_frontend(&change.before), by_frontend(&change.after));
    let gone = before.keys().filter(|frontend| !after.contains_key(frontend));
    let suspect = after.iter().filter(|(frontend, serving)| match before.get(frontend) {
        None => true,
        Some(served) => lost_an_endpoint(served, serving) || (served.is_empty() && !serving.is_empty()),
    });
    gone.chain(suspect.map(|(frontend, _)| frontend)).copied().collect()
}

fn by_frontend(ports: &[ServicePort]) -> HashMap<Frontend, &[Endpoint]> {
    tracked(ports)
        .flat_map(|port| Frontend::of(port).map(|frontend| (frontend, port.endpoints.serving())))
        .collect()
}

fn lost_an_endpoint(before: &[Endpoint], after: &[Endpoint]) -> bool {
    let after: HashSet<SocketAddr> = after.iter().map(Endpoint::socket).collect();
    before.iter().any(|endpoint| !after.contains(&endpoint.socket()))
}
