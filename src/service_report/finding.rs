//! Descriptions of causes.

use portcullis_cluster::desired::{ServicePort, UnservedReason};
use portcullis_cluster::service::NotProxiedReason;
use portcullis_cluster::{NamespacedName, TrafficPolicy};

use super::cause::Cause;
use super::documents::Finding;
use super::endpoint_text::{no_local_endpoint, not_ready};
use super::input::ReportInput;
use super::no_endpoints::{Diagnosis, DiagnosisInput, diagnose};
use super::reason::Reason;

/// The hint about a Service that is too large.
pub(crate) const SPLIT_SERVICE: &str =
    "a node keeps the last version of the Service within the limit, if it had one; divide the Service";

/// Describes a cause of a Service. `has_pods`: the pods of the cluster may be searched.
pub(super) fn describe(
    input: &ReportInput<'_>,
    name: &NamespacedName,
    cause: &Cause<'_>,
    has_pods: bool,
) -> Finding {
    let (reason, message, hint) = match cause {
        Cause::NotProxied(reason) => not_proxied(name, *reason),
        Cause::NoPorts => (Reason::NoPorts, format!("{name} has no valid port"), None),
        Cause::Pending => (Reason::Pending, format!("a change of {name} is not programmed yet"), None),
        Cause::TooLarge { size, keeps_old_version } => {
            let effect = match keeps_old_version {
                true => "its last version within the limit is served",
                false => "it is not served",
            };
            (Reason::TooLarge, format!("{size}; {effect}"), Some(SPLIT_SERVICE.to_owned()))
        }
        Cause::Isolated(isolation) => {
            let since = isolation.since;
            let message = format!("the kernel rejects {name} since {since:.0}: {}", isolation.message);
            let families: Vec<&str> = isolation.without_rules.iter().map(|family| family.as_str()).collect();
            let effect = match families.is_empty() {
                true => "its last accepted rules are kept".to_owned(),
                false => format!(
                    "no version of it has been accepted, so nothing serves it by {}",
                    families.join(" and ")
                ),
            };
            let hint = format!("{effect}; it is retried, and all other Services are served");
            (Reason::Isolated, message, Some(hint))
        }
        Cause::Unserved(unserved) => match &unserved.reason {
            UnservedReason::Shadowed { by } => {
                let hint = format!("change the address or port of one of the two, or delete {by}");
                (Reason::Shadowed, unserved.to_string(), Some(hint))
            }
            UnservedReason::OutsideAllowedCidrs => (Reason::AddressNotAllowed, unserved.to_string(), None),
        },
        Cause::FamilyNotServed { family, .. } => {
            let message = format!("this node does not serve {}", family.as_str());
            (Reason::FamilyNotServed, message, None)
        }
        Cause::WithoutEndpoints(port) => {
            let lookup =
                DiagnosisInput { index: input.index, has_pods, has_endpoints_v1: input.has_endpoints_v1 };
            let Diagnosis { reason, message, hint } = diagnose(lookup, port);
            (reason, message, Some(hint))
        }
        Cause::NoneReady(port) => {
            let (message, hint) = not_ready(&port.name.service, port.endpoints.total());
            (Reason::NoReadyEndpoints, message, Some(hint))
        }
        Cause::NoneLocal { frontend, is_fallback, has_health_check } => {
            let slices = input.index.slices_of(name);
            let (message, hint) = no_local_endpoint(*frontend, slices, input.desired.node());
            let effect = match (is_fallback, frontend.is_external(), has_health_check) {
                (true, false, _) => "; this mode uses the endpoints of other nodes",
                (_, _, true) => "; its health check tells load balancers not to use this node",
                _ => "; this node drops the connections",
            };
            (Reason::NoLocalEndpoints, format!("{message}{effect}"), Some(hint))
        }
        Cause::OnlyTerminating { port, policy } => only_terminating(port, *policy),
        Cause::TopologyHints { port, used, ready } => {
            let port = &port.name;
            let message =
                format!("topology hints of {port} select {used} of {ready} ready endpoints for this node");
            (Reason::TopologyHints, message, None)
        }
        Cause::NoSourceAllowed(port) => {
            let name = &port.name.service;
            let message = format!(
                "loadBalancerSourceRanges of {name} has no valid block, so no client may use its load balancer address"
            );
            let hint = "write blocks such as 192.0.2.0/24";
            (Reason::NoSourceAllowed, message, Some(hint.to_owned()))
        }
        Cause::NoNodePortAddress(port) => {
            let family = port.family.as_str();
            let message = format!("no {family} address of this node serves node ports");
            (Reason::NoNodePortAddress, message, Some("check --nodeport-addresses".to_owned()))
        }
        Cause::HealthCheckFailed { port, message } => {
            let message = format!("health check node port {port} is not served: {message}");
            (Reason::HealthCheckNotServed, message, None)
        }
        Cause::HealthCheckIsNodePort { port, of } => {
            let message =
                format!("health check node port {port} is not served: it is a node port of Service {of}");
            let hint = "set another healthCheckNodePort or nodePort";
            (Reason::HealthCheckNotServed, message, Some(hint.to_owned()))
        }
    };
    Finding { severity: cause.severity(), reason, message, hint }
}

fn not_proxied(name: &NamespacedName, reason: NotProxiedReason) -> (Reason, String, Option<String>) {
    let (reason, text) = match reason {
        NotProxiedReason::NoClusterIp => {
            (Reason::NoClusterIp, "has no ClusterIP yet (spec.clusterIP is empty)")
        }
        NotProxiedReason::Headless => (Reason::Headless, "is headless; its DNS name resolves to its pods"),
        NotProxiedReason::ExternalName => {
            (Reason::ExternalName, "is of type ExternalName, which only DNS implements")
        }
        NotProxiedReason::OtherProxy => (
            Reason::OtherProxy,
            "has the label service.kubernetes.io/service-proxy-name, so another proxy serves it",
        ),
    };
    (reason, format!("{name} {text}"), None)
}

fn only_terminating(port: &ServicePort, policy: TrafficPolicy) -> (Reason, String, Option<String>) {
    let count = port.endpoints.for_policy(policy).count();
    let place = if policy.is_local() { " on this node" } else { "" };
    let name = &port.name;
    let message = match count {
        1 => format!("the only usable endpoint of {name}{place} is terminating"),
        _ => format!("all {count} usable endpoints of {name}{place} are terminating"),
    };
    (Reason::OnlyTerminatingEndpoints, message, Some("check why no other pod becomes ready".to_owned()))
}
