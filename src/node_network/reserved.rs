//! Addresses that no pod CIDR may contain, and those of Services, as far as the cluster's objects name them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::service::Service;
use portcullis_cluster::{Change, Index, Kind, NamespacedName};
use portcullis_podnet::node_routes::Reserved;

/// The Service of the API server.
fn api_server() -> NamespacedName {
    NamespacedName::new("default", "kubernetes")
}

/// Returns the Service CIDRs, and the addresses of the API server.
pub(crate) fn addresses(index: &Index) -> BTreeMap<IpNet, Reserved> {
    let mut reserved = BTreeMap::new();
    for cidr in index.service_cidrs().flat_map(|cidr| &cidr.cidrs) {
        reserved.insert(cidr.trunc(), Reserved::ServiceCidr);
    }
    let endpoints = index.slices_of(&api_server()).iter().flat_map(|slice| slice.endpoints.iter());
    let service =
        index.service(&api_server()).into_iter().flat_map(|service| service.cluster_ips.iter().copied());
    for address in endpoints.map(|endpoint| endpoint.address).chain(service) {
        reserved.insert(IpNet::from(address), Reserved::ApiServer);
    }
    reserved
}

/// Returns true if a change may affect the result of [`addresses`].
pub(crate) fn is_relevant(change: &Change) -> bool {
    match change.key.kind {
        Kind::ServiceCidr => true,
        Kind::Service => change.key.name == api_server(),
        Kind::EndpointSlice => change.slice.as_ref().is_some_and(|slice| slice.service == api_server()),
        _ => false,
    }
}

/// Returns all addresses of Services.
pub(crate) fn service_addresses(index: &Index) -> Vec<IpAddr> {
    let of_service = |service: &Service| {
        let addresses = [&service.cluster_ips, &service.external_ips, &service.load_balancer_vips];
        addresses.into_iter().flat_map(|ips| ips.iter().copied()).collect::<Vec<_>>()
    };
    index.services().flat_map(of_service).collect()
}
