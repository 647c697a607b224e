//! Response to load balancers, byte-identical to kube-proxy's.

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use portcullis_cluster::NamespacedName;

use crate::observe::http::response::{JSON, nosniff};

/// Header with the number of local endpoints, by which load balancers weight nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Returns the response for a Service with this number of ready endpoints on this node. `healthy`: its rules are in sync.
pub(super) fn response(service: &NamespacedName, local_endpoints: usize, healthy: bool) -> Response {
    let good = local_endpoints > 0 && healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = nosniff(status, JSON, body(service, local_endpoints, healthy));
    response.headers_mut().insert(WEIGHT, HeaderValue::from(local_endpoints));
    response
}

fn body(service: &NamespacedName, local_endpoints: usize, healthy: bool) -> String {
    // Names are DNS labels: nothing in them needs escaping.
    let NamespacedName { namespace, name } = service;
    format!(
        "{{\n\
         \t\"service\": {{\n\
         \t\t\"namespace\": \"{namespace}\",\n\
         \t\t\"name\": \"{name}\"\n\
         \t}},\n\
         \t\"localEndpoints\": {local_endpoints},\n\
         \t\"serviceProxyHealthy\": {healthy}\n\
         }}"
    )
}
