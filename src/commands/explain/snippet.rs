//! Rules as YAML, to be applied or inserted.

use std::net::IpAddr;

use portcullis_cluster::namespace::NAMESPACE_NAME_LABEL;
use portcullis_cluster::{Family, Name, Protocol};
use portcullis_policy::Direction;

/// A rule that lets one sort of connections pass.
pub(super) struct Snippet {
    pub(super) direction: Direction,
    pub(super) namespace: Name,
    pub(super) name: String,
    /// Labels of the pods that it is about.
    pub(super) subject: Vec<(&'static str, &'static str)>,
    pub(super) peer: Peer,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// Who is at the other end.
pub(super) enum Peer {
    /// Pods of a namespace with these labels.
    Pods { namespace: Name, labels: Vec<(&'static str, &'static str)> },
    /// One address.
    Block(IpAddr),
}

impl Snippet {
    /// A NetworkPolicy with this rule alone.
    pub(super) fn network_policy(&self) -> String {
        let (kind, peers) = self.fields();
        let peer = match &self.peer {
            Peer::Pods { namespace, labels } => {
                let pods = match labels.is_empty() {
                    true => String::new(),
                    false => format!("\n      podSelector: {}", selector(labels)),
                };
                format!("namespaceSelector: {}{pods}", by_name(*namespace))
            }
            Peer::Block(address) => format!("ipBlock: {{cidr: {}}}", quoted(&block(*address))),
        };
        format!(
            "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {}
  namespace: {}
spec:
  podSelector: {}
  policyTypes: [{kind}]
  {}:
  - {peers}:
    - {peer}
    ports:
    - {{protocol: {}, port: {}}}
",
            quoted(&self.name),
            quoted(self.namespace.as_str()),
            selector(&self.subject),
            self.direction,
            self.protocol.as_str().to_uppercase(),
            self.port,
        )
    }

    /// A rule for a ClusterNetworkPolicy; `None` where none can name the peer.
    pub(super) fn cluster_policy_rule(&self) -> Option<String> {
        let (_, peers) = self.fields();
        let peer = match (&self.peer, self.direction) {
            (Peer::Pods { namespace, labels }, _) if labels.is_empty() => {
                format!("namespaces: {}", by_name(*namespace))
            }
            (Peer::Pods { namespace, labels }, _) => format!(
                "pods:\n      namespaceSelector: {}\n      podSelector: {}",
                by_name(*namespace),
                selector(labels)
            ),
            (Peer::Block(address), Direction::Egress) => format!("networks: [{}]", quoted(&block(*address))),
            (Peer::Block(_), Direction::Ingress) => return None,
        };
        Some(format!(
            "- name: {}
  action: Accept
  {peers}:
  - {peer}
  protocols:
  - {}: {{destinationPort: {{number: {}}}}}
",
            quoted(&self.name),
            self.protocol,
            self.port
        ))
    }

    /// The policy's type, and the field of its peers.
    fn fields(&self) -> (&'static str, &'static str) {
        match self.direction {
            Direction::Ingress => ("Ingress", "from"),
            Direction::Egress => ("Egress", "to"),
        }
    }
}

fn by_name(namespace: Name) -> String {
    selector(&[(NAMESPACE_NAME_LABEL, namespace.as_str())])
}

fn selector(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return "{}".to_owned();
    }
    let labels: Vec<String> =
        labels.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    format!("{{matchLabels: {{{}}}}}", labels.join(", "))
}

fn block(address: IpAddr) -> String {
    format!("{address}/{}", Family::from_address(address).bits())
}

/// A text as YAML, in quotes where it would be taken for something else: a number, a truth value, null.
fn quoted(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(inner)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_misread_is_quoted() {
        for (text, expected) in [
            ("web", "web"),
            ("kubernetes.io/metadata.name", "kubernetes.io/metadata.name"),
            ("y", "\"y\""),
            ("True", "\"True\""),
            ("1.4", "\"1.4\""),
            ("", "\"\""),
            ("10.0.0.1/32", "\"10.0.0.1/32\""),
            ("a: b", "\"a: b\""),
        ] {
            assert_eq!(quoted(text), expected, "{text}");
        }
    }
}
