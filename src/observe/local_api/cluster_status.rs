//! The numbers of Services and policies, and what is not served of Services, which a query reads on the loop.

use portcullis_cluster::Kind;
use portcullis_cluster::desired::{Desired, UnservedFrontend, UnservedReason};

use super::documents::{LimitedList, ServicesStatus, UnservedStatus};
use crate::control::DaemonState;

/// The largest number of items of each list.
const LISTED: usize = 100;

/// What the status document has of the cluster.
pub(super) struct ClusterStatus {
    /// The Services.
    pub(super) services: ServicesStatus,
    /// The number of NetworkPolicies and ClusterNetworkPolicies in the cluster.
    pub(super) policies: usize,
}

/// The query of the status document. The inner value is `None` before all objects are listed: numbers would be too small.
pub(super) fn read(state: &DaemonState<'_>) -> Option<Option<ClusterStatus>> {
    let policies = [Kind::NetworkPolicy, Kind::ClusterNetworkPolicy].map(|kind| state.index.count(kind));
    let services = state.desired.filter(|_| state.is_ready).map(services);
    Some(services.map(|services| ClusterStatus { services, policies: policies.iter().sum() }))
}

fn services(desired: &Desired) -> ServicesStatus {
    let (mut ports, mut frontends, mut endpoints) = (0, 0, 0);
    for port in desired.ports() {
        ports += 1;
        frontends += port.frontends().count();
        endpoints += port.endpoints.serving().len();
    }
    let unserved = desired.unserved_services().flat_map(|service| {
        let frontends = desired.unserved(service).into_iter();
        frontends.map(move |frontend| unserved(service.to_string(), &frontend))
    });
    let too_large = desired.oversized().keys().map(ToString::to_string);
    ServicesStatus {
        services: desired.services().len(),
        ports,
        frontends,
        endpoints,
        unserved: LimitedList::new(unserved, LISTED),
        too_large: LimitedList::new(too_large, LISTED),
    }
}

fn unserved(service: String, frontend: &UnservedFrontend) -> UnservedStatus {
    let shadowed_by = match &frontend.reason {
        UnservedReason::Shadowed { by } => Some(by.to_string()),
        UnservedReason::OutsideAllowedCidrs => None,
    };
    UnservedStatus {
        service,
        frontend: frontend.frontend.to_string(),
        shadowed_by,
        text: frontend.to_string(),
    }
}
