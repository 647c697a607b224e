//! The health check ports of Services, and the ports without local endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis_cluster::desired::{Desired, Rejection, ServicePort};
use portcullis_cluster::{Family, NamespacedName, TrafficPolicy};
use portcullis_modes::{NodePortAddresses, Options};

use crate::control::{HealthCheckFailures, PortsWithoutLocalEndpoints};
use crate::observe::health_check_node_port::{DesiredPorts, ServiceHealthServer};

/// Keeps the health check ports of Services up to date.
pub(in crate::daemon) struct HealthChecks {
    server: ServiceHealthServer,
    families: Vec<Family>,
    /// The addresses on which the ports are served, once they are.
    addresses: Option<Vec<IpAddr>>,
}

impl HealthChecks {
    pub(in crate::daemon) fn new(server: ServiceHealthServer, families: Vec<Family>) -> Self {
        HealthChecks { server, families, addresses: None }
    }

    /// Updates the health check ports, and returns the ports without local endpoints. Does nothing and returns nothing if
    /// neither the addresses nor local endpoints changed (`has_changed`): looking at all Services at each change would cost
    /// more than the change.
    pub(super) fn update(
        &mut self,
        desired: &Desired,
        options: &Options,
        node_port_addresses: Vec<IpAddr>,
        has_changed: bool,
    ) -> Vec<(Family, PortsWithoutLocalEndpoints)> {
        // The unspecified addresses need only one socket per family, whatever addresses the machine has.
        let addresses = match options.node_port_addresses {
            NodePortAddresses::All => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            _ => node_port_addresses,
        };
        if !has_changed && self.addresses.as_ref() == Some(&addresses) {
            return Vec::new();
        }
        self.addresses = Some(addresses.clone());
        self.server.set(DesiredPorts::new(desired, addresses));
        self.families
            .iter()
            .map(|family| (*family, ports_without_local_endpoints(desired, *family)))
            .collect()
    }
}

impl HealthCheckFailures for HealthChecks {
    fn failures(&self) -> BTreeMap<NamespacedName, String> {
        self.server.failures()
    }
}

fn ports_without_local_endpoints(desired: &Desired, family: Family) -> PortsWithoutLocalEndpoints {
    let count = |policy: fn(&ServicePort) -> TrafficPolicy| {
        let is_dropped = |port: &&ServicePort| port.rejection(policy(port)) == Some(Rejection::Drop);
        desired.ports().filter(|port| port.family == family).filter(is_dropped).count()
    };
    PortsWithoutLocalEndpoints {
        internal: count(|port| port.internal_policy),
        external: count(|port| port.external_policy),
    }
}
