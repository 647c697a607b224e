//! NetworkPolicy (`networking.k8s.io/v1`), as written; who may talk to whom is computed elsewhere.

use std::borrow::Cow;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::{Family, parse_cidr, unmapped_cidr};
use crate::label_selector::{LabelSelector, RawLabelSelector};
use crate::labels::null_is_empty;
use crate::name::{Name, NamespacedName};
use crate::object::Metadata;
use crate::port_name::{self, PORT_NAME};
use crate::problem::{Problem, state_consequence};
use crate::protocol::Protocol;

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicy {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// The pods of its namespace that it isolates.
    pub pod_selector: LabelSelector,
    /// What may come in; `None` where the policy does not concern ingress.
    pub ingress: Option<Box<[NetworkPolicyRule]>>,
    /// What may go out; `None` where the policy does not concern egress.
    pub egress: Option<Box<[NetworkPolicyRule]>>,
}

/// One rule: any of the peers on any of the ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicyRule {
    /// The peers; `None` is every address.
    pub peers: Option<Box<[NetworkPolicyPeer]>>,
    /// The ports; `None` is every port of every protocol.
    pub ports: Option<Box<[NetworkPolicyPort]>>,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkPolicyPeer {
    /// Pods: of the policy's namespace, or of the namespaces selected.
    Pods {
        /// Which pods; `None` is all.
        pods: Option<LabelSelector>,
        /// Which namespaces; `None` is the policy's own.
        namespaces: Option<LabelSelector>,
    },
    /// Addresses.
    Block {
        /// The block.
        cidr: IpNet,
        /// What is left out of it.
        except: Box<[IpNet]>,
    },
    /// Something that could not be understood. It matches nothing.
    Invalid,
}

/// Ports that a rule allows.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicyPort {
    /// The protocol.
    pub protocol: Protocol,
    /// Which of its ports.
    pub number: PortNumber,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum PortNumber {
    /// All of them.
    Any,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The one of this name, looked up in each destination pod.
    Named(Name),
    /// Something that could not be understood. It matches nothing.
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

/// What an ingress and an egress rule call their peers.
const INGRESS_PEERS: &str = "from";
const EGRESS_PEERS: &str = "to";

impl RawNetworkPolicy {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> NetworkPolicy {
        let types = &self.spec.policy_types;
        let is_known = |name: &str| matches!(name, "Ingress" | "Egress");
        for (i, name) in types.iter().enumerate().filter(|(_, name)| !is_known(name)) {
            let problem = Problem::new(format!("spec.policyTypes[{i}]"), name, "Ingress or Egress");
            problems.push(problem.with_consequence("the policy isolates its pods in both directions"));
        }
        // policyTypes left out: ingress always, egress where there is an egress rule (API reference). An unknown type
        // may stand for either direction, and must not open one.
        let has_unknown = types.iter().any(|name| !is_known(name));
        let concerns = |name: &str, default| match types.is_empty() {
            true => default,
            false => has_unknown || types.iter().any(|t| t == name),
        };
        let (ingress, egress) = (concerns("Ingress", true), concerns("Egress", !self.spec.egress.is_empty()));
        let known_before = problems.len();
        let pod_selector = self.spec.pod_selector.convert("spec.podSelector", problems);
        if !pod_selector.is_valid() {
            let consequence = "the policy isolates every pod of its namespace and allows nothing";
            state_consequence(&mut problems[known_before..], consequence);
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
    /// The same policy for all pods of its namespace, without any rule. It stands in for a policy whose pods are
    /// not known: some of them must be isolated, and its rules may allow more than other policies of other pods do.
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
    fn convert(self, path: &str, field: &str, problems: &mut Vec<Problem>) -> NetworkPolicyRule {
        let (peers, strange, strangers) = match field {
            INGRESS_PEERS => (self.from, EGRESS_PEERS, self.to),
            _ => (self.to, INGRESS_PEERS, self.from),
        };
        let known_before = problems.len();
        let mut peers: Vec<NetworkPolicyPeer> = peers
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.convert(&format!("{path}.{field}[{i}]"), problems))
            .collect();
        if !strangers.is_empty() {
            // Without its peers the rule would open everything.
            let expected = "from in an ingress rule, to in an egress rule";
            problems.push(Problem::new(format!("{path}.{strange}"), strange, expected));
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
        state_consequence(&mut problems[known_before..], consequence);
        rule
    }
}

impl NetworkPolicyRule {
    /// Whether none of its peers, or none of its ports, was understood.
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
                // Leaving out an exception would open more than was meant.
                let problem = Problem::new(field, text, expected);
                problems.push(problem.with_consequence(format!("the whole block {cidr} allows nothing")));
                return NetworkPolicyPeer::Invalid;
            };
            let (except, problem) = placed_exception(&cidr, net);
            excepted.extend(except);
            problems.extend(problem.map(|(expected, consequence)| {
                Problem::new(field, text, expected).with_consequence(consequence)
            }));
        }
        NetworkPolicyPeer::Block { cidr, except: excepted.into() }
    }
}

/// An exception as it applies to its block, if it does; and where it is not a part of the block, what was expected
/// and the consequence.
fn placed_exception(cidr: &IpNet, except: IpNet) -> (Option<IpNet>, Option<(String, Cow<'static, str>)>) {
    // As an IPv6 block it excepts no IPv4 address. Go takes it for an IPv4 block here, which opens less.
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

    /// Which ports; else the field that is wrong, its value, and what was expected there.
    fn number(self) -> Result<PortNumber, (&'static str, String, &'static str)> {
        let valid = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
        match (self.port, self.end_port) {
            (None, None) => Ok(PortNumber::Any),
            (None | Some(IntOrString::String(_)), Some(last)) => {
                Err(("endPort", last.to_string(), "endPort only beside a port's number"))
            }
            (Some(IntOrString::String(name)), None) => match port_name::read(&name) {
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
