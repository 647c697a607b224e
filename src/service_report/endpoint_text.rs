//! Texts about endpoints that do not serve, which `explain` prints too.

use portcullis_cluster::desired::Frontend;
use portcullis_cluster::endpoint_slice::EndpointSlice;
use portcullis_cluster::{Family, Name, NamespacedName};

use crate::truncated_list::listed;

/// Returns the reason why a Service whose `total` endpoints are not ready does not answer, and a hint.
pub(crate) fn not_ready(service: &NamespacedName, total: usize) -> (String, String) {
    match total {
        1 => (
            format!("{service} has one endpoint, which is not ready"),
            "check the readiness of that pod".to_owned(),
        ),
        _ => (
            format!("{service} has {total} endpoints, and none is ready"),
            "check the readiness of the pods".to_owned(),
        ),
    }
}

/// Returns the reason why a frontend with traffic policy Local does not answer on a node without an endpoint, and a hint.
/// `slices` are the Service's.
pub(crate) fn no_local_endpoint(
    frontend: Frontend<'_>,
    slices: &[EndpointSlice],
    node: &Name,
) -> (String, String) {
    let service = &frontend.port.name.service;
    let field = if frontend.is_external() { "externalTrafficPolicy" } else { "internalTrafficPolicy" };
    let nodes = nodes_with_endpoints(slices, frontend.port.family);
    (
        format!("{field} of {service} is Local, and node {node} has no endpoint"),
        format!("endpoints are on {nodes}"),
    )
}

fn nodes_with_endpoints(slices: &[EndpointSlice], family: Family) -> String {
    let usable = slices.iter().flat_map(|slice| slice.endpoints.iter()).filter(|endpoint| {
        Family::from_address(endpoint.address) == family
            && (endpoint.conditions.ready() || endpoint.conditions.serving())
    });
    let mut nodes: Vec<&str> =
        usable.filter_map(|endpoint| endpoint.topology.node()).map(Name::as_str).collect();
    nodes.sort_unstable();
    nodes.dedup();
    listed(nodes)
}
