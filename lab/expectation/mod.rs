//! What a probe must show, where it follows from the Service alone.
//!
//! This is the API's word on Services, not a second proxy: where the answer hangs on a proxy's settings (what counts as
//! cluster-local traffic, source ranges seen from inside), nothing is expected and the table only shows what was seen.

mod excused;
mod judged;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::mode::Mode;
use crate::plan::service_defaults::has_type;
use crate::plan::{Family, Front, FrontKind, Plan};
use crate::probe::{Outcome, Tally, Vantage};

pub use excused::excused;
pub use judged::{Judge, where_judged};

/// What must be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// One of these pods answers.
    AnswerFrom {
        /// `namespace/name` of the pods.
        pods: BTreeSet<String>,
        /// Whether all the probes of one client must meet the same pod.
        same: bool,
        /// Whether the pod must see the client's own address.
        source_kept: bool,
    },
    /// Refused at once.
    Refused,
    /// Nothing comes back.
    Dropped,
    /// It depends.
    Anything,
}

impl Expected {
    /// What is wrong with what was seen, if anything. `client` are the addresses of the prober.
    pub fn complaint(&self, tally: &Tally, client: &[IpAddr]) -> Option<String> {
        match self {
            Self::Anything => None,
            Self::Refused => only(tally, "refused", |outcome| *outcome == Outcome::Refused),
            Self::Dropped => {
                only(tally, "lost", |outcome| matches!(outcome, Outcome::TimedOut | Outcome::Unreachable))
            }
            Self::AnswerFrom { pods, same, source_kept } => {
                let strangers: Vec<&str> =
                    tally.answerers().into_iter().filter(|by| !pods.contains(*by)).collect();
                if !strangers.is_empty() {
                    return Some(format!("{} must not answer", strangers.join(", ")));
                }
                if let Some((outcome, count)) = tally.others.iter().next() {
                    return Some(format!("{count} of {} {outcome}, expected an answer", tally.total()));
                }
                if *same && tally.by.len() > 1 {
                    return Some("session affinity was not kept".to_owned());
                }
                let hidden = tally.sources.iter().find(|source| *source_kept && !client.contains(source));
                hidden.map(|source| format!("the client's address became {source}, and must be kept"))
            }
        }
    }
}

fn only(tally: &Tally, what: &str, fits: impl Fn(&Outcome) -> bool) -> Option<String> {
    let fitting: usize =
        tally.others.iter().filter(|(outcome, _)| fits(outcome)).map(|(_, count)| count).sum();
    (fitting < tally.total()).then(|| format!("must be {what}"))
}

/// What probes of a front of a Service must show from a vantage, where `node` is the node of the vantage.
pub fn expected(
    plan: &Plan,
    mode: Mode,
    service: &Service,
    front: &Front,
    vantage: &Vantage,
    node: Option<&str>,
) -> Expected {
    let Some(spec) = &service.spec else { return Expected::Anything };
    if is_left_to_others(service) {
        return Expected::Anything;
    }
    let all = usable(plan, service, front);
    let local_to = |node: &str| {
        let here = |endpoint: &&Reached| endpoint.node.as_deref() == Some(node);
        all.iter().filter(here).map(|endpoint| endpoint.pod.clone()).collect::<Option<BTreeSet<String>>>()
    };
    // An SCTP client takes no notice of "port unreachable": it asks on until its time is over.
    let refused = if front.protocol == "SCTP" { Expected::Anything } else { Expected::Refused };
    if all.is_empty() {
        // What refuses outside addresses looks at what comes in or through, not at what a node itself sends.
        let unseen = matches!(vantage, Vantage::Node(_))
            && matches!(front.kind, FrontKind::LoadBalancer | FrontKind::ExternalIp);
        // IPVS refuses a node's own UDP by an error that the socket may not be told of.
        let untold = mode == Mode::Ipvs && matches!(vantage, Vantage::Node(_)) && front.protocol == "UDP";
        let depends = unseen || untold || has_ranges(spec, front);
        return if depends { Expected::Anything } else { refused };
    }
    let Some(every) = all.iter().map(|endpoint| endpoint.pod.clone()).collect::<Option<BTreeSet<String>>>()
    else {
        return Expected::Anything;
    };
    let same = spec.session_affinity.as_deref() == Some("ClientIP");
    let answer = |pods: Option<BTreeSet<String>>, source_kept| match pods {
        None => Expected::Anything,
        Some(pods) if pods.is_empty() => Expected::Dropped,
        Some(pods) => Expected::AnswerFrom { pods, same, source_kept },
    };
    let anywhere = || answer(Some(every.clone()), false);
    if has_ranges(spec, front) || is_hinted(plan, service) {
        return Expected::Anything;
    }
    if front.kind == FrontKind::ClusterIp {
        return match (spec.internal_traffic_policy.as_deref(), node) {
            (Some("Local"), Some(node)) => {
                let pods = local_to(node);
                match mode {
                    Mode::Ipvs if is_empty(&pods) && has_outside(spec) => Expected::Anything,
                    // A virtual server without real servers refuses.
                    Mode::Ipvs if is_empty(&pods) => refused,
                    _ => answer(pods, false),
                }
            }
            (Some("Local"), None) => Expected::Anything,
            _ => anywhere(),
        };
    }
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return anywhere();
    }
    let entry = match &front.kind {
        FrontKind::NodePort(node) => node.as_str(),
        _ => plan.entry_node(service),
    };
    match (vantage, node) {
        (Vantage::Outside, _) => answer(local_to(entry), true),
        // Cluster-local traffic that its own node takes to the address goes to every endpoint; IPVS has one virtual
        // server for all clients, and keeps it to the node's own as long as there are any. Without, what the node
        // itself sends to an address that is not its own bears that very address, and no other node answers to that.
        (_, Some(node)) if !matches!(&front.kind, FrontKind::NodePort(at) if at != node) => {
            let pods = local_to(node);
            let is_itself =
                matches!(vantage, Vantage::Node(_)) && !matches!(front.kind, FrontKind::NodePort(_));
            match mode {
                Mode::Ipvs if !is_empty(&pods) => answer(pods, false),
                Mode::Ipvs if is_itself => Expected::Anything,
                _ => anywhere(),
            }
        }
        _ => Expected::Anything,
    }
}

/// An endpoint that a front leads to.
struct Reached {
    /// Its pod's name; `None` when nothing of the lab has the address, or the pod has no echo server on the port.
    pod: Option<String>,
    node: Option<String>,
    /// Where it is.
    at: Option<SocketAddr>,
}

/// The endpoints of the front's family and port that are ready, or, when none is, serving and terminating (KEP-1669).
fn usable(plan: &Plan, service: &Service, front: &Front) -> Vec<Reached> {
    let family = Family::of(front.address.ip()).name();
    let mut ready = Vec::new();
    let mut draining = Vec::new();
    for slice in plan.slices_of(service).filter(|slice| slice.address_type == family) {
        let fits = |name: Option<&str>, protocol: Option<&str>| {
            name.unwrap_or_default() == front.port_name && protocol.unwrap_or("TCP") == front.protocol
        };
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| fits(port.name.as_deref(), port.protocol.as_deref()));
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let is_ready = conditions.ready != Some(false);
            let is_draining = conditions.serving.unwrap_or(is_ready) && conditions.terminating == Some(true);
            if is_ready {
                ready.push(reached(plan, endpoint, port.port));
            } else if is_draining {
                draining.push(reached(plan, endpoint, port.port));
            }
        }
    }
    if ready.is_empty() { draining } else { ready }
}

fn reached(plan: &Plan, endpoint: &Endpoint, port: Option<i32>) -> Reached {
    let address: Option<IpAddr> = endpoint.addresses.first().and_then(|address| address.parse().ok());
    let pod = plan.pods.iter().find(|pod| address.is_some_and(|address| pod.addresses.contains(&address)));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let at = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
    Reached { pod: pod.map(|pod| pod.name.clone()), node: endpoint.node_name.clone(), at }
}

fn has_ranges(spec: &ServiceSpec, front: &Front) -> bool {
    front.kind == FrontKind::LoadBalancer
        && spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty())
}

/// Whether it is known that there are none.
fn is_empty(pods: &Option<BTreeSet<String>>) -> bool {
    pods.as_ref().is_some_and(BTreeSet::is_empty)
}

/// Whether the Service has addresses or ports for clients outside of the cluster.
fn has_outside(spec: &ServiceSpec) -> bool {
    has_type(spec, "NodePort")
        || has_type(spec, "LoadBalancer")
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty())
}

/// Whether the Service has a label that tells proxies to leave it alone.
fn is_left_to_others(service: &Service) -> bool {
    const LABELS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    let labels = service.metadata.labels.as_ref();
    LABELS.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label)))
}

fn is_hinted(plan: &Plan, service: &Service) -> bool {
    let mut endpoints = plan.slices_of(service).flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.any(|endpoint| endpoint.hints.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cluster;

    /// Three pods: `a-1` and `a-3` on node-1, `a-2` on node-2; or as the rows say.
    fn plan(spec: &str, pods: &str) -> Plan {
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
        Cluster::parse(&(service + node2 + &pods.collect::<String>())).unwrap().plan().unwrap()
    }

    fn describe(expected: &Expected) -> String {
        match expected {
            Expected::AnswerFrom { pods, same, source_kept } => {
                let names: Vec<&str> = pods.iter().map(|pod| pod.trim_start_matches("default/")).collect();
                let marks = [(*same, " same"), (*source_kept, " kept")];
                names.join(" ")
                    + &marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect::<String>()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn expectations_follow_the_service() {
        let all = "a-1@node-1 a-2@node-2";
        let one = "a-1@node-1";
        let local = "type: LoadBalancer, externalTrafficPolicy: Local";
        let cluster_ip = || FrontKind::ClusterIp;
        let balancer = || FrontKind::LoadBalancer;
        let node_port = |node: &str| FrontKind::NodePort(node.into());
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
            ("type: LoadBalancer", "", balancer(), (Vantage::node("node-1"), Some("node-1")), "Anything"),
            ("publishNotReadyAddresses: true", "a-1@node-1:x", cluster_ip(), on("node-1"), "a-1"),
            ("sessionAffinity: ClientIP", all, cluster_ip(), on("node-1"), "a-1 a-2 same"),
            ("internalTrafficPolicy: Local", all, cluster_ip(), on("node-2"), "a-2"),
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Dropped"),
            ("internalTrafficPolicy: Local", "", cluster_ip(), on("node-2"), "Refused"),
            ("type: NodePort", all, node_port("node-2"), outside(), "a-1 a-2"),
            (local, all, node_port("node-2"), outside(), "a-2 kept"),
            (local, one, node_port("node-2"), outside(), "Dropped"),
            (local, one, node_port("node-2"), on("node-2"), "a-1"),
            (local, one, node_port("node-2"), on("node-1"), "Anything"),
            (local, "a-2@node-2", balancer(), outside(), "a-2 kept"),
            (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
            (
                "type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8]",
                all,
                balancer(),
                outside(),
                "Anything",
            ),
            ("trafficDistribution: PreferSameNode", all, cluster_ip(), on("node-1"), "Anything"),
        ];
        // What IPVS does otherwise.
        let in_ipvs = [
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-1"), "a-1"),
            ("internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Refused"),
            ("type: NodePort, internalTrafficPolicy: Local", one, cluster_ip(), on("node-2"), "Anything"),
            (local, one, node_port("node-2"), outside(), "Dropped"),
            (local, one, node_port("node-2"), on("node-2"), "a-1"),
            (local, all, node_port("node-2"), on("node-2"), "a-2"),
            (local, all, balancer(), on("node-1"), "a-1"),
            (local, "a-2@node-2", balancer(), on("node-1"), "a-2"),
            (local, "a-2@node-2", balancer(), (Vantage::node("node-1"), Some("node-1")), "Anything"),
            ("type: NodePort", all, node_port("node-2"), on("node-2"), "a-1 a-2"),
        ];
        let rows = rows.map(|row| (Mode::Rules, row)).into_iter().chain(in_ipvs.map(|row| (Mode::Ipvs, row)));
        for (mode, (spec, pods, kind, (vantage, node), wanted)) in rows {
            let plan = plan(spec, pods);
            let service = plan.service("a").unwrap();
            let front = plan.fronts(service).into_iter().find(|front| front.kind == kind).unwrap();
            let found = describe(&expected(&plan, mode, service, &front, &vantage, node));
            assert_eq!(found, wanted, "{mode:?}: {{{spec}}} with {pods:?} at {kind:?} from {vantage}");
        }
    }

    #[test]
    fn nothing_is_expected_of_services_that_are_left_to_others() {
        for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
            let mut plan = plan("", "a-1@node-1");
            plan.services[0].metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
            let service = plan.service("a").unwrap();
            let front = plan.fronts(service).remove(0);
            let vantage = Vantage::client_on("node-1");
            assert_eq!(
                expected(&plan, Mode::Rules, service, &front, &vantage, Some("node-1")),
                Expected::Anything,
                "{label}"
            );
        }
    }

    #[test]
    fn a_few_losses_are_excused_in_ipvs_mode_where_a_node_masquerades() {
        let plan = plan("", "a@node-1");
        let from_a = Expected::AnswerFrom { pods: ["a".to_owned()].into(), same: false, source_kept: false };
        let (of_node, of_bridge) = (plan.nodes[0].addresses[0], plan.nodes[0].bridge()[0]);
        let of_client: IpAddr = "10.0.0.1".parse().unwrap();
        for (mode, source, lost, is_good) in [
            (Mode::Ipvs, of_node, 0, true),
            (Mode::Ipvs, of_node, 2, true),
            (Mode::Ipvs, of_bridge, 2, true),
            (Mode::Ipvs, of_node, 3, false),
            (Mode::Ipvs, of_node, 24, false),
            (Mode::Ipvs, of_client, 0, true),
            (Mode::Ipvs, of_client, 1, false),
            (Mode::Rules, of_node, 1, false),
        ] {
            let answered = Outcome::Answered { by: "a".into(), saw_source: SocketAddr::new(source, 1) };
            let outcomes = (0..24).map(|n| if n < lost { Outcome::TimedOut } else { answered.clone() });
            let tally = excused(mode, &plan, &outcomes.collect());
            assert_eq!(from_a.complaint(&tally, &[]).is_none(), is_good, "{mode:?}, {source}, {lost} lost");
        }
    }

    #[test]
    fn complaints_say_what_is_wrong() {
        let answered = |by: &str, source: &str| Outcome::Answered {
            by: by.into(),
            saw_source: format!("{source}:1").parse().unwrap(),
        };
        let from = |pods: &[&str], same, source_kept| Expected::AnswerFrom {
            pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            same,
            source_kept,
        };
        let client: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let both = vec![answered("a", "10.0.0.1"), answered("b", "10.0.0.1")];
        let rows = [
            (from(&["a", "b"], false, true), both.clone(), None),
            (from(&["a"], false, false), both.clone(), Some("b must not answer")),
            (from(&["a", "b"], true, false), both.clone(), Some("session affinity was not kept")),
            (
                from(&["a"], false, true),
                vec![answered("a", "10.0.0.9")],
                Some("the client's address became 10.0.0.9, and must be kept"),
            ),
            (from(&["a"], false, false), vec![answered("a", "10.0.0.9")], None),
            (from(&["a"], false, false), vec![Outcome::Refused], Some("1 of 1 refused, expected an answer")),
            (Expected::Refused, vec![Outcome::Refused, Outcome::Refused], None),
            (Expected::Refused, vec![Outcome::Refused, Outcome::TimedOut], Some("must be refused")),
            (Expected::Dropped, vec![Outcome::TimedOut], None),
            (Expected::Dropped, vec![Outcome::Refused], Some("must be lost")),
            (Expected::Anything, vec![Outcome::Refused], None),
        ];
        for (expected, outcomes, complaint) in rows {
            let tally: Tally = outcomes.into_iter().collect();
            assert_eq!(expected.complaint(&tally, &client).as_deref(), complaint, "{expected:?} {tally:?}");
        }
    }
}
