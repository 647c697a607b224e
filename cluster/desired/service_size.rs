//! The size of a Service in the kernel, and its limits.
//!
//! A node port or virtual IP (frontend) needs an entry for each endpoint and for each source range in nftables mode, and a real
//! server for each endpoint in IPVS mode. A Service object of 17 kB with 1,000 external IPs, 50 ports and 20 endpoints would
//! need a million. One Service must not take the time and the memory that all other Services need, so a Service above a limit
//! keeps its last version within the limits.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::service_port::{ServicePort, served_ports};
use crate::address::Family;
use crate::endpoint_slice::EndpointSlice;
use crate::name::Name;
use crate::protocol::Protocol;
use crate::service::Service;

/// The most frontends of a Service, over all its ports and both families: 2,768 node ports, as many as the API server
/// allocates by default, with a ClusterIP and a load balancer address each need 8,304.
pub const MAX_FRONTENDS: usize = 10_000;

/// The most entries of a Service, over all its frontends: one for each frontend, and for each endpoint and each source range of
/// a frontend. A Service with 5,000 endpoints may have 19 frontends. In nftables mode 100,000 entries need about 0.3 seconds and
/// 50 MB.
pub const MAX_ENTRIES: usize = 100_000;

/// The size of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceSize {
    /// The number of frontends.
    pub frontends: usize,
    /// The number of entries of all frontends.
    pub entries: usize,
}

impl ServiceSize {
    /// Returns the size of a Service with these slices, whether their endpoints are ready or not.
    pub(super) fn new(service: &Service, slices: &[EndpointSlice]) -> Self {
        let in_family =
            |ips: &[IpAddr], family| ips.iter().filter(|ip| Family::from_address(**ip) == family).count();
        let endpoints = EndpointCounts::new(slices);
        let ranges = Family::BOTH
            .map(|family| service.source_ranges.in_family(family).map_or(0, |ranges| ranges.len()));
        let mut size = ServiceSize::default();
        for (cluster_ip, port) in served_ports(service) {
            let family = Family::from_address(cluster_ip);
            let load_balancer = in_family(&service.load_balancer_vips, family);
            let other = 1 + in_family(&service.external_ips, family) + usize::from(port.node_port.is_some());
            let ranges = ranges[usize::from(family == Family::V6)] * load_balancer.max(1);
            let frontends = load_balancer + other;
            size.frontends += frontends;
            let per_frontend = 1 + endpoints.count(&port.name, port.protocol, family);
            size.entries = size.entries.saturating_add(frontends * per_frontend + ranges);
        }
        size
    }

    /// Returns true if it is above a limit.
    pub(super) fn exceeds_limits(self) -> bool {
        self.frontends > MAX_FRONTENDS || self.entries > MAX_ENTRIES
    }
}

/// Returns the number of entries that Service ports need for the endpoints that this node uses.
pub fn entries(ports: &[ServicePort]) -> usize {
    let entries = |port: &ServicePort| {
        let ranges = port.source_ranges.as_deref().map_or(0, |ranges| ranges.len());
        let per_frontend = 1 + port.endpoints.serving().len();
        port.frontends().count() * per_frontend + port.load_balancer_vips.len() * ranges
    };
    ports.iter().map(entries).sum()
}

impl fmt::Display for ServiceSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceSize { frontends, entries } = self;
        match *frontends > MAX_FRONTENDS {
            true => write!(
                f,
                "the Service has {frontends} frontends (addresses × ports), more than the limit of {MAX_FRONTENDS}"
            ),
            false => write!(
                f,
                "the Service needs {entries} entries (frontends × endpoints and source ranges), more than the limit of \
                 {MAX_ENTRIES}"
            ),
        }
    }
}

/// The number of endpoints by port and family.
struct EndpointCounts<'a>(HashMap<(&'a Name, Protocol), [usize; 2]>);

impl<'a> EndpointCounts<'a> {
    fn new(slices: &'a [EndpointSlice]) -> Self {
        let mut counts: HashMap<(&Name, Protocol), [usize; 2]> = HashMap::new();
        for slice in slices {
            for port in &slice.ports {
                let count = counts.entry((&port.name, port.protocol)).or_default();
                count[usize::from(slice.endpoints.family() == Family::V6)] += slice.endpoints.len();
            }
        }
        EndpointCounts(counts)
    }

    fn count(&self, name: &'a Name, protocol: Protocol, family: Family) -> usize {
        self.0.get(&(name, protocol)).map_or(0, |counts| counts[usize::from(family == Family::V6)])
    }
}
