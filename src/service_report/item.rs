//! A Service of a report.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use portcullis_cluster::desired::{
    Frontend, FrontendAddress, FrontendKind, ListedEndpoint, ServicePort, UnservedFrontend, list_endpoints,
};
use portcullis_cluster::endpoint_slice::EndpointSlice;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::Service;
use portcullis_cluster::{Family, IpvsScheduler, NamespacedName, TrafficPolicy};

use super::cause::{Cause, answers, primary_route, shadowed_by};
use super::documents::{
    Balancing, EndpointCounts, EndpointItem, Finding, FrontendItem, FrontendKindName, ServiceItem,
    ServiceStatus,
};
use super::input::ReportInput;
use super::reason::{Reason, Severity};

/// The maximum number of frontends of a Service in a report without endpoints.
const SHOWN_FRONTENDS: usize = 50;

/// The pods by their addresses.
pub(super) type PodsByAddress<'a> = HashMap<IpAddr, &'a Pod>;

/// Returns the item of a Service that no version of could be read.
pub(super) fn unreadable(name: &NamespacedName) -> ServiceItem {
    let finding = Finding {
        severity: Severity::Error,
        reason: Reason::Unreadable,
        message: format!("Service {name} could not be read, so it is not served"),
        hint: Some("see the warnings of this node's log; correct the object".to_owned()),
    };
    ServiceItem {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        service_type: None,
        status: ServiceStatus::NotServing,
        reasons: vec![Reason::Unreadable],
        session_affinity_seconds: None,
        balancing: None,
        frontends: Vec::new(),
        frontend_count: 0,
        endpoint_counts: Vec::new(),
        endpoints: None,
        findings: vec![finding],
        omitted_findings: 0,
    }
}

/// Returns the item of a Service. `pods`: if it lists endpoints, the pods that have the addresses of endpoints.
pub(super) fn item(
    input: &ReportInput<'_>,
    service: &Service,
    findings: Vec<Finding>,
    omitted_findings: usize,
    pods: Option<&PodsByAddress<'_>>,
) -> ServiceItem {
    let name = &service.key;
    let ports = input.desired.services().get(name).map_or(&[][..], |ports| ports);
    let slices = input.index.slices_of(name);
    let unserved = input.desired.unserved(name);
    let served = || ports.iter().flat_map(ServicePort::frontends);
    let shown = if pods.is_some() { usize::MAX } else { SHOWN_FRONTENDS };
    let of_others = unserved.iter().map(|unserved| unserved_frontend(service, unserved));
    let frontends = served().map(|frontend| frontend_item(input, &frontend)).chain(of_others);
    let status = match service.not_proxied {
        Some(_) => ServiceStatus::NotProxied,
        None if !served().any(|frontend| answers(input, &frontend)) => ServiceStatus::NotServing,
        None if findings.iter().any(|finding| finding.severity >= Severity::Warning) => {
            ServiceStatus::Degraded
        }
        None => ServiceStatus::Serving,
    };
    let balancing = service.not_proxied.is_none().then(|| balancing(input, service));
    let is_even = balancing.as_ref().is_some_and(|balancing| balancing.is_even);
    ServiceItem {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        service_type: Some(service.service_type.as_str().to_owned()),
        status,
        reasons: reasons(&findings),
        session_affinity_seconds: service.affinity.filter(|_| service.not_proxied.is_none()),
        balancing,
        frontends: frontends.take(shown).collect(),
        frontend_count: served().count() + unserved.len(),
        endpoint_counts: endpoint_counts(input, slices),
        endpoints: pods.map(|pods| endpoints(input, ports, slices, is_even, pods)),
        findings,
        omitted_findings,
    }
}

/// Returns the reasons of the most severe findings, without duplicates.
fn reasons(findings: &[Finding]) -> Vec<Reason> {
    let most = findings.iter().map(|finding| finding.severity).max();
    let mut reasons = Vec::new();
    for finding in findings.iter().filter(|finding| Some(finding.severity) == most) {
        if !reasons.contains(&finding.reason) {
            reasons.push(finding.reason);
        }
    }
    reasons
}

fn frontend_item(input: &ReportInput<'_>, frontend: &Frontend<'_>) -> FrontendItem {
    let policy = primary_route(input, frontend).endpoint_policy();
    let allowed = frontend.allowed_sources(&input.routing_context(frontend.port.family));
    FrontendItem {
        port_name: frontend.port.name.port.to_string(),
        traffic_policy: frontend.traffic_policy().as_str().to_owned(),
        endpoints: frontend.port.endpoints.for_policy(policy).count(),
        source_ranges: allowed.map(|sources| sources.ranges.iter().map(ToString::to_string).collect()),
        answers: answers(input, frontend),
        ..empty_frontend(frontend.address, frontend.kind)
    }
}

/// Returns a frontend at which the Service is not served.
fn unserved_frontend(service: &Service, unserved: &UnservedFrontend) -> FrontendItem {
    let (protocol, number) = (unserved.frontend.protocol(), unserved.frontend.port());
    let is_node_port = unserved.kind == FrontendKind::NodePort;
    let spec = service.ports.iter().find(|port| {
        let own = if is_node_port { port.node_port } else { Some(port.port) };
        port.protocol == protocol && own.is_some_and(|own| own.get() == number)
    });
    let policy = match unserved.kind {
        FrontendKind::ClusterIp => service.internal_policy,
        _ => service.external_policy,
    };
    FrontendItem {
        port_name: spec.map(|port| port.name.to_string()).unwrap_or_default(),
        traffic_policy: policy.as_str().to_owned(),
        shadowed_by: shadowed_by(unserved).map(ToString::to_string),
        ..empty_frontend(unserved.frontend, unserved.kind)
    }
}

fn empty_frontend(address: FrontendAddress, kind: FrontendKind) -> FrontendItem {
    FrontendItem {
        port_name: String::new(),
        kind: match kind {
            FrontendKind::ClusterIp => FrontendKindName::ClusterIp,
            FrontendKind::NodePort => FrontendKindName::NodePort,
            FrontendKind::LoadBalancer => FrontendKindName::LoadBalancer,
            FrontendKind::ExternalIp => FrontendKindName::ExternalIp,
        },
        address: address.ip(),
        port: address.port(),
        protocol: address.protocol().as_str().to_owned(),
        family: address.family().as_str().to_owned(),
        traffic_policy: String::new(),
        endpoints: 0,
        source_ranges: None,
        answers: false,
        shadowed_by: None,
    }
}

/// Returns the selection of endpoints. Rules select at random; in IPVS mode, a scheduler does.
fn balancing(input: &ReportInput<'_>, service: &Service) -> Balancing {
    if !input.mode.capabilities().has_schedulers {
        return Balancing { method: "random".to_owned(), is_even: true };
    }
    let scheduler = service.scheduler.unwrap_or(input.scheduler);
    // All real servers have weight 1.
    let is_even = matches!(scheduler, IpvsScheduler::RoundRobin | IpvsScheduler::WeightedRoundRobin);
    Balancing { method: scheduler.name().to_owned(), is_even }
}

/// Counts the endpoints in each family that has some.
fn endpoint_counts(input: &ReportInput<'_>, slices: &[EndpointSlice]) -> Vec<EndpointCounts> {
    let counts = Family::BOTH.map(|family| {
        let mut counts = EndpointCounts {
            family: family.as_str().to_owned(),
            total: 0,
            ready: 0,
            terminating: 0,
            local: 0,
        };
        let of_family = |slice: &&EndpointSlice| slice.endpoints.count_in(family) > 0;
        // A pod that moves between slices is listed twice for a moment, and Services whose pods have different ports for
        // one name have a slice for each.
        let is_several = slices.iter().filter(of_family).nth(1).is_some();
        let mut seen: HashSet<IpAddr> = HashSet::new();
        for endpoint in slices.iter().filter(of_family).flat_map(|slice| slice.endpoints.iter()) {
            if is_several && !seen.insert(endpoint.address) {
                continue;
            }
            let conditions = endpoint.conditions;
            counts.total += 1;
            counts.ready += usize::from(conditions.ready());
            counts.terminating += usize::from(conditions.serving() && conditions.terminating());
            counts.local += usize::from(endpoint.topology.node() == Some(input.desired.node()));
        }
        counts
    });
    counts.into_iter().filter(|counts| counts.total > 0).collect()
}

fn endpoints(
    input: &ReportInput<'_>,
    ports: &[ServicePort],
    slices: &[EndpointSlice],
    is_even: bool,
    pods: &PodsByAddress<'_>,
) -> Vec<EndpointItem> {
    let listed = list_endpoints(ports, slices, input.desired.node());
    let items = ports.iter().zip(listed).flat_map(|(port, listed)| {
        let shares = TrafficPolicy::ALL.map(|policy| {
            let is_used = port.frontends().any(|frontend| {
                frontend.traffic_policy() == policy
                    || (frontend.is_external() && policy == TrafficPolicy::Cluster)
            });
            let count = port.endpoints.for_policy(policy).count();
            (is_even && is_used).then(|| if count == 0 { 0.0 } else { percent(count) })
        });
        listed.into_iter().map(move |endpoint| endpoint_item(port, &endpoint, shares, pods))
    });
    items.collect()
}

/// Returns the share of one of `count` endpoints, rounded to two decimal places.
fn percent(count: usize) -> f64 {
    (10_000.0 / count as f64).round() / 100.0
}

fn endpoint_item(
    port: &ServicePort,
    endpoint: &ListedEndpoint<'_>,
    [cluster, local]: [Option<f64>; 2],
    pods: &PodsByAddress<'_>,
) -> EndpointItem {
    let share = |of_policy: Option<f64>, is_used| of_policy.map(|share| if is_used { share } else { 0.0 });
    EndpointItem {
        port_name: port.name.port.to_string(),
        protocol: port.name.protocol.as_str().to_owned(),
        address: endpoint.address.ip(),
        port: endpoint.address.port(),
        pod: pods.get(&endpoint.address.ip()).map(|pod| pod.key.to_string()),
        node: endpoint.node.map(ToString::to_string),
        is_local: endpoint.is_local,
        ready: endpoint.conditions.ready(),
        serving: endpoint.conditions.serving(),
        terminating: endpoint.conditions.terminating(),
        cluster_share_percent: share(cluster, endpoint.is_for_cluster),
        local_share_percent: share(local, endpoint.is_for_local),
    }
}

/// Returns true if the cause needs a search through all pods to be described.
pub(super) fn needs_pods(cause: &Cause<'_>) -> bool {
    matches!(cause, Cause::WithoutEndpoints(_))
}
