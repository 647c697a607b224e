//! Causes: why a Service does not answer, or answers with restrictions, without the text.
//!
//! A report looks for the causes of many Services and describes those of a few.

use portcullis_cluster::desired::{
    Frontend, FrontendAddress, FrontendKind, Route, ServicePort, ServiceSize, SourceClass, UnservedFrontend,
    UnservedReason,
};
use portcullis_cluster::service::{NotProxiedReason, Service};
use portcullis_cluster::{Family, NamespacedName, Protocol, TrafficPolicy};

use super::input::{Isolation, ReportInput};
use super::reason::Severity;

/// A cause of a finding.
pub(super) enum Cause<'a> {
    NotProxied(NotProxiedReason),
    NoPorts,
    Pending,
    TooLarge {
        size: ServiceSize,
        keeps_old_version: bool,
    },
    Isolated(&'a Isolation),
    Unserved(UnservedFrontend),
    FamilyNotServed {
        family: Family,
        is_only: bool,
    },
    /// No EndpointSlice has an endpoint for the port.
    WithoutEndpoints(&'a ServicePort),
    NoneReady(&'a ServicePort),
    /// Traffic policy Local without an endpoint on this node; `has_health_check`: load balancers do not use this node.
    NoneLocal {
        frontend: Frontend<'a>,
        is_fallback: bool,
        has_health_check: bool,
    },
    OnlyTerminating {
        port: &'a ServicePort,
        policy: TrafficPolicy,
    },
    TopologyHints {
        port: &'a ServicePort,
        used: usize,
        ready: usize,
    },
    NoSourceAllowed(&'a ServicePort),
    NoNodePortAddress(&'a ServicePort),
    HealthCheckFailed {
        port: u16,
        message: &'a str,
    },
    HealthCheckIsNodePort {
        port: u16,
        of: &'a NamespacedName,
    },
}

impl Cause<'_> {
    /// Returns the severity of the finding.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Cause::NotProxied(_) | Cause::Pending | Cause::TopologyHints { .. } => Severity::Info,
            Cause::FamilyNotServed { is_only: false, .. } => Severity::Info,
            Cause::NoneLocal { frontend, is_fallback, has_health_check } => {
                let is_used_elsewhere = *has_health_check || (*is_fallback && !frontend.is_external());
                if is_used_elsewhere { Severity::Info } else { Severity::Warning }
            }
            Cause::OnlyTerminating { .. }
            | Cause::NoNodePortAddress(_)
            | Cause::HealthCheckFailed { .. }
            | Cause::HealthCheckIsNodePort { .. } => Severity::Warning,
            Cause::Unserved(unserved) => match unserved.kind {
                FrontendKind::ClusterIp | FrontendKind::NodePort => Severity::Error,
                FrontendKind::LoadBalancer | FrontendKind::ExternalIp => Severity::Warning,
            },
            Cause::NoPorts
            | Cause::TooLarge { .. }
            | Cause::Isolated(_)
            | Cause::FamilyNotServed { .. }
            | Cause::WithoutEndpoints(_)
            | Cause::NoneReady(_)
            | Cause::NoSourceAllowed(_) => Severity::Error,
        }
    }
}

/// Returns the causes of a Service, the most severe first.
pub(super) fn causes<'a>(input: &'a ReportInput<'a>, service: &'a Service) -> Vec<Cause<'a>> {
    if let Some(reason) = service.not_proxied {
        return vec![Cause::NotProxied(reason)];
    }
    let name = &service.key;
    let ports = input.desired.services().get(name).map_or(&[][..], |ports| ports);
    let mut causes = Vec::new();
    if input.pending.iter().any(|pending| pending.contains(name)) {
        causes.push(Cause::Pending);
    } else if service.ports.is_empty() {
        causes.push(Cause::NoPorts);
    }
    let oversized = input.desired.oversized().get(name);
    if let Some(size) = oversized {
        causes.push(Cause::TooLarge { size: *size, keeps_old_version: !ports.is_empty() });
    }
    let isolation = input.isolated.get(name).filter(|_| oversized.is_none());
    causes.extend(isolation.map(Cause::Isolated));
    causes.extend(input.desired.unserved(name).into_iter().map(Cause::Unserved));
    families_not_served(input, service, &mut causes);
    for port in ports.iter().filter(|port| input.families.contains(&port.family)) {
        causes_of_port(input, port, &mut causes);
    }
    health_check(input, service, ports, &mut causes);
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.severity()));
    causes
}

fn families_not_served<'a>(input: &ReportInput<'a>, service: &Service, causes: &mut Vec<Cause<'a>>) {
    let has = |family| service.cluster_ips.iter().any(|ip| Family::from_address(*ip) == family);
    let is_only = !input.families.iter().any(|family| has(*family));
    for family in Family::BOTH.into_iter().filter(|family| has(*family) && !input.families.contains(family)) {
        causes.push(Cause::FamilyNotServed { family, is_only });
    }
}

fn causes_of_port<'a>(input: &'a ReportInput<'a>, port: &'a ServicePort, causes: &mut Vec<Cause<'a>>) {
    let endpoints = &port.endpoints;
    if !endpoints.has_usable() {
        causes.push(match endpoints.total() {
            0 => Cause::WithoutEndpoints(port),
            _ => Cause::NoneReady(port),
        });
    } else {
        causes_of_policies(input, port, causes);
    }
    let is_closed = port.source_ranges.as_ref().is_some_and(|ranges| ranges.is_empty());
    if is_closed && !port.load_balancer_vips.is_empty() {
        causes.push(Cause::NoSourceAllowed(port));
    }
    if port.node_port.is_some() && !input.serves_node_ports(port.family) {
        causes.push(Cause::NoNodePortAddress(port));
    }
}

/// Adds the causes of a port with usable endpoints.
fn causes_of_policies<'a>(input: &'a ReportInput<'a>, port: &'a ServicePort, causes: &mut Vec<Cause<'a>>) {
    // All external frontends of a port have the same policy.
    let internal = port.frontends().find(|frontend| !frontend.is_external());
    let external = port.frontends().find(Frontend::is_external);
    for frontend in internal.into_iter().chain(external) {
        let route = primary_route(input, &frontend);
        if !has_endpoint(&frontend, &route) || route.is_fallback {
            let has_health_check = frontend.is_external() && port.health_check_node_port.is_some();
            causes.push(Cause::NoneLocal { frontend, is_fallback: route.is_fallback, has_health_check });
        }
    }
    for policy in TrafficPolicy::ALL {
        let mut used = port.endpoints.for_policy(policy).peekable();
        if used.peek().is_some() && used.all(|endpoint| !endpoint.is_ready()) {
            causes.push(Cause::OnlyTerminating { port, policy });
        }
    }
    let used = port.endpoints.for_policy(TrafficPolicy::Cluster).count();
    let ready = port.endpoints.serving().iter().filter(|endpoint| endpoint.is_ready()).count();
    if used > 0 && used < ready {
        causes.push(Cause::TopologyHints { port, used, ready });
    }
}

/// Returns the route of the clients for which a frontend exists: pods for a ClusterIP, clients outside of the cluster for all
/// others.
pub(super) fn primary_route(input: &ReportInput<'_>, frontend: &Frontend<'_>) -> Route {
    let source = if frontend.is_external() { SourceClass::External } else { SourceClass::Pod };
    frontend.route(source, &input.routing_context(frontend.port.family))
}

/// Returns true if these clients reach an endpoint by a route. Replies to clients outside of the cluster from an endpoint on
/// another node are lost, as they are not masqueraded.
pub(super) fn has_endpoint(frontend: &Frontend<'_>, route: &Route) -> bool {
    route.rejection.is_none() && !(route.is_fallback && frontend.is_external())
}

/// Returns true if a frontend answers the clients for which it exists.
pub(super) fn answers(input: &ReportInput<'_>, frontend: &Frontend<'_>) -> bool {
    let family = frontend.port.family;
    let is_closed = || {
        let allowed = frontend.allowed_sources(&input.routing_context(family));
        allowed.is_some_and(|allowed| allowed.ranges.is_empty())
    };
    let has_address = || frontend.kind != FrontendKind::NodePort || input.serves_node_ports(family);
    let has_rules = || {
        let isolation = input.isolated.get(&frontend.port.name.service);
        isolation.is_none_or(|isolation| !isolation.without_rules.contains(&family))
    };
    input.families.contains(&family)
        && has_endpoint(frontend, &primary_route(input, frontend))
        && has_address()
        && has_rules()
        && !is_closed()
}

fn health_check<'a>(
    input: &'a ReportInput<'a>,
    service: &'a Service,
    ports: &'a [ServicePort],
    causes: &mut Vec<Cause<'a>>,
) {
    let Some(number) = ports.iter().find_map(|port| port.health_check_node_port) else { return };
    let number = number.get();
    let owner = ports.iter().find_map(|port| {
        let family = port.family;
        input.desired.served_at(&FrontendAddress::NodePort { protocol: Protocol::Tcp, family, port: number })
    });
    match (owner, input.health_check_failures.get(&service.key)) {
        (Some(of), _) => causes.push(Cause::HealthCheckIsNodePort { port: number, of }),
        (None, Some(message)) => causes.push(Cause::HealthCheckFailed { port: number, message }),
        (None, None) => {}
    }
}

/// Returns the Service that is served at a frontend instead.
pub(super) fn shadowed_by(unserved: &UnservedFrontend) -> Option<&NamespacedName> {
    match &unserved.reason {
        UnservedReason::Shadowed { by } => Some(by),
        UnservedReason::OutsideAllowedCidrs => None,
    }
}
