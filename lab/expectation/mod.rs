//! Expected outcomes of probes, derived from the Service alone.
//!
//! They follow from the API reference. Where the outcome depends on the proxy's settings (detection of local traffic,
//! source ranges for clients in the cluster), the outcome is not checked and the table only shows it.

mod ipvs_losses;
mod policies;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::data_path::DataPath;
use crate::plan::service_defaults::has_type;
use crate::plan::{ClusterPlan, Family, Frontend, FrontendKind};
use crate::probe::{ProbeOutcome, ProbeTally, Vantage};

pub use ipvs_losses::{IpvsLosses, tolerating_ipvs_losses};
pub use policies::{PolicyCheck, restricted_by_policies};

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

/// An endpoint to which a frontend routes.
struct Destination {
    /// Its pod's name; `None` if no pod of the lab has the address.
    pod: Option<String>,
    node: Option<String>,
    address: Option<SocketAddr>,
}

/// Returns the ready endpoints of the frontend's family and port, or, if there are none, those that are serving and
/// terminating (KEP-1669).
fn usable_endpoints(plan: &ClusterPlan, service: &Service, frontend: &Frontend) -> Vec<Destination> {
    let family = Family::from_ip(frontend.address.ip()).name();
    let mut ready = Vec::new();
    let mut terminating = Vec::new();
    for slice in plan.slices_of(service).filter(|slice| slice.address_type == family) {
        let fits = |name: Option<&str>, protocol: Option<&str>| {
            name.unwrap_or_default() == frontend.port_name && protocol.unwrap_or("TCP") == frontend.protocol
        };
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| fits(port.name.as_deref(), port.protocol.as_deref()));
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let is_ready = conditions.ready != Some(false);
            let is_serving_terminating =
                conditions.serving.unwrap_or(is_ready) && conditions.terminating == Some(true);
            if is_ready {
                ready.push(destination(plan, endpoint, port.port));
            } else if is_serving_terminating {
                terminating.push(destination(plan, endpoint, port.port));
            }
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

fn destination(plan: &ClusterPlan, endpoint: &Endpoint, port: Option<i32>) -> Destination {
    let address: Option<IpAddr> = endpoint.addresses.first().and_then(|address| address.parse().ok());
    let pod = plan.pods.iter().find(|pod| address.is_some_and(|address| pod.addresses.contains(&address)));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let address = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
    Destination { pod: pod.map(|pod| pod.name.clone()), node: endpoint.node_name.clone(), address }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterObjects;

    /// Plans a Service `a` with this `spec`, and pods written as `NAME@NODE`, with `:x` for not ready and `:t` for
    /// terminating.
    fn plan(spec: &str, pods: &str) -> ClusterPlan {
        let pods = pods.split_whitespace().map(|pod| {
            let (name, node) = pod.split_once('@').unwrap();
            let (node, state) = node.split_once(':').unwrap_or((node, ""));
            let deleted = if state == "t" { ", deletionTimestamp: '2026-01-01T00:00:00Z'" } else { "" };
            let ready = if state == "x" { "False" } else { "True" };
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a}}{deleted}}}\nspec: {{nodeName: \
                 {node}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
            )
        });
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}], {spec}}}\n"
        );
        let node2 = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n";
        ClusterObjects::parse(&(service + node2 + &pods.collect::<String>())).unwrap().plan().unwrap()
    }

    fn describe(expected: &Expectation) -> String {
        match expected {
            Expectation::AnswerFrom { pods, same, source_kept } => {
                let names: Vec<&str> = pods.iter().map(|pod| pod.trim_start_matches("default/")).collect();
                let marks = [(*same, " same"), (*source_kept, " kept")];
                names.join(" ")
                    + &marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect::<String>()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn expectations_follow_from_the_service() {
        let all = "a-1@node-1 a-2@node-2";
        let one = "a-1@node-1";
        let local = "type: LoadBalancer, externalTrafficPolicy: Local";
        let cluster_ip = || FrontendKind::ClusterIp;
        let balancer = || FrontendKind::LoadBalancer;
        let node_port = |node: &str| FrontendKind::NodePort(node.into());
        let outside = || (Vantage::Outside, None);
        let on = |node: &'static str| (Vantage::client_on(node), Some(node));
        let rows = [
            ("", all, cluster_ip(), on("node-1"), "a-1 a-2"),
            ("", "", cluster_ip(), on("node-1"), "Refused"),
            ("", "a-1@node-1:x a-2@node-2", cluster_ip(), on("node-1"), "a-2"),
            ("", "a-1@node-1:x", cluster_ip(), on("node-1"), "Refused"),
            ("", "a-1@node-1:t a-2@node-2", cluster_ip(), on("node-1"), "a-2"),
            ("", "a-1@node-1:t", cluster_ip(), on("node-1"), "a-1"),
            ("type: LoadBalancer", "", balancer(), outside(), "Refused"),
            ("type: LoadBalancer", "", balancer(), on("node-1"), "Refused"),
            ("type: LoadBalancer", "", balancer(), (Vantage::node("node-1"), Some("node-1")), "Unspecified"),
            ("publishNotReadyAddresses: true", "a-1@node-1:x", cluster_ip(), on("node-1"), "a-1"),
            ("sessionAffinity: ClientIP", all, cluster_ip(), on("node-1"), "a-1 a-2 same"),
            ("internalTrafficPolicy: Local", all, cluster_ip(), on("node-2"), "a-2"),
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Dropped"),
            ("internalTrafficPolicy: Local", "", cluster_ip(), on("node-2"), "Refused"),
            ("type: NodePort", all, node_port("node-2"), outside(), "a-1 a-2"),
            (local, all, node_port("node-2"), outside(), "a-2 kept"),
            (local, one, node_port("node-2"), outside(), "Dropped"),
            (local, one, node_port("node-2"), on("node-2"), "a-1"),
            (local, one, node_port("node-2"), on("node-1"), "Unspecified"),
            (local, "a-2@node-2", balancer(), outside(), "a-2 kept"),
            (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
            (
                "type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8]",
                all,
                balancer(),
                outside(),
                "Unspecified",
            ),
            ("trafficDistribution: PreferSameNode", all, cluster_ip(), on("node-1"), "Unspecified"),
        ];
        // Expectations that differ with IPVS.
        let in_ipvs = [
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-1"), "a-1"),
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Refused"),
            ("type: NodePort, internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Unspecified"),
            (local, one, node_port("node-2"), outside(), "Dropped"),
            (local, one, node_port("node-2"), on("node-2"), "a-1"),
            (local, all, node_port("node-2"), on("node-2"), "a-2"),
            (local, all, balancer(), on("node-1"), "a-1"),
            (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
            (local, "a-2@node-2", balancer(), (Vantage::node("node-1"), Some("node-1")), "Unspecified"),
            ("type: NodePort", all, node_port("node-2"), on("node-2"), "a-1 a-2"),
        ];
        let rows = rows
            .map(|row| (DataPath::Netfilter, row))
            .into_iter()
            .chain(in_ipvs.map(|row| (DataPath::Ipvs, row)));
        for (data_path, (spec, pods, kind, (vantage, node), wanted)) in rows {
            let plan = plan(spec, pods);
            let service = plan.service("a").unwrap();
            let frontend =
                plan.frontends(service).into_iter().find(|frontend| frontend.kind == kind).unwrap();
            let found = describe(&expectation(&plan, data_path, service, &frontend, &vantage, node));
            assert_eq!(found, wanted, "{data_path:?}: {{{spec}}} with {pods:?} at {kind:?} from {vantage}");
        }
    }

    #[test]
    fn services_of_another_proxy_are_not_checked() {
        for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
            let mut plan = plan("", "a-1@node-1");
            plan.services[0].metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
            let service = plan.service("a").unwrap();
            let frontend = plan.frontends(service).remove(0);
            let vantage = Vantage::client_on("node-1");
            assert_eq!(
                expectation(&plan, DataPath::Netfilter, service, &frontend, &vantage, Some("node-1")),
                Expectation::Unspecified,
                "{label}"
            );
        }
    }

    #[test]
    fn a_few_losses_are_tolerated_in_ipvs_mode_where_a_node_masquerades() {
        let plan = plan("", "a@node-1");
        let from_a =
            Expectation::AnswerFrom { pods: ["a".to_owned()].into(), same: false, source_kept: false };
        // The pod is on node-1, and node-2 masquerades.
        let (of_node, of_bridge) = (plan.nodes[1].addresses[0], plan.nodes[0].bridge_addresses()[0]);
        let of_client: IpAddr = "10.0.0.1".parse().unwrap();
        for (data_path, source, lost, is_as_expected) in [
            (DataPath::Ipvs, of_node, 0, true),
            (DataPath::Ipvs, of_node, 2, true),
            (DataPath::Ipvs, of_bridge, 2, false),
            (DataPath::Ipvs, of_node, 3, false),
            (DataPath::Ipvs, of_node, 24, false),
            (DataPath::Ipvs, of_client, 0, true),
            (DataPath::Ipvs, of_client, 1, false),
            (DataPath::Netfilter, of_node, 1, false),
        ] {
            let answered =
                ProbeOutcome::Answered { responder: "a".into(), source: SocketAddr::new(source, 1) };
            let outcomes = (0..24).map(|n| if n < lost { ProbeOutcome::TimedOut } else { answered.clone() });
            let tally = tolerating_ipvs_losses(data_path, &plan, &outcomes.collect());
            assert_eq!(
                from_a.violation(&tally, &[]).is_none(),
                is_as_expected,
                "{data_path:?}, {source}, {lost} lost"
            );
        }
    }

    #[test]
    fn violations_name_the_difference() {
        let answered = |by: &str, source: &str| ProbeOutcome::Answered {
            responder: by.into(),
            source: format!("{source}:1").parse().unwrap(),
        };
        let from = |pods: &[&str], same, source_kept| Expectation::AnswerFrom {
            pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            same,
            source_kept,
        };
        let client: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let both = vec![answered("a", "10.0.0.1"), answered("b", "10.0.0.1")];
        let rows = [
            (from(&["a", "b"], false, true), both.clone(), None),
            (from(&["a"], false, false), both.clone(), Some("unexpected response from b")),
            (from(&["a", "b"], true, false), both.clone(), Some("session affinity was not kept")),
            (
                from(&["a"], false, true),
                vec![answered("a", "10.0.0.9")],
                Some("source address was translated to 10.0.0.9, expected the client's"),
            ),
            (from(&["a"], false, false), vec![answered("a", "10.0.0.9")], None),
            (
                from(&["a"], false, false),
                vec![ProbeOutcome::Refused],
                Some("1 of 1 refused, expected a response"),
            ),
            (Expectation::Refused, vec![ProbeOutcome::Refused, ProbeOutcome::Refused], None),
            (
                Expectation::Refused,
                vec![ProbeOutcome::Refused, ProbeOutcome::TimedOut],
                Some("expected refused"),
            ),
            (Expectation::Dropped, vec![ProbeOutcome::TimedOut], None),
            (Expectation::Dropped, vec![ProbeOutcome::Refused], Some("expected lost")),
            (Expectation::Unspecified, vec![ProbeOutcome::Refused], None),
        ];
        for (expected, outcomes, violation) in rows {
            let tally: ProbeTally = outcomes.into_iter().collect();
            assert_eq!(expected.violation(&tally, &client).as_deref(), violation, "{expected:?} {tally:?}");
        }
    }
}
