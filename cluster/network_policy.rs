//! NetworkPolicy (`networking.k8s.io/v1`), as written; who may talk to whom is computed elsewhere.

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::parse_cidr;
use crate::labels::{Selector, null_is_empty};
use crate::name::{Name, NamespacedName};
use crate::object::Metadata;
use crate::problem::Problem;
use crate::protocol::Protocol;

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicy {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// The pods of its namespace that it isolates.
    pub pod_selector: Selector,
    /// What may come in; `None` where the policy does not concern ingress.
    pub ingress: Option<Box<[Rule]>>,
    /// What may go out; `None` where the policy does not concern egress.
    pub egress: Option<Box<[Rule]>>,
}

/// One rule: any of the peers on any of the ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// The peers; `None` is every address.
    pub peers: Option<Box<[Peer]>>,
    /// The ports; `None` is every port of every protocol.
    pub ports: Option<Box<[Port]>>,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// Pods: of the policy's namespace, or of the namespaces selected.
    Pods {
        /// Which pods; `None` is all.
        pods: Option<Selector>,
        /// Which namespaces; `None` is the policy's own.
        namespaces: Option<Selector>,
    },
    /// Addresses.
    Block {
        /// The block.
        cidr: IpNet,
        /// What is left out of it.
        except: Box<[IpNet]>,
    },
    /// Something that could not be understood. It matches nothing.
    Nothing,
}

/// Ports that a rule allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
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
    Nothing,
}

#[derive(Deserialize)]
pub(crate) struct Wire {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    pod_selector: Option<Selector>,
    #[serde(default, deserialize_with = "null_is_empty")]
    policy_types: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ingress: Vec<WireRule>,
    #[serde(default, deserialize_with = "null_is_empty")]
    egress: Vec<WireRule>,
}

#[derive(Deserialize)]
struct WireRule {
    #[serde(default, alias = "to", alias = "from", deserialize_with = "null_is_empty")]
    peers: Vec<WirePeer>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<WirePort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePeer {
    pod_selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    ip_block: Option<WireBlock>,
}

#[derive(Deserialize)]
struct WireBlock {
    cidr: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort {
    protocol: Option<String>,
    port: Option<IntOrString>,
    end_port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrString {
    Int(i64),
    String(String),
}

impl Wire {
    pub(crate) fn slim(self, problems: &mut Vec<Problem>) -> NetworkPolicy {
        let types = &self.spec.policy_types;
        // policyTypes left out: ingress always, egress where there is an egress rule (API reference).
        let concerns =
            |name: &str, default| if types.is_empty() { default } else { types.iter().any(|t| t == name) };
        let (ingress, egress) = (concerns("Ingress", true), concerns("Egress", !self.spec.egress.is_empty()));
        let mut rules = |direction: &str, rules: Vec<WireRule>| -> Box<[Rule]> {
            let slim = |(i, rule): (usize, WireRule)| rule.slim(&format!("spec.{direction}[{i}]"), problems);
            rules.into_iter().enumerate().map(slim).collect()
        };
        let ingress = ingress.then(|| rules("ingress", self.spec.ingress));
        let egress = egress.then(|| rules("egress", self.spec.egress));
        NetworkPolicy {
            key: self.metadata.key(),
            pod_selector: self.spec.pod_selector.unwrap_or_default(),
            ingress,
            egress,
        }
    }
}

impl WireRule {
    fn slim(self, path: &str, problems: &mut Vec<Problem>) -> Rule {
        let peers: Box<[Peer]> = self
            .peers
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.slim(&format!("{path}.peers[{i}]"), problems))
            .collect();
        let ports: Box<[Port]> = self
            .ports
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.slim(&format!("{path}.ports[{i}]"), problems))
            .collect();
        Rule { peers: (!peers.is_empty()).then_some(peers), ports: (!ports.is_empty()).then_some(ports) }
    }
}

impl WirePeer {
    fn slim(self, path: &str, problems: &mut Vec<Problem>) -> Peer {
        let Some(block) = self.ip_block else {
            return Peer::Pods { pods: self.pod_selector, namespaces: self.namespace_selector };
        };
        if self.pod_selector.is_some() || self.namespace_selector.is_some() {
            problems.push(Problem::new(path, "ipBlock with a selector", "either ipBlock or selectors"));
            return Peer::Nothing;
        }
        let Some(cidr) = parse_cidr(&block.cidr) else {
            problems.push(Problem::new(format!("{path}.ipBlock.cidr"), block.cidr, "an address block"));
            return Peer::Nothing;
        };
        let mut excepted = Vec::with_capacity(block.except.len());
        for (i, text) in block.except.iter().enumerate() {
            match parse_cidr(text) {
                Some(net) => excepted.push(net),
                // Leaving out an exception would open more than was meant.
                None => {
                    problems.push(Problem::new(
                        format!("{path}.ipBlock.except[{i}]"),
                        text,
                        "an address block",
                    ));
                    return Peer::Nothing;
                }
            }
        }
        Peer::Block { cidr, except: excepted.into() }
    }
}

impl WirePort {
    fn slim(self, path: &str, problems: &mut Vec<Problem>) -> Port {
        let protocol = Protocol::read(self.protocol.as_deref(), format!("{path}.protocol"), problems);
        let Some(protocol) = protocol else {
            return Port { protocol: Protocol::Tcp, number: PortNumber::Nothing };
        };
        let valid = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
        let number = match (self.port, self.end_port) {
            (None, None) => Some(PortNumber::Any),
            (Some(IntOrString::String(name)), None) if !name.is_empty() => {
                Some(PortNumber::Named(Name::new(&name)))
            }
            (Some(IntOrString::Int(first)), last) => {
                let range =
                    valid(first).zip(valid(last.unwrap_or(first))).filter(|(first, last)| first <= last);
                range.map(|(first, last)| PortNumber::Range(first, last))
            }
            _ => None,
        };
        let number = number.unwrap_or_else(|| {
            let expected = "a port from 1 to 65535 or a name; endPort only with a number, and not below it";
            problems.push(Problem::new(format!("{path}.port"), "this port", expected));
            PortNumber::Nothing
        });
        Port { protocol, number }
    }
}
