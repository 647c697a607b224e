//! What to change so that a connection may pass.

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use portcullis_cluster::labels::{Labels, is_per_instance};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Name, NamespacedName, Protocol};
use portcullis_policy::Direction;
use portcullis_policy::compile::PolicyTier;
use portcullis_policy::evaluation::{Decision, DecisionReason, RuleRef};
use sha2::{Digest, Sha256};

use super::answer::Advice;
use super::client::{Client, ClientKind};
use super::snippet::{Peer, Snippet};
use crate::commands::world::{World, listed};

/// A connection that one end does not let pass.
pub(super) struct Denied<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) direction: Direction,
    /// The pod that is judged.
    pub(super) subject: &'a Pod,
    /// The address at the other end, as policies see it.
    pub(super) peer: IpAddr,
    /// The port that policies see.
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The port that the client asked for.
    pub(super) asked_port: u16,
    /// The client, where its address was replaced by that of a node.
    pub(super) masqueraded: Option<&'a Client>,
}

/// What would let it pass.
pub(super) fn advise(denied: &Denied<'_>, decision: &Decision) -> Advice {
    let mut words = Vec::new();
    let peer_pod = denied.world.pod_at(denied.peer);
    let peer = match peer_pod {
        Some(pod) => Peer::Pods { namespace: pod.key.namespace, labels: lasting(&pod.labels) },
        None => Peer::Block(denied.peer),
    };
    let mut snippet = Snippet {
        direction: denied.direction,
        namespace: denied.subject.key.namespace,
        name: denied.name(peer_pod),
        subject: lasting(&denied.subject.labels),
        peer,
        port: denied.port,
        protocol: denied.protocol,
    };
    let (mut manifest, mut rule) = (None, None);
    match &decision.reason {
        DecisionReason::Rule(found) => rule = denied.before_rule(found, &snippet, &mut words),
        _ => {
            let subject = &denied.subject.key;
            let way = if denied.direction == Direction::Ingress { "let it in to" } else { "let it out of" };
            words.push(format!("to {way} {subject}, apply this beside the policies there are:"));
            snippet.name = format!("{}-{}", snippet.name, content_hash(&snippet.network_policy()));
            manifest = Some(snippet.network_policy());
            denied.warn_of_others(&snippet.subject, &mut words);
        }
    }
    denied.warn_of_peers(peer_pod, &snippet.peer, &mut words);
    Advice { direction: denied.direction.as_str(), words, manifest, rule }
}

/// A pod's labels that select its replicas, too.
fn lasting(labels: &Labels) -> Vec<(&'static str, &'static str)> {
    labels.iter().filter(|(key, _)| !is_per_instance(key)).collect()
}

/// A short hash of a policy's content for its name: two policies that differ never share a name, so that applying one
/// does not replace the other.
fn content_hash(manifest: &str) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(manifest.as_bytes())[..3]).to_lowercase()
}

impl Denied<'_> {
    /// A name for the policy.
    fn name(&self, peer: Option<&Pod>) -> String {
        let peer = peer.map_or_else(|| self.peer.to_string(), calling_name);
        let subject = calling_name(self.subject);
        let ends = match self.direction {
            Direction::Ingress => format!("{peer}-to-{subject}"),
            Direction::Egress => format!("{subject}-to-{peer}"),
        };
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let ends: String = ends.chars().map(allowed).take(200).collect();
        // Neither the other direction's nor another port's policy may have the same name.
        format!("allow-{ends}-{}-{}-{}", self.port, self.protocol, self.direction)
    }

    /// Which rule of a ClusterNetworkPolicy would come first.
    fn before_rule(&self, rule: &RuleRef, snippet: &Snippet, words: &mut Vec<String>) -> Option<String> {
        let (policy, place) = (&rule.rules.policy, format!("spec.{}[{}]", self.direction, rule.index));
        words.push(match rule.tier {
            PolicyTier::Admin => format!("{policy} denies it in tier Admin, which no NetworkPolicy can open"),
            _ => format!(
                "{policy} denies it in tier Baseline, which counts as long as no NetworkPolicy selects {}",
                self.subject.key
            ),
        });
        let inserted = snippet.cluster_policy_rule();
        words.push(match inserted {
            Some(_) => format!("change {place}, or put this rule before it:"),
            None => format!(
                "change {place}; an ingress rule of a ClusterNetworkPolicy cannot name {}, which is no pod's",
                self.peer
            ),
        });
        inserted
    }

    /// Pods that were open, and that a new policy would isolate.
    fn warn_of_others(&self, selector: &[(&'static str, &'static str)], words: &mut Vec<String>) {
        let selected = |pod: &Pod| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        let open: Vec<&NamespacedName> = self
            .world
            .compiled()
            .pods()
            .filter(|pod| pod.key.namespace == self.subject.key.namespace)
            .filter(|pod| pod.profile(self.direction).is_none_or(|profile| profile.network.is_empty()))
            .filter(|pod| self.world.index.pod(&pod.key).is_some_and(selected))
            .map(|pod| &pod.key)
            .collect();
        if !open.is_empty() {
            let names: Vec<String> = open.iter().map(ToString::to_string).collect();
            let names = listed(names.iter().map(String::as_str));
            words.push(format!("careful: it also isolates {names}, which no policy isolates now"));
        }
    }

    /// Whether the peer may be an address of the pod's node that no object tells: a secondary, VIP or link-local one.
    fn may_be_node(&self, node: Name) -> bool {
        let is_private = match self.peer {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        let in_pods = |node: &portcullis_cluster::node::Node| {
            node.pod_cidrs.iter().any(|cidr| cidr.contains(&self.peer))
        };
        let known = self.world.node_at(self.peer).is_some_and(|at| at != node);
        is_private && !known && !self.world.index.nodes().any(in_pods)
    }

    /// What the peer in the snippet does not say.
    fn warn_of_peers(&self, peer_pod: Option<&Pod>, peer: &Peer, words: &mut Vec<String>) {
        if let (Some(pod), Peer::Pods { labels, .. }) = (peer_pod, peer)
            && labels.is_empty()
        {
            words.push(format!(
                "{} has no label that its replicas share, so this names all pods of namespace {}; give it a label, \
                 and this names that",
                pod.key, pod.key.namespace
            ));
        }
        if let Some(client) = self.masqueraded {
            let kept = match client.kind {
                ClientKind::Outside => "externalTrafficPolicy: Local would keep the client's address",
                _ => "the cluster IP would keep the client's address",
            };
            words.push(format!(
                "policies there see the node's address {}, not {}'s; {kept}",
                self.peer,
                client.name()
            ));
        }
        if let (Direction::Egress, None, Some(node)) = (self.direction, peer_pod, self.subject.node)
            && self.may_be_node(node)
        {
            words.push(format!(
                "if {} is an address of node {node} itself, which its Node object does not list, the connection passes \
                 without this: a pod may always reach its node",
                self.peer
            ));
        }
        if self.port != self.asked_port {
            words.push(format!(
                "policies see the pod's port {}, not the Service's {}",
                self.port, self.asked_port
            ));
        }
        if Family::from_address(self.peer) == Family::V6 && matches!(peer, Peer::Block(_)) {
            words.push("this is for IPv6; IPv4 needs a block of its own".to_owned());
        }
    }
}

/// What people call a pod: its app, if it says so.
fn calling_name(pod: &Pod) -> String {
    let app = ["app.kubernetes.io/name", "app", "k8s-app"].into_iter().find_map(|key| pod.labels.get(key));
    app.map_or_else(|| pod.key.name.to_string(), str::to_owned)
}
