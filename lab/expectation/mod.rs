//! Expected outcomes of probes, derived from the Service alone.
//!
//! They follow from the API reference. Where the outcome depends on the proxy's settings (detection of local traffic,
//! source ranges for clients in the cluster), the outcome is not checked and the table only shows it.

mod ipvs_losses;
mod policies;
#[cfg(test)]
mod tests;
mod usable_endpoints;

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::data_path::DataPath;
use crate::plan::service_defaults::has_type;
use crate::plan::{ClusterPlan, Frontend, FrontendKind};
use crate::probe::{ProbeOutcome, ProbeTally, Vantage};

pub use ipvs_losses::{IpvsLosses, tolerating_ipvs_losses};
pub use policies::{PolicyCheck, restricted_by_policies};
use usable_endpoints::{Destination, usable_endpoints};

/// Expected outcome of the probes of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// One of these pods responds.
    AnswerFrom {
        /// `namespace/name` of the pods.
        pods: BTreeSet<String>,
        /// True if all probes of a client must reach the same pod.
        same: bool,
        /// True if the pod must see the client's own address.
        source_kept: bool,
    },
    /// The connection is refused.
    Refused,
    /// No response.
    Dropped,
    /// The outcome is not checked.
    Unspecified,
}

impl Expectation {
    /// Returns how the outcomes violate the expectation, if they do. `client` are the addresses of the prober.
    pub fn violation(&self, tally: &ProbeTally, client: &[IpAddr]) -> Option<String> {
        match self {
            Self::Unspecified => None,
            Self::Refused => only(tally, "refused", |outcome| *outcome == ProbeOutcome::Refused),
            Self::Dropped => only(tally, "lost", |outcome| {
                matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Unreachable)
            }),
            Self::AnswerFrom { pods, same, source_kept } => {
                let unexpected: Vec<&str> =
                    tally.responders().into_iter().filter(|by| !pods.contains(*by)).collect();
                if !unexpected.is_empty() {
                    return Some(format!("unexpected response from {}", unexpected.join(", ")));
                }
                if let Some((outcome, count)) = tally.failures.iter().next() {
                    return Some(format!("{count} of {} {outcome}, expected a response", tally.total()));
                }
                if *same && tally.by_responder.len() > 1 {
                    return Some("session affinity was not kept".to_owned());
                }
                let translated = tally.sources.iter().find(|source| *source_kept && !client.contains(source));
                translated
                    .map(|source| format!("source address was translated to {source}, expected the client's"))
            }
        }
    }
}

fn only(tally: &ProbeTally, what: &str, fits: impl Fn(&ProbeOutcome) -> bool) -> Option<String> {
    let fitting: usize =
        tally.failures.iter().filter(|(outcome, _)| fits(outcome)).map(|(_, count)| count).sum();
    (fitting < tally.total()).then(|| format!("expected {what}"))
}

/// Returns the expected outcome of probes from a vantage point to a frontend of a Service. `node` is the node of the
/// vantage point.
pub fn expectation(
    plan: &ClusterPlan,
    data_path: DataPath,
    service: &Service,
    frontend: &Frontend,
    vantage: &Vantage,
    node: Option<&str>,
) -> Expectation {
    let Some(spec) = &service.spec else { return Expectation::Unspecified };
    if is_served_by_another_proxy(service) {
        return Expectation::Unspecified;
    }
    let all = usable_endpoints(plan, service, frontend);
    let local_to = |node: &str| {
        let is_local = |endpoint: &&Destination| endpoint.node.as_deref() == Some(node);
        all.iter().filter(is_local).map(|endpoint| endpoint.pod.clone()).collect::<Option<BTreeSet<String>>>()
    };
    // An SCTP client ignores "port unreachable" and retries until its timeout.
    let refused = if frontend.protocol == "SCTP" { Expectation::Unspecified } else { Expectation::Refused };
    if all.is_empty() {
        // The rules that reject external addresses apply to input and forwarded packets, not to a node's own.
        let is_not_filtered = matches!(vantage, Vantage::Node(_))
            && matches!(frontend.kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
        // IPVS rejects a node's own UDP by an error that may not be reported to the socket.
        let may_be_silent =
            data_path == DataPath::Ipvs && matches!(vantage, Vantage::Node(_)) && frontend.protocol == "UDP";
        let depends = is_not_filtered || may_be_silent || has_source_ranges(spec, frontend);
        return if depends { Expectation::Unspecified } else { refused };
    }
    let Some(all_pods) =
        all.iter().map(|endpoint| endpoint.pod.clone()).collect::<Option<BTreeSet<String>>>()
    else {
        return Expectation::Unspecified;
    };
    let same = spec.session_affinity.as_deref() == Some("ClientIP");
    let answer = |pods: Option<BTreeSet<String>>, source_kept| match pods {
        None => Expectation::Unspecified,
        Some(pods) if pods.is_empty() => Expectation::Dropped,
        Some(pods) => Expectation::AnswerFrom { pods, same, source_kept },
    };
    let any_endpoint = || answer(Some(all_pods.clone()), false);
    if has_source_ranges(spec, frontend) || has_hints(plan, service) {
        return Expectation::Unspecified;
    }
    if frontend.kind == FrontendKind::ClusterIp {
        return match (spec.internal_traffic_policy.as_deref(), node) {
            (Some("Local"), Some(node)) => {
                let pods = local_to(node);
                match data_path {
                    DataPath::Ipvs if is_empty(&pods) && is_external(spec) => Expectation::Unspecified,
                    // A virtual server without real servers rejects connections.
                    DataPath::Ipvs if is_empty(&pods) => refused,
                    _ => answer(pods, false),
                }
            }
            (Some("Local"), None) => Expectation::Unspecified,
            _ => any_endpoint(),
        };
    }
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return any_endpoint();
    }
    let entry = match &frontend.kind {
        FrontendKind::NodePort(node) => node.as_str(),
        _ => plan.load_balancer_node(service),
    };
    match (vantage, node) {
        (Vantage::Outside, _) => answer(local_to(entry), true),
        // Traffic from within the cluster that its own node handles goes to all endpoints. IPVS has one virtual server
        // for all clients, with only the node's own endpoints as long as there are any. Without local endpoints, packets
        // that the node itself sends to a load balancer address or external IP have that address as their source, and
        // other nodes do not reply to it.
        (_, Some(node)) if !matches!(&frontend.kind, FrontendKind::NodePort(at) if at != node) => {
            let pods = local_to(node);
            let is_own_traffic =
                matches!(vantage, Vantage::Node(_)) && !matches!(frontend.kind, FrontendKind::NodePort(_));
            match data_path {
                DataPath::Ipvs if !is_empty(&pods) => answer(pods, false),
                DataPath::Ipvs if is_own_traffic => Expectation::Unspecified,
                _ => any_endpoint(),
            }
        }
        _ => Expectation::Unspecified,
    }
}

fn has_source_ranges(spec: &ServiceSpec, frontend: &Frontend) -> bool {
    frontend.kind == FrontendKind::LoadBalancer
        && spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty())
}

/// Returns true if the pods are known and there are none.
fn is_empty(pods: &Option<BTreeSet<String>>) -> bool {
    pods.as_ref().is_some_and(BTreeSet::is_empty)
}

/// Returns true if the Service has addresses or ports for clients outside of the cluster.
fn is_external(spec: &ServiceSpec) -> bool {
    has_type(spec, "NodePort")
        || has_type(spec, "LoadBalancer")
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty())
}

/// Returns true if the Service has a label that excludes it from this proxy.
fn is_served_by_another_proxy(service: &Service) -> bool {
    const LABELS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    let labels = service.metadata.labels.as_ref();
    LABELS.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label)))
}

fn has_hints(plan: &ClusterPlan, service: &Service) -> bool {
    let mut endpoints = plan.slices_of(service).flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.any(|endpoint| endpoint.hints.is_some())
}
