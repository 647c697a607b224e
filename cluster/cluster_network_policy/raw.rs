//! ClusterNetworkPolicies as in JSON, and their conversion.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::raw_port::RawProtocol;
use super::{
    ClusterNetworkPolicy, ClusterNetworkPolicyAction, ClusterNetworkPolicyPeer, ClusterNetworkPolicyPort,
    ClusterNetworkPolicyRule, NamespacedPods, Tier,
};
use crate::address::{is_ipv4_mapped_cidr, parse_cidr};
use crate::label_selector::{LabelSelector, RawLabelSelector};
use crate::labels::null_is_empty;
use crate::metadata::Metadata;
use crate::name::NamespacedName;
use crate::policy_size::{self, WEIGHT, selector_entries};
use crate::problem::{Problem, set_consequence};

#[derive(Deserialize)]
pub(crate) struct RawClusterNetworkPolicy {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Spec {
    tier: Option<String>,
    priority: Option<i64>,
    #[serde(default, deserialize_with = "null_is_empty")]
    subject: RawSubject,
    #[serde(default, deserialize_with = "null_is_empty")]
    ingress: Vec<RawRule>,
    #[serde(default, deserialize_with = "null_is_empty")]
    egress: Vec<RawRule>,
}

#[derive(Default, Deserialize)]
struct RawSubject {
    namespaces: Option<RawLabelSelector>,
    pods: Option<RawPods>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPods {
    namespace_selector: Option<RawLabelSelector>,
    pod_selector: Option<RawLabelSelector>,
}

#[derive(Deserialize)]
struct RawRule {
    name: Option<String>,
    action: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    from: Vec<RawPeer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    to: Vec<RawPeer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    protocols: Vec<RawProtocol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPeer {
    namespaces: Option<RawLabelSelector>,
    pods: Option<RawPods>,
    nodes: Option<RawLabelSelector>,
    networks: Option<Vec<String>>,
    domain_names: Option<Vec<String>>,
}

/// The field of a rule's peers, which determines its direction.
#[derive(Clone, Copy, PartialEq)]
enum Peers {
    From,
    To,
}

/// The consequence of an invalid tier, priority or subject.
const NO_EFFECT: &str = "the policy has no effect: it selects no pod";

impl RawClusterNetworkPolicy {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> ClusterNetworkPolicy {
        let Spec { tier, priority, subject, ingress, egress } = self.spec;
        let tier_read = match tier.as_deref() {
            Some("Admin") => Some(Tier::Admin),
            Some("Baseline") => Some(Tier::Baseline),
            other => {
                problems.push(Problem::new("spec.tier", other.unwrap_or_default(), "Admin or Baseline"));
                None
            }
        };
        let priority_read = priority.and_then(|n| u16::try_from(n).ok()).filter(|n| *n <= 1000);
        if priority_read.is_none() {
            let value = priority.map(|n| n.to_string()).unwrap_or_default();
            problems.push(Problem::new("spec.priority", value, "a number from 0 to 1000"));
        }
        let subject = subject.convert(problems);
        set_consequence(problems, NO_EFFECT);
        let mut rules =
            |direction: &str, peers: Peers, rules: Vec<RawRule>| -> Box<[ClusterNetworkPolicyRule]> {
                let convert = |(i, rule): (usize, RawRule)| {
                    rule.convert(&format!("spec.{direction}[{i}]"), peers, problems)
                };
                rules.into_iter().enumerate().map(convert).collect()
            };
        let entries: usize = ingress.iter().chain(&egress).map(RawRule::entries).sum();
        let too_large = policy_size::problem(
            entries,
            "its rules do not apply, and the policy denies everything in each direction with a Deny or Pass rule",
        );
        let (ingress, egress) = match too_large.is_some() {
            true => (deny_all(&ingress), deny_all(&egress)),
            false => (rules("ingress", Peers::From, ingress), rules("egress", Peers::To, egress)),
        };
        problems.extend(too_large);
        let is_valid = tier_read.is_some() && priority_read.is_some();
        ClusterNetworkPolicy {
            key: NamespacedName::new("", &self.metadata.name),
            // Without a valid tier and priority, its order among other policies is undefined.
            subject: if is_valid { subject } else { NamespacedPods::none() },
            tier: tier_read.unwrap_or(Tier::Baseline),
            priority: priority_read.unwrap_or(1000),
            ingress,
            egress,
        }
    }
}

/// Returns the rules that replace those of a policy that is too large: they allow nothing that its rules might deny. Rules that
/// only allow are not replaced: the other policies decide.
fn deny_all(rules: &[RawRule]) -> Box<[ClusterNetworkPolicyRule]> {
    if rules.iter().all(|rule| rule.action.as_deref() == Some("Accept")) {
        return Box::default();
    }
    let everywhere = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
    Box::new([ClusterNetworkPolicyRule {
        name: None,
        action: ClusterNetworkPolicyAction::Deny,
        peers: Box::new([ClusterNetworkPolicyPeer::Networks(everywhere.into())]),
        ports: None,
    }])
}

impl RawSubject {
    fn convert(self, problems: &mut Vec<Problem>) -> NamespacedPods {
        match (self.namespaces, self.pods) {
            (Some(namespaces), None) => NamespacedPods {
                namespaces: namespaces.convert("spec.subject.namespaces", problems),
                pods: LabelSelector::everything(),
            },
            (None, Some(pods)) => pods.convert("spec.subject.pods", problems),
            (namespaces, _) => {
                let value = if namespaces.is_some() { "both" } else { "neither" };
                problems.push(Problem::new("spec.subject", value, "either namespaces or pods"));
                NamespacedPods::none()
            }
        }
    }
}

impl RawPods {
    fn convert(self, path: &str, problems: &mut Vec<Problem>) -> NamespacedPods {
        let namespaces = self.namespace_selector.unwrap_or_default();
        let namespaces = namespaces.convert(&format!("{path}.namespaceSelector"), problems);
        let pods = match self.pod_selector {
            Some(pods) => pods.convert(&format!("{path}.podSelector"), problems),
            None => {
                problems.push(Problem::new(format!("{path}.podSelector"), "", "a selector, {} for all pods"));
                LabelSelector::nothing()
            }
        };
        NamespacedPods { namespaces, pods }
    }
}

impl RawRule {
    /// Returns the number of its entries ([`policy_size::MAX_POLICY_ENTRIES`]).
    fn entries(&self) -> usize {
        let peer = |peer: &RawPeer| {
            let pods = peer.pods.as_ref();
            let pods =
                pods.map_or(0, |pods| selector_entries(&[&pods.namespace_selector, &pods.pod_selector]));
            let networks =
                [&peer.networks, &peer.domain_names].into_iter().flatten().map(Vec::len).sum::<usize>();
            pods + networks + selector_entries(&[&peer.namespaces, &peer.nodes])
        };
        let peers = self.from.iter().chain(&self.to).map(peer).sum::<usize>();
        WEIGHT + peers + self.protocols.iter().map(RawProtocol::entries).sum::<usize>()
    }

    fn convert(self, path: &str, direction: Peers, problems: &mut Vec<Problem>) -> ClusterNetworkPolicyRule {
        let known_before = problems.len();
        let action = match self.action.as_deref() {
            Some("Accept") => Some(ClusterNetworkPolicyAction::Accept),
            Some("Deny") => Some(ClusterNetworkPolicyAction::Deny),
            Some("Pass") => Some(ClusterNetworkPolicyAction::Pass),
            other => {
                let value = other.unwrap_or_default();
                problems.push(Problem::new(format!("{path}.action"), value, "Accept, Deny or Pass"));
                None
            }
        };
        let (field, peers) = match direction {
            Peers::From => ("from", self.from),
            Peers::To => ("to", self.to),
        };
        let path_of_peers = format!("{path}.{field}");
        if peers.is_empty() {
            problems.push(Problem::new(&path_of_peers, "[]", "at least one peer"));
        }
        let peers: Box<[ClusterNetworkPolicyPeer]> = peers
            .into_iter()
            .enumerate()
            .filter_map(|(i, peer)| peer.convert(&format!("{path_of_peers}[{i}]"), direction, problems))
            .collect();
        let any_port = self.protocols.is_empty();
        let ports: Box<[ClusterNetworkPolicyPort]> = self
            .protocols
            .into_iter()
            .enumerate()
            .filter_map(|(i, protocol)| protocol.convert(&format!("{path}.protocols[{i}]"), problems))
            .collect();
        let rule = ClusterNetworkPolicyRule {
            name: rule_name(self.name, &format!("{path}.name"), problems),
            action: action.unwrap_or(ClusterNetworkPolicyAction::Pass),
            peers: if action.is_some() { peers } else { Box::default() },
            ports: (!any_port).then_some(ports),
        };
        set_consequence(&mut problems[known_before..], rule.consequence_of_a_problem(action));
        rule
    }
}

/// Returns the name of a rule. A name with control characters could forge lines of logs and listings.
fn rule_name(name: Option<String>, field: &str, problems: &mut Vec<Problem>) -> Option<Arc<str>> {
    let name = name.filter(|name| !name.is_empty())?;
    if name.chars().any(char::is_control) {
        let problem = Problem::new(field, name, "a name without control characters");
        problems.push(problem.with_consequence("the rule applies without a name"));
        return None;
    }
    Some(name.into())
}

impl ClusterNetworkPolicyRule {
    /// Returns the consequence of an invalid entry of this rule.
    fn consequence_of_a_problem(&self, action: Option<ClusterNetworkPolicyAction>) -> String {
        let action = match action {
            Some(ClusterNetworkPolicyAction::Accept) => "Accept",
            Some(ClusterNetworkPolicyAction::Deny) => "Deny",
            Some(ClusterNetworkPolicyAction::Pass) => "Pass",
            None => return "this rule has no effect".to_owned(),
        };
        let no_port = self.ports.as_ref().is_some_and(|ports| ports.is_empty());
        match no_port || self.peers.iter().all(ClusterNetworkPolicyPeer::matches_nothing) {
            true => format!("this {action} rule has no effect"),
            false => format!("this entry has no effect; the rest of the {action} rule applies"),
        }
    }
}

impl ClusterNetworkPolicyPeer {
    fn matches_nothing(&self) -> bool {
        match self {
            ClusterNetworkPolicyPeer::Pods(NamespacedPods { namespaces, pods }) => {
                !namespaces.is_valid() || !pods.is_valid()
            }
            ClusterNetworkPolicyPeer::Nodes(nodes) => !nodes.is_valid(),
            ClusterNetworkPolicyPeer::Networks(nets) => nets.is_empty(),
        }
    }
}

impl RawPeer {
    fn convert(
        self,
        path: &str,
        direction: Peers,
        problems: &mut Vec<Problem>,
    ) -> Option<ClusterNetworkPolicyPeer> {
        let expected = match direction {
            Peers::From => "one of namespaces and pods",
            Peers::To => "one of namespaces, pods, nodes and networks",
        };
        let fields = [
            ("namespaces", self.namespaces.is_some()),
            ("pods", self.pods.is_some()),
            ("nodes", self.nodes.is_some()),
            ("networks", self.networks.is_some()),
            ("domainNames", self.domain_names.is_some()),
        ];
        let set: Vec<&str> = fields.into_iter().filter(|(_, set)| *set).map(|(field, _)| field).collect();
        let mut reject = |field: String, value: &str| {
            problems.push(Problem::new(field, value, expected));
            None
        };
        match set[..] {
            [] => return reject(path.to_owned(), "{}"),
            ["domainNames"] => {
                return reject(
                    format!("{path}.domainNames"),
                    &self.domain_names.unwrap_or_default().join(", "),
                );
            }
            [field @ ("nodes" | "networks")] if direction == Peers::From => {
                return reject(format!("{path}.{field}"), field);
            }
            [_] => {}
            _ => return reject(path.to_owned(), &set.join(" and ")),
        }
        if let Some(namespaces) = self.namespaces {
            let namespaces = namespaces.convert(&format!("{path}.namespaces"), problems);
            return Some(ClusterNetworkPolicyPeer::Pods(NamespacedPods {
                namespaces,
                pods: LabelSelector::everything(),
            }));
        }
        if let Some(pods) = self.pods {
            return Some(ClusterNetworkPolicyPeer::Pods(pods.convert(&format!("{path}.pods"), problems)));
        }
        if let Some(nodes) = self.nodes {
            return Some(ClusterNetworkPolicyPeer::Nodes(nodes.convert(&format!("{path}.nodes"), problems)));
        }
        let networks = self.networks.unwrap_or_default();
        if networks.is_empty() {
            problems.push(Problem::new(format!("{path}.networks"), "[]", "at least one address block"));
        }
        let nets = networks.iter().enumerate().filter_map(|(i, text)| {
            // The API server accepts no IPv4-mapped block here (CEL, `isCIDR`).
            let net: Option<IpNet> = parse_cidr(text).filter(|_| !is_ipv4_mapped_cidr(text));
            if net.is_none() {
                let expected = "an address block such as 10.0.0.0/8";
                problems.push(Problem::new(format!("{path}.networks[{i}]"), text, expected));
            }
            net
        });
        Some(ClusterNetworkPolicyPeer::Networks(nets.collect()))
    }
}
