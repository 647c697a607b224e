//! All endpoints of a Service, whether they take connections or not, for people who look at it.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::endpoints::{Endpoint, SlicePorts};
use super::service_port::ServicePort;
use crate::endpoint_slice::{EndpointConditions, EndpointSlice};
use crate::name::Name;

/// An endpoint of a Service port as its EndpointSlices list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEndpoint<'a> {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its conditions.
    pub conditions: EndpointConditions,
    /// Its node.
    pub node: Option<&'a Name>,
    /// It is on this node.
    pub is_local: bool,
    /// It takes new connections by traffic policy Cluster.
    pub is_for_cluster: bool,
    /// It takes new connections by traffic policy Local.
    pub is_for_local: bool,
}

/// Returns the endpoints of each of these ports of a Service, sorted by their text (`address:port`). `slices` are the Service's.
pub fn list_endpoints<'a>(
    ports: &[ServicePort],
    slices: &'a [EndpointSlice],
    node: &Name,
) -> Vec<Vec<ListedEndpoint<'a>>> {
    let of_slices = SlicePorts::new(slices);
    let endpoints_of = |port: &ServicePort| {
        let used: HashMap<SocketAddr, Endpoint> =
            port.endpoints.serving().iter().map(|endpoint| (endpoint.socket(), endpoint)).collect();
        let candidates = of_slices.candidates(port.family, (&port.name.port, port.name.protocol), node);
        let listed = candidates.into_iter().map(|candidate| {
            let address = SocketAddr::new(candidate.ip, candidate.port.get());
            let used = used.get(&address);
            ListedEndpoint {
                address,
                conditions: candidate.conditions,
                node: candidate.topology.node(),
                is_local: candidate.local,
                is_for_cluster: used.is_some_and(|endpoint| endpoint.is_for_cluster()),
                is_for_local: used.is_some_and(|endpoint| endpoint.is_for_local()),
            }
        });
        listed.collect()
    };
    ports.iter().map(endpoints_of).collect()
}
