//! NetworkPolicies (`networking.k8s.io/v1`), as specified; the policy crate evaluates them.

use std::borrow::Cow;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::{Family, parse_cidr, unmapped_cidr};
use crate::label_selector::{LabelSelector, RawLabelSelector};
use crate::labels::null_is_empty;
use crate::metadata::Metadata;
use crate::name::{Name, NamespacedName};
use crate::policy_size::{self, WEIGHT, selector_entries};
use crate::port_name::{self, PORT_NAME};
use crate::problem::{Problem, set_consequence};
use crate::protocol::Protocol;

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicy {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// Selects the pods of its namespace that it isolates.
    pub pod_selector: LabelSelector,
    /// The ingress rules; `None` if the policy does not apply to ingress.
    pub ingress: Option<Box<[NetworkPolicyRule]>>,
    /// The egress rules; `None` if the policy does not apply to egress.
    pub egress: Option<Box<[NetworkPolicyRule]>>,
}

/// A rule: allows any of the peers on any of the ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicyRule {
    /// The peers; `None` for every address.
    pub peers: Option<Box<[NetworkPolicyPeer]>>,
    /// The ports; `None` for every port of every protocol.
    pub ports: Option<Box<[NetworkPolicyPort]>>,
}

/// A peer of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkPolicyPeer {
    /// Pods of the policy's namespace, or of the selected namespaces.
    Pods {
        /// The pod selector; `None` for all pods.
        pods: Option<LabelSelector>,
        /// The namespace selector; `None` for the policy's own namespace.
        namespaces: Option<LabelSelector>,
    },
    /// Addresses.
    Block {
        /// The block.
        cidr: IpNet,
        /// The blocks that are excluded from it.
        except: Box<[IpNet]>,
    },
    /// An invalid value, which matches nothing.
    Invalid,
}

/// A port, or a range of ports, that a rule allows.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicyPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port numbers.
    pub number: PortNumber,
}

/// The port numbers that a rule allows.
#[derive(Clone, Debug, PartialEq)]
pub enum PortNumber {
    /// All ports.
    Any,
    /// A range, including both ends.
    Range(u16, u16),
    /// A named port, looked up in each destination pod.
    Named(Name),
    /// An invalid value, which matches nothing.
    Invalid,
}

#[derive(Deserialize)]
pub(crate) struct RawNetworkPolicy {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "null_is_empty")]
    pod_selector: RawLabelSelector,
    #[serde(default, deserialize_with = "null_is_empty")]
    policy_types: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ingress: Vec<RawRule>,
    #[serde(default, deserialize_with = "null_is_empty")]
    egress: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    #[serde(default, deserialize_with = "null_is_empty")]
    from: Vec<RawPeer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    to: Vec<RawPeer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPeer {
    pod_selector: Option<RawLabelSelector>,
    namespace_selector: Option<RawLabelSelector>,
    ip_block: Option<RawBlock>,
}

#[derive(Deserialize)]
struct RawBlock {
    cidr: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    protocol: Option<String>,
    port: Option<IntOrString>,
    end_port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a name")]
enum IntOrString {
    Int(i64),
    String(String),
}

/// The fields of the peers of ingress and egress rules.
const INGRESS_PEERS: &str = "from";
const EGRESS_PEERS: &str = "to";

impl RawNetworkPolicy {
    pub(crate) fn convert(mut self, problems: &mut Vec<Problem>) -> NetworkPolicy {
        let types = &self.spec.policy_types;
        let is_known = |name: &str| matches!(name, "Ingress" | "Egress");
        for (i, name) in types.iter().enumerate().filter(|(_, name)| !is_known(name)) {
            let problem = Problem::new(format!("spec.policyTypes[{i}]"), name, "Ingress or Egress");
            problems.push(problem.with_consequence("the policy isolates its pods in both directions"));
        }
        // Without policyTypes: ingress always, egress if there is an egress rule (API reference). An unknown type may be
        // meant as either direction, and must not allow traffic.
        let has_unknown = types.iter().any(|name| !is_known(name));
        let applies_to = |name: &str, default| match types.is_empty() {
            true => default,
            false => has_unknown || types.iter().any(|t| t == name),
        };
        let (ingress, egress) =
            (applies_to("Ingress", true), applies_to("Egress", !self.spec.egress.is_empty()));
        let entries: usize = self.spec.ingress.iter().chain(&self.spec.egress).map(RawRule::entries).sum();
        if let Some(problem) =
            policy_size::problem(entries, "the policy isolates its pods and allows nothing")
        {
            problems.push(problem);
            (self.spec.ingress, self.spec.egress) = (Vec::new(), Vec::new());
        }
        let known_before = problems.len();
        let pod_selector = self.spec.pod_selector.convert("spec.podSelector", problems);
        if !pod_selector.is_valid() {
            let consequence = "the policy isolates every pod of its namespace and allows nothing";
            set_consequence(&mut problems[known_before..], consequence);
        }
        let mut rules = |direction: &str, peers, rules: Vec<RawRule>| -> Box<[NetworkPolicyRule]> {
            let convert = |(i, rule): (usize, RawRule)| {
                rule.convert(&format!("spec.{direction}[{i}]"), peers, problems)
            };
            rules.into_iter().enumerate().map(convert).collect()
        };
        let ingress = ingress.then(|| rules("ingress", INGRESS_PEERS, self.spec.ingress));
        let egress = egress.then(|| rules("egress", EGRESS_PEERS, self.spec.egress));
        let policy = NetworkPolicy { key: self.metadata.key(), pod_selector, ingress, egress };
        if policy.pod_selector.is_valid() { policy } else { policy.isolating_all() }
    }
}

impl NetworkPolicy {
    /// Returns the policy for all pods of its namespace, without rules. Replaces a policy with an invalid pod selector: some pods
    /// must be isolated, and its rules might allow traffic for pods that the policy was not written for.
    fn isolating_all(self) -> Self {
        NetworkPolicy {
            pod_selector: LabelSelector::everything(),
            ingress: self.ingress.map(|_| Box::default()),
            egress: self.egress.map(|_| Box::default()),
            ..self
        }
    }
}

impl RawRule {
    /// Returns the number of its entries ([`policy_size::MAX_POLICY_ENTRIES`]).
    fn entries(&self) -> usize {
        let peer = |peer: &RawPeer| {
            let block = peer.ip_block.as_ref().map_or(0, |block| 1 + block.except.len());
            block + selector_entries(&[&peer.pod_selector, &peer.namespace_selector])
        };
        let port = |port: &RawPort| match &port.port {
            Some(IntOrString::String(_)) => WEIGHT,
            _ => 1,
        };
        let peers = self.from.iter().chain(&self.to).map(peer).sum::<usize>();
        WEIGHT + peers + self.ports.iter().map(port).sum::<usize>()
    }

    fn convert(self, path: &str, field: &str, problems: &mut Vec<Problem>) -> NetworkPolicyRule {
        let (peers, wrong_field, wrong_peers) = match field {
            INGRESS_PEERS => (self.from, EGRESS_PEERS, self.to),
            _ => (self.to, INGRESS_PEERS, self.from),
        };
        let known_before = problems.len();
        let mut peers: Vec<NetworkPolicyPeer> = peers
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.convert(&format!("{path}.{field}[{i}]"), problems))
            .collect();
        if !wrong_peers.is_empty() {
            // Without peers, the rule would allow everything.
            let expected = "from in an ingress rule, to in an egress rule";
            problems.push(Problem::new(format!("{path}.{wrong_field}"), wrong_field, expected));
            peers.push(NetworkPolicyPeer::Invalid);
        }
        let ports: Box<[NetworkPolicyPort]> = self
            .ports
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.convert(&format!("{path}.ports[{i}]"), problems))
            .collect();
        let rule = NetworkPolicyRule {
            peers: (!peers.is_empty()).then(|| peers.into()),
            ports: (!ports.is_empty()).then_some(ports),
        };
        let consequence = match rule.matches_nothing() {
            true => "this rule allows nothing",
            false => "this entry allows nothing; the rest of the rule applies",
        };
        set_consequence(&mut problems[known_before..], consequence);
        rule
    }
}

impl NetworkPolicyRule {
    /// Returns true if none of its peers, or none of its ports, is valid.
    fn matches_nothing(&self) -> bool {
        let no_peer = |peers: &[NetworkPolicyPeer]| peers.iter().all(NetworkPolicyPeer::matches_nothing);
        let no_port =
            |ports: &[NetworkPolicyPort]| ports.iter().all(|port| port.number == PortNumber::Invalid);
        self.peers.as_deref().is_some_and(no_peer) || self.ports.as_deref().is_some_and(no_port)
    }
}

impl NetworkPolicyPeer {
    fn matches_nothing(&self) -> bool {
        let unknown = |selector: &Option<LabelSelector>| selector.as_ref().is_some_and(|s| !s.is_valid());
        match self {
            NetworkPolicyPeer::Pods { pods, namespaces } => unknown(pods) || unknown(namespaces),
            NetworkPolicyPeer::Block { .. } => false,
            NetworkPolicyPeer::Invalid => true,
        }
    }
}

impl RawPeer {
    fn convert(self, path: &str, problems: &mut Vec<Problem>) -> NetworkPolicyPeer {
        let has_selector = self.pod_selector.is_some() || self.namespace_selector.is_some();
        match self.ip_block {
            Some(_) if has_selector => {
                problems.push(Problem::new(path, "ipBlock with a selector", "either ipBlock or selectors"));
                NetworkPolicyPeer::Invalid
            }
            Some(block) => block.convert(&format!("{path}.ipBlock"), problems),
            None if has_selector => {
                let mut convert = |selector: Option<RawLabelSelector>, field: &str| {
                    selector.map(|selector| selector.convert(&format!("{path}.{field}"), problems))
                };
                NetworkPolicyPeer::Pods {
                    pods: convert(self.pod_selector, "podSelector"),
                    namespaces: convert(self.namespace_selector, "namespaceSelector"),
                }
            }
            None => {
                problems.push(Problem::new(path, "{}", "podSelector, namespaceSelector or ipBlock"));
                NetworkPolicyPeer::Invalid
            }
        }
    }
}

impl RawBlock {
    fn convert(self, path: &str, problems: &mut Vec<Problem>) -> NetworkPolicyPeer {
        let expected = "an address block such as 10.0.0.0/8";
        let Some(cidr) = parse_cidr(&self.cidr) else {
            problems.push(Problem::new(format!("{path}.cidr"), self.cidr, expected));
            return NetworkPolicyPeer::Invalid;
        };
        let mut excepted = Vec::with_capacity(self.except.len());
        for (i, text) in self.except.iter().enumerate() {
            let field = format!("{path}.except[{i}]");
            let Some(net) = parse_cidr(text) else {
                // Without the exception, the rule would allow more than intended.
                let problem = Problem::new(field, text, expected);
                problems.push(problem.with_consequence(format!("the whole block {cidr} allows nothing")));
                return NetworkPolicyPeer::Invalid;
            };
            let (except, problem) = check_exception(&cidr, net);
            excepted.extend(except);
            problems.extend(problem.map(|(expected, consequence)| {
                Problem::new(field, text, expected).with_consequence(consequence)
            }));
        }
        NetworkPolicyPeer::Block { cidr, except: excepted.into() }
    }
}

/// Returns an exception as it applies to its block; if it is not part of the block, also the expectation and the consequence.
fn check_exception(cidr: &IpNet, except: IpNet) -> (Option<IpNet>, Option<(String, Cow<'static, str>)>) {
    // As an IPv6 block it would exclude no IPv4 address. Go parses it as an IPv4 block here, which allows less.
    let unmapped = unmapped_cidr(&except).filter(|_| Family::from_net(cidr) == Family::V4);
    let except = unmapped.unwrap_or(except);
    let expected = || format!("a part of the block {cidr}");
    if cidr.contains(&except) {
        (Some(except), None)
    } else if except.contains(cidr) {
        (Some(except), Some((expected(), format!("nothing of the block {cidr} is allowed").into())))
    } else {
        (None, Some((expected(), "this exception has no effect; the rest of the block is allowed".into())))
    }
}

impl RawPort {
    fn convert(self, path: &str, problems: &mut Vec<Problem>) -> NetworkPolicyPort {
        let protocol = Protocol::parse(self.protocol.as_deref(), format!("{path}.protocol"), problems);
        let Some(protocol) = protocol else {
            return NetworkPolicyPort { protocol: Protocol::Tcp, number: PortNumber::Invalid };
        };
        let number = self.number().unwrap_or_else(|(field, value, expected)| {
            problems.push(Problem::new(format!("{path}.{field}"), value, expected));
            PortNumber::Invalid
        });
        NetworkPolicyPort { protocol, number }
    }

    /// Returns the port numbers, or the invalid field, its value and the expected value.
    fn number(self) -> Result<PortNumber, (&'static str, String, &'static str)> {
        let valid = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
        match (self.port, self.end_port) {
            (None, None) => Ok(PortNumber::Any),
            (None | Some(IntOrString::String(_)), Some(last)) => {
                Err(("endPort", last.to_string(), "endPort only beside a port's number"))
            }
            (Some(IntOrString::String(name)), None) => match port_name::parse(&name) {
                Some(name) => Ok(PortNumber::Named(name)),
                None => Err(("port", name, PORT_NAME)),
            },
            (Some(IntOrString::Int(number)), last) => {
                let Some(first) = valid(number) else {
                    return Err(("port", number.to_string(), "a number from 1 to 65535, or a name"));
                };
                let last = last.unwrap_or(number);
                match valid(last).filter(|last| first <= *last) {
                    Some(last) => Ok(PortNumber::Range(first, last)),
                    None => Err(("endPort", last.to_string(), "a number from port to 65535")),
                }
            }
        }
    }
}
