//! Suggested policy changes that would allow a denied connection.

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use portcullis_cluster::labels::{Labels, is_per_instance};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Name, NamespacedName, Protocol};
use portcullis_policy::Direction;
use portcullis_policy::compile::PolicyTier;
use portcullis_policy::evaluation::{Decision, DecisionReason, RuleRef};
use sha2::{Digest, Sha256};

use super::client::{Client, ClientKind};
use super::explanation::Advice;
use super::policy_snippet::{PolicySnippet, SnippetPeer};
use crate::commands::cluster_lookup::{ClusterLookup, listed};

/// A connection that policies deny at one end.
pub(super) struct Denied<'a> {
    pub(super) cluster: &'a ClusterLookup<'a>,
    pub(super) direction: Direction,
    /// The pod to which the policies apply.
    pub(super) subject: &'a Pod,
    /// The address at the other end, as policies see it.
    pub(super) peer: IpAddr,
    /// The port that policies see.
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The port to which the client connects.
    pub(super) client_port: u16,
    /// The client connects to a host port, not to a Service.
    pub(super) is_host_port: bool,
    /// The client, if its connection is masqueraded.
    pub(super) masqueraded: Option<&'a Client>,
}

/// Returns a change that would allow the connection.
pub(super) fn advise(denied: &Denied<'_>, decision: &Decision) -> Advice {
    let mut instructions = Vec::new();
    let peer_pod = denied.cluster.pod_at(denied.peer);
    let peer = match peer_pod {
        Some(pod) => {
            SnippetPeer::Pods { namespace: &pod.key.namespace, labels: workload_labels(&pod.labels) }
        }
        None => SnippetPeer::Block(denied.peer),
    };
    let mut snippet = PolicySnippet {
        direction: denied.direction,
        namespace: &denied.subject.key.namespace,
        name: denied.name(peer_pod),
        subject: workload_labels(&denied.subject.labels),
        peer,
        port: denied.port,
        protocol: denied.protocol,
    };
    let (mut manifest, mut rule) = (None, None);
    match &decision.reason {
        DecisionReason::Rule(found) => rule = denied.before_rule(found, &snippet, &mut instructions),
        _ => {
            let subject = &denied.subject.key;
            let end = if denied.direction == Direction::Ingress { "ingress to" } else { "egress from" };
            instructions
                .push(format!("to allow {end} {subject}, apply this in addition to the existing policies:"));
            snippet.name = format!("{}-{}", snippet.name, content_hash(&snippet.network_policy()));
            manifest = Some(snippet.network_policy());
            denied.warn_of_newly_isolated_pods(&snippet.subject, &mut instructions);
        }
    }
    denied.add_peer_notes(peer_pod, &snippet.peer, &mut instructions);
    Advice { direction: denied.direction.as_str(), instructions, manifest, rule }
}

/// Returns the labels that a pod shares with its replicas.
fn workload_labels(labels: &Labels) -> Vec<(&str, &str)> {
    labels.iter().filter(|(key, _)| !is_per_instance(key)).collect()
}

/// Returns a short hash of a policy for its name: different policies never share a name, so applying one does not replace
/// the other.
fn content_hash(manifest: &str) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(manifest.as_bytes())[..3]).to_lowercase()
}

impl Denied<'_> {
    /// Returns a name for the policy.
    fn name(&self, peer: Option<&Pod>) -> String {
        let peer = peer.map_or_else(|| self.peer.to_string(), workload_name);
        let subject = workload_name(self.subject);
        let ends = match self.direction {
            Direction::Ingress => format!("{peer}-to-{subject}"),
            Direction::Egress => format!("{subject}-to-{peer}"),
        };
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let ends: String = ends.chars().map(allowed).take(200).collect();
        // The names of policies for other directions and ports must differ.
        format!("allow-{ends}-{}-{}-{}", self.port, self.protocol, self.direction)
    }

    /// Returns a rule to insert before the denying rule of a ClusterNetworkPolicy.
    fn before_rule(
        &self,
        rule: &RuleRef,
        snippet: &PolicySnippet,
        instructions: &mut Vec<String>,
    ) -> Option<String> {
        let (policy, place) = (&rule.rules.policy, format!("spec.{}[{}]", self.direction, rule.index));
        instructions.push(match rule.tier {
            PolicyTier::Admin => {
                format!("{policy} denies it in tier Admin, which no NetworkPolicy can override")
            }
            _ => format!(
                "{policy} denies it in tier Baseline, which applies as long as no NetworkPolicy selects {}",
                self.subject.key
            ),
        });
        let inserted = snippet.cluster_policy_rule();
        instructions.push(match inserted {
            Some(_) => format!("change {place}, or insert this rule before it:"),
            None => format!(
                "change {place}; an ingress rule of a ClusterNetworkPolicy cannot match {}, which is not a pod's address",
                self.peer
            ),
        });
        inserted
    }

    /// Warns of pods that no policy isolates yet and that the new policy would isolate.
    fn warn_of_newly_isolated_pods(&self, selector: &[(&str, &str)], instructions: &mut Vec<String>) {
        let selected = |pod: &Pod| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        let open: Vec<&NamespacedName> = self
            .cluster
            .compiled()
            .pods()
            .filter(|pod| pod.key.namespace == self.subject.key.namespace)
            .filter(|pod| pod.profile(self.direction).is_none_or(|profile| profile.network.is_empty()))
            .filter(|pod| self.cluster.index.pod(&pod.key).is_some_and(selected))
            .map(|pod| &pod.key)
            .collect();
        if !open.is_empty() {
            let names: Vec<String> = open.iter().map(ToString::to_string).collect();
            let names = listed(names.iter().map(String::as_str));
            instructions.push(format!("warning: it also isolates {names}, which no policy isolates now"));
        }
    }

    /// Returns true if the peer may be an address of the pod's node that no object lists: a secondary, virtual or link-local
    /// address.
    fn may_be_node(&self, node: &Name) -> bool {
        let is_private = match self.peer {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        let in_pods = |node: &portcullis_cluster::node::Node| {
            node.pod_cidrs.iter().any(|cidr| cidr.contains(&self.peer))
        };
        let known = self.cluster.node_at(self.peer).is_some_and(|at| at != *node);
        is_private && !known && !self.cluster.index.nodes().any(in_pods)
    }

    /// Adds notes about the peer of the suggested rule.
    fn add_peer_notes(&self, peer_pod: Option<&Pod>, peer: &SnippetPeer<'_>, instructions: &mut Vec<String>) {
        if let (Some(pod), SnippetPeer::Pods { labels, .. }) = (peer_pod, peer)
            && labels.is_empty()
        {
            instructions.push(format!(
                "{} has no label that its replicas share, so this selects all pods of namespace {}; add a label to it \
                 for a narrower selector",
                pod.key, pod.key.namespace
            ));
        }
        if let Some(client) = self.masqueraded {
            let kept = match client.kind {
                ClientKind::Outside => "externalTrafficPolicy: Local would preserve the client's address",
                _ => "the ClusterIP would preserve the client's address",
            };
            instructions.push(format!(
                "policies there see the node's address {}, not that of {}; {kept}",
                self.peer,
                client.name()
            ));
        }
        if let (Direction::Egress, None, Some(node)) = (self.direction, peer_pod, &self.subject.node)
            && self.may_be_node(node)
        {
            instructions.push(format!(
                "if {} is an address of node {node} that its Node object does not list, the connection is allowed \
                 without this: a pod can always reach its node",
                self.peer
            ));
        }
        if self.port != self.client_port {
            let of = if self.is_host_port { "host port" } else { "Service's" };
            instructions.push(format!(
                "policies see the pod's port {}, not the {of} {}",
                self.port, self.client_port
            ));
        }
        if Family::from_address(self.peer) == Family::V6 && matches!(peer, SnippetPeer::Block(_)) {
            instructions.push("this allows IPv6 only; IPv4 needs a separate ipBlock".to_owned());
        }
    }
}

/// Returns the name of a pod's application from its labels, or the pod's name.
fn workload_name(pod: &Pod) -> String {
    let app = ["app.kubernetes.io/name", "app", "k8s-app"].into_iter().find_map(|key| pod.labels.get(key));
    app.map_or_else(|| pod.key.name.to_string(), str::to_owned)
}
