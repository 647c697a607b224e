//! Services with a single pod and that pod's own ports. Policies must treat them as the pod itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_lab::{ClusterPlan, EchoPort, FrontendKind, MatrixPeer, Protocol};

/// A Service with one pod.
pub(crate) struct ServiceOfPod {
    /// The Service, as a destination.
    pub(crate) end: MatrixPeer,
    /// The pod, `namespace/name`.
    pub(crate) pod: String,
    /// The ports that the pod has too.
    pub(crate) ports: BTreeSet<EchoPort>,
}

/// Returns all such Services.
pub(crate) fn services_of_pods(plan: &ClusterPlan) -> Vec<ServiceOfPod> {
    let mut found = Vec::new();
    for service in &plan.services {
        let slices: Vec<_> = plan.slices_of(service).collect();
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
        let addresses: BTreeSet<IpAddr> = addresses.map(|address| address.parse().unwrap()).collect();
        let of_one = |pod: &&portcullis_lab::plan::PodPlan| {
            !addresses.is_empty() && addresses.iter().all(|address| pod.addresses.contains(address))
        };
        let Some(pod) = plan.pods.iter().find(of_one) else { continue };
        let targets: BTreeSet<_> = slices
            .iter()
            .flat_map(|slice| slice.ports.iter().flatten())
            .map(|port| (port.name.clone().unwrap_or_default(), port.port.unwrap_or_default()))
            .collect();
        let fronts =
            plan.frontends(service).into_iter().filter(|front| front.kind == FrontendKind::ClusterIp);
        let own = fronts.filter(|front| targets.contains(&(front.port_name.clone(), front.port.into())));
        let ports = own.filter_map(|front| {
            Some(EchoPort { port: front.port, protocol: Protocol::parse(&front.protocol)? })
        });
        let name = format!(
            "{}/{}",
            service.metadata.namespace.as_deref().unwrap(),
            service.metadata.name.as_deref().unwrap()
        );
        let end = MatrixPeer::service(plan, &name).unwrap();
        found.push(ServiceOfPod { end, pod: pod.name.clone(), ports: ports.collect() });
    }
    found
}
