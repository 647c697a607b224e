//! The report as JSON and YAML: `portcullis services -o json`, and `/v1/services` of the local API.
//!
//! Keys are in camel case, and never omitted: `null` means that something is not known or does not apply.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::reason::{Reason, Severity};

/// The version of the document.
pub const API_VERSION: &str = "portcullis.io/v1";

/// The kind of the document.
pub const KIND: &str = "ServiceReport";

/// The Services of a node, or those of a page that match a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// The node.
    pub node: String,
    /// The proxy mode.
    pub mode: String,
    /// The number of Services that match the query, on all pages.
    pub total: usize,
    /// The number of matching Services before the first item.
    pub offset: usize,
    /// The name of the last item (`namespace/name`), as `after` of the next query; `null` if no more Services match.
    pub next: Option<String>,
    /// The Services, sorted by namespace and name.
    pub items: Vec<ServiceItem>,
    /// Remarks about the whole report: why it may be incomplete or older than the cluster.
    pub notes: Vec<String>,
}

/// A Service on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceItem {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; `null` if the object could not be read.
    #[serde(rename = "type")]
    pub service_type: Option<String>,
    /// Whether it answers.
    pub status: ServiceStatus,
    /// The reason of its most severe findings, or of its status.
    pub reasons: Vec<Reason>,
    /// The timeout of session affinity by client address, in seconds; `null` without session affinity.
    pub session_affinity_seconds: Option<u32>,
    /// The selection of the endpoint of a new connection.
    pub balancing: Option<Balancing>,
    /// Its frontends; without endpoints, the first 50.
    pub frontends: Vec<FrontendItem>,
    /// The number of its frontends.
    pub frontend_count: usize,
    /// The number of its endpoints in each IP family.
    pub endpoint_counts: Vec<EndpointCounts>,
    /// Its endpoints, by port and address; `null` unless the query asks for them.
    pub endpoints: Option<Vec<EndpointItem>>,
    /// Why it does not answer, or answers with restrictions; the most severe first.
    pub findings: Vec<Finding>,
    /// The number of further findings, of which there were too many.
    pub omitted_findings: usize,
}

/// Whether a Service answers on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceStatus {
    /// No error and no warning.
    Serving,
    /// A frontend answers, and there is an error or a warning.
    Degraded,
    /// No frontend answers.
    NotServing,
    /// No proxy serves it, by its specification: it is headless, of type ExternalName, or for another proxy.
    NotProxied,
}

/// The selection of the endpoint of a new connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancing {
    /// `random`, or the name of the IPVS scheduler.
    pub method: String,
    /// All endpoints in use have the same share of many connections. Otherwise, the shares depend on the addresses of clients
    /// or on open connections.
    pub is_even: bool,
}

/// A frontend of a Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendItem {
    /// The name of the Service port; empty for the only port of a Service.
    pub port_name: String,
    /// `clusterIP`, `nodePort`, `loadBalancer` or `externalIP`.
    pub kind: FrontendKindName,
    /// The address; `null` for a node port, which is on addresses of the node.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// `Cluster` or `Local`.
    pub traffic_policy: String,
    /// The number of endpoints that take new connections from this node.
    pub endpoints: usize,
    /// The only sources that may use it; `null` if every source may.
    pub source_ranges: Option<Vec<String>>,
    /// Whether it answers: clients in the cluster for a ClusterIP, clients outside of it for the others.
    pub answers: bool,
    /// The Service that is served there instead.
    pub shadowed_by: Option<String>,
}

/// The field from which a frontend comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrontendKindName {
    /// `spec.clusterIPs`.
    #[serde(rename = "clusterIP")]
    ClusterIp,
    /// `spec.ports[].nodePort`.
    #[serde(rename = "nodePort")]
    NodePort,
    /// `status.loadBalancer.ingress`.
    #[serde(rename = "loadBalancer")]
    LoadBalancer,
    /// `spec.externalIPs`.
    #[serde(rename = "externalIP")]
    ExternalIp,
}

/// The number of endpoints of a Service in an IP family. An address counts once, however many ports it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// All endpoints.
    pub total: usize,
    /// Ready endpoints.
    pub ready: usize,
    /// Endpoints that terminate and still serve.
    pub terminating: usize,
    /// Endpoints on this node.
    pub local: usize,
}

/// An endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointItem {
    /// The name of the Service port; empty for the only port of a Service.
    pub port_name: String,
    /// The protocol.
    pub protocol: String,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The pod (`namespace/name`), if pods are known and one has the address.
    pub pod: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// It is on this node.
    pub is_local: bool,
    /// It is ready.
    pub ready: bool,
    /// It serves, whether it is ready or terminating.
    pub serving: bool,
    /// It is terminating.
    pub terminating: bool,
    /// Its share of new connections with traffic policy Cluster, in percent; 0 if it takes none, `null` if the shares are not
    /// even or no frontend has the policy.
    pub cluster_share_percent: Option<f64>,
    /// Its share with traffic policy Local.
    pub local_share_percent: Option<f64>,
}

/// A reason why a Service does not answer, or answers with restrictions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The reason.
    pub reason: Reason,
    /// The reason for people, with the names of the objects.
    pub message: String,
    /// What to check or change.
    pub hint: Option<String>,
}

impl ServiceItem {
    /// Returns the most severe severity of its findings.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Returns true if nothing is wrong, and it is not known whether the kernel has its rules: a change is not programmed yet.
    pub fn is_pending(&self) -> bool {
        self.status == ServiceStatus::Serving && self.reasons.contains(&Reason::Pending)
    }

    /// Returns true if it has an error or a warning.
    pub fn has_problem(&self) -> bool {
        self.severity() >= Some(Severity::Warning)
    }
}
