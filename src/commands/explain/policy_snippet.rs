//! Suggested policies and rules as YAML.

use std::net::IpAddr;

use portcullis_cluster::namespace::NAMESPACE_NAME_LABEL;
use portcullis_cluster::{Family, Name, Protocol};
use portcullis_policy::Direction;

/// A rule that allows one kind of connection.
pub(super) struct PolicySnippet<'a> {
    pub(super) direction: Direction,
    pub(super) namespace: &'a Name,
    pub(super) name: String,
    /// Labels of the pods that it selects.
    pub(super) subject: Vec<(&'a str, &'a str)>,
    pub(super) peer: SnippetPeer<'a>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// The peer of a suggested rule.
pub(super) enum SnippetPeer<'a> {
    /// Pods of a namespace with these labels.
    Pods { namespace: &'a Name, labels: Vec<(&'a str, &'a str)> },
    /// One address.
    Block(IpAddr),
}

impl PolicySnippet<'_> {
    /// Returns a NetworkPolicy with this rule only.
    pub(super) fn network_policy(&self) -> String {
        let (kind, peers) = self.fields();
        let peer = match &self.peer {
            SnippetPeer::Pods { namespace, labels } => {
                let pods = match labels.is_empty() {
                    true => String::new(),
                    false => format!("\n      podSelector: {}", selector(labels)),
                };
                format!("namespaceSelector: {}{pods}", namespace_selector(namespace))
            }
            SnippetPeer::Block(address) => format!("ipBlock: {{cidr: {}}}", quoted(&block(*address))),
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

    /// Returns a rule for a ClusterNetworkPolicy; `None` where such a rule cannot match the peer.
    pub(super) fn cluster_policy_rule(&self) -> Option<String> {
        let (_, peers) = self.fields();
        let peer = match (&self.peer, self.direction) {
            (SnippetPeer::Pods { namespace, labels }, _) if labels.is_empty() => {
                format!("namespaces: {}", namespace_selector(namespace))
            }
            (SnippetPeer::Pods { namespace, labels }, _) => format!(
                "pods:\n      namespaceSelector: {}\n      podSelector: {}",
                namespace_selector(namespace),
                selector(labels)
            ),
            (SnippetPeer::Block(address), Direction::Egress) => {
                format!("networks: [{}]", quoted(&block(*address)))
            }
            (SnippetPeer::Block(_), Direction::Ingress) => return None,
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

    /// Returns the policy type, and the field with its peers.
    fn fields(&self) -> (&'static str, &'static str) {
        match self.direction {
            Direction::Ingress => ("Ingress", "from"),
            Direction::Egress => ("Egress", "to"),
        }
    }
}

fn namespace_selector(namespace: &Name) -> String {
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

/// Returns a YAML scalar, quoted where the plain text would not be parsed as a string.
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
    fn text_that_yaml_would_not_parse_as_a_string_is_quoted() {
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
