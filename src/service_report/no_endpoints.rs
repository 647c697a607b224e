//! Diagnosis of Service ports without endpoints.

use std::collections::BTreeSet;

use portcullis_cluster::desired::ServicePort;
use portcullis_cluster::endpoint_slice::EndpointSlice;
use portcullis_cluster::{Index, NamespacedName};

use super::reason::Reason;
use super::selector;
use crate::truncated_list::listed;

/// The reason why a Service port has no endpoints, and a hint.
pub(crate) struct Diagnosis {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// The objects from which the reason follows.
#[derive(Clone, Copy)]
pub(crate) struct DiagnosisInput<'a> {
    /// The objects of the cluster.
    pub(crate) index: &'a Index,
    /// The index has the pods of the cluster.
    pub(crate) has_pods: bool,
    /// Returns true if there is an Endpoints object (v1) that no controller copies to EndpointSlices.
    pub(crate) has_endpoints_v1: &'a dyn Fn(&NamespacedName) -> bool,
}

/// Finds the reason why no EndpointSlice has an endpoint for a Service port.
pub(crate) fn diagnose(input: DiagnosisInput<'_>, port: &ServicePort) -> Diagnosis {
    let key = &port.name.service;
    let slices = input.index.slices_of(key);
    let of_family = |slice: &&EndpointSlice| slice.endpoints.count_in(port.family) > 0;
    let with_endpoints: Vec<&EndpointSlice> = slices.iter().filter(of_family).collect();
    if !with_endpoints.is_empty() {
        return other_ports(port, &with_endpoints);
    }
    if slices.iter().any(|slice| !slice.endpoints.is_empty()) {
        return Diagnosis {
            reason: Reason::NoEndpointsOfFamily,
            message: format!(
                "{key} has no {} endpoints, only those of the other family",
                port.family.as_str()
            ),
            hint: format!("check that its pods have {} addresses", port.family.as_str()),
        };
    }
    match input.index.service(key).filter(|service| !service.selector.is_empty()) {
        None => without_selector(input, port, !slices.is_empty()),
        Some(service) => selector::diagnose(input, service, slices.is_empty()),
    }
}

/// The slices have endpoints, but for other ports.
fn other_ports(port: &ServicePort, slices: &[&EndpointSlice]) -> Diagnosis {
    let key = &port.name.service;
    let names: Vec<String> = slices.iter().map(|slice| slice.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    let all: Vec<_> = slices.iter().flat_map(|slice| slice.ports.iter()).collect();
    let wanted = match port.name.port.as_str() {
        "" => format!("without a name, {}", port.name.protocol),
        name => format!("named {name}, {}", port.name.protocol),
    };
    if all.is_empty() {
        return Diagnosis {
            reason: Reason::PortNameMismatch,
            message: format!("{key} has EndpointSlices without ports ({names})"),
            hint: format!(
                "they need a port {wanted}; if a controller writes them, no container port has the name in targetPort"
            ),
        };
    }
    let describe = |name: &str, number: u16, protocol| match name {
        "" => format!("{number}/{protocol} without a name"),
        name => format!("{name} {number}/{protocol}"),
    };
    let ports: BTreeSet<String> =
        all.iter().map(|other| describe(other.name.as_str(), other.port.get(), other.protocol)).collect();
    let ports = listed(ports.iter().map(String::as_str));
    Diagnosis {
        reason: Reason::PortNameMismatch,
        message: format!("no EndpointSlice of {key} has its port ({wanted}); {names} has {ports}"),
        hint: "the port of a slice must have the name and protocol of the Service port".to_owned(),
    }
}

/// The Service has no selector, so no controller writes slices for it.
fn without_selector(input: DiagnosisInput<'_>, port: &ServicePort, has_slices: bool) -> Diagnosis {
    let key = &port.name.service;
    let slices = if has_slices { "its EndpointSlices are empty" } else { "there is no EndpointSlice for it" };
    let endpoints = match (input.has_endpoints_v1)(key) {
        true => format!("the Endpoints object {key} in the manifests is ignored, as proxies use EndpointSlices only"),
        false => "Endpoints (v1) are used only after the cluster's mirroring controller has copied them to slices, which does \
                  not happen with manifests"
            .to_owned(),
    };
    Diagnosis {
        reason: no_endpoints_reason(!has_slices),
        message: format!("{key} has no selector, and {slices}"),
        hint: format!(
            "write an EndpointSlice with the label kubernetes.io/service-name: {}; {endpoints}",
            key.name
        ),
    }
}

/// Returns the reason for a Service without an endpoint in any slice.
pub(super) fn no_endpoints_reason(without_slices: bool) -> Reason {
    if without_slices { Reason::NoEndpointSlices } else { Reason::NoEndpoints }
}
