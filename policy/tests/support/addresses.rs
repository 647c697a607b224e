//! Addresses of the ends of cells and flows.

use std::net::IpAddr;

use portcullis_cluster::{Family, Index, Name, NamespacedName, Protocol};

use crate::corpus::End;

pub(crate) fn address(index: &Index, end: &End, family: Family) -> Option<IpAddr> {
    let mut addresses: Box<dyn Iterator<Item = IpAddr>> = match end {
        End::Pod { namespace, name } => {
            let pod = index.pod(&NamespacedName::new(namespace, name)).expect("a pod");
            Box::new(pod.ips.iter().copied())
        }
        End::Node(name) => Box::new(index.node(&Name::new(name)).expect("a node").ips()),
        End::External(address) => Box::new(std::iter::once(*address)),
        End::Service { .. } => panic!("{end:?} has no single address"),
    };
    addresses.find(|address| Family::from_address(*address) == family)
}

/// Returns the endpoints of a Service's port.
pub(crate) fn endpoints(
    index: &Index,
    service: &NamespacedName,
    port: u16,
    protocol: Protocol,
    family: Family,
) -> Vec<(IpAddr, u16)> {
    let mut ports = index.service(service).expect("a Service").ports.iter();
    let wanted = ports.find(|p| p.port.get() == port && p.protocol == protocol).expect("a port of it");
    let mut found = Vec::new();
    for slice in index.slices_of(service) {
        let Some(target) = slice.ports.iter().find(|p| p.name == wanted.name) else { continue };
        let addresses = slice.endpoints.iter().map(|endpoint| endpoint.address);
        let addresses = addresses.filter(|address| Family::from_address(*address) == family);
        found.extend(addresses.map(|address| (address, target.port.get())));
    }
    assert!(!found.is_empty(), "{service} has endpoints");
    found
}
