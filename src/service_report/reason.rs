//! Reasons why a Service does not answer, or answers with restrictions, and their severities.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The severity of a finding, from the least to the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// As the Service specifies it; no problem.
    Info,
    /// The Service answers with restrictions, or does not answer some clients as its specification says.
    Warning,
    /// A frontend does not answer although it should.
    Error,
}

/// The reason of a finding, as a word for programs. The names follow the style of reasons of Kubernetes conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No version of the object could be read.
    Unreadable,
    /// The kernel rejects its rules; the last accepted ones are kept.
    Isolated,
    /// It exceeds the limits on the size of a Service.
    TooLarge,
    /// Another Service is served at the address and port.
    Shadowed,
    /// The address is outside of `--external-address-cidrs`.
    AddressNotAllowed,
    /// It has no valid port.
    NoPorts,
    /// There is no EndpointSlice for it.
    NoEndpointSlices,
    /// Its EndpointSlices are empty.
    NoEndpoints,
    /// Its selector matches no pod of its namespace.
    SelectorMatchesNoPods,
    /// Its EndpointSlices have endpoints, but none for the port.
    PortNameMismatch,
    /// Its EndpointSlices have endpoints of the other IP family only.
    NoEndpointsOfFamily,
    /// No endpoint is ready.
    NoReadyEndpoints,
    /// The only usable endpoints are terminating.
    OnlyTerminatingEndpoints,
    /// Traffic policy Local, and no endpoint is on this node.
    NoLocalEndpoints,
    /// `loadBalancerSourceRanges` has no valid block.
    NoSourceAllowed,
    /// No address of this node serves node ports.
    NoNodePortAddress,
    /// The health check node port is not served.
    HealthCheckNotServed,
    /// This node does not serve the IP family.
    FamilyNotServed,
    /// Topology hints exclude ready endpoints.
    TopologyHints,
    /// A change is not programmed yet.
    Pending,
    /// It has no ClusterIP yet.
    NoClusterIp,
    /// It is headless: its ClusterIP is `None`, or its label says so.
    Headless,
    /// It is of type ExternalName.
    ExternalName,
    /// It has the label `service.kubernetes.io/service-proxy-name`.
    OtherProxy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Severity {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}
