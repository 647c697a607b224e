//! The endpoints to which a frontend routes, with their pods.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::plan::{ClusterPlan, Family, Frontend};

/// An endpoint to which a frontend routes.
pub(super) struct Destination {
    /// Its pod's name; `None` if no pod of the lab has the address.
    pub(super) pod: Option<String>,
    pub(super) node: Option<String>,
    pub(super) address: Option<SocketAddr>,
}

/// Returns the ready endpoints of the frontend's family and port, or, if there are none, those that are serving and
/// terminating (KEP-1669).
pub(super) fn usable_endpoints(
    plan: &ClusterPlan,
    service: &Service,
    frontend: &Frontend,
) -> Vec<Destination> {
    let family = Family::from_ip(frontend.address.ip()).name();
    let mut ready = Vec::new();
    let mut terminating = Vec::new();
    for slice in plan.slices_of(service).filter(|slice| slice.address_type == family) {
        let fits = |name: Option<&str>, protocol: Option<&str>| {
            name.unwrap_or_default() == frontend.port_name && protocol.unwrap_or("TCP") == frontend.protocol
        };
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| fits(port.name.as_deref(), port.protocol.as_deref()));
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let is_ready = conditions.ready != Some(false);
            let is_serving_terminating =
                conditions.serving.unwrap_or(is_ready) && conditions.terminating == Some(true);
            if is_ready {
                ready.push(destination(plan, endpoint, port.port));
            } else if is_serving_terminating {
                terminating.push(destination(plan, endpoint, port.port));
            }
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

fn destination(plan: &ClusterPlan, endpoint: &Endpoint, port: Option<i32>) -> Destination {
    let address: Option<IpAddr> = endpoint.addresses.first().and_then(|address| address.parse().ok());
    let pod = plan.pods.iter().find(|pod| address.is_some_and(|address| pod.addresses.contains(&address)));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let address = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
    Destination { pod: pod.map(|pod| pod.name.clone()), node: endpoint.node_name.clone(), address }
}
