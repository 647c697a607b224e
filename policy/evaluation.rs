//! Evaluation of connections against compiled policies, by addresses as in the kernel, with the reason of each decision.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Name, Protocol};

use crate::compile::{
    CompiledPolicies, Direction, LocalPod, NamedPortId, PolicyId, PolicyRule, PolicyTier, RuleAction,
    RulePorts, RulesId,
};

/// A new connection: after DNAT to a Service's endpoint and before masquerading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The source.
    pub from: IpAddr,
    /// The destination.
    pub to: IpAddr,
    /// The destination's port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// The decisions at both ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Decision at the source; `None` if it is not the address of a pod in scope.
    pub egress: Option<Decision>,
    /// Decision at the destination; `None` if it is not the address of a pod in scope.
    pub ingress: Option<Decision>,
}

impl Evaluation {
    /// Returns true if no end denies the connection.
    pub fn is_allowed(&self) -> bool {
        [&self.egress, &self.ingress].into_iter().flatten().all(|d| d.verdict == PolicyVerdict::Allow)
    }
}

/// The decision at one end, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: PolicyVerdict,
    /// The reason.
    pub reason: DecisionReason,
    /// Rules with action Pass that matched before, at most one of each tier.
    pub passed: Box<[RuleRef]>,
}

/// Verdict about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyVerdict {
    /// The connection is allowed.
    Allow,
    /// The connection is denied.
    Deny,
}

/// Reason of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionReason {
    /// No policy selects the pod in this direction.
    NotSelected,
    /// The other end is the pod's own node.
    OwnNode,
    /// The other end is the pod itself, which NetworkPolicies allow.
    SamePod,
    /// This rule matches.
    Rule(RuleRef),
    /// NetworkPolicies isolate the pod and none of their rules matches: denied.
    NoRuleMatches {
        /// The policies that isolate the pod.
        policies: Box<[PolicyId]>,
    },
    /// No rule of a ClusterNetworkPolicy decides and no NetworkPolicy isolates the pod: allowed.
    DefaultAllow,
}

/// Reference to a rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy and direction.
    pub rules: RulesId,
    /// Its tier.
    pub tier: PolicyTier,
    /// Its index in the object, as in `spec.ingress[0]`.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its action.
    pub action: RuleAction,
}

impl CompiledPolicies {
    /// Evaluates a connection. A pod's connection to its own address does not leave the pod and is never evaluated, so
    /// one with the same address at both ends passes through a Service.
    pub fn evaluate(&self, connection: Connection) -> Evaluation {
        self.evaluate_with_node_addresses(connection, &|_, _| false)
    }

    /// As [`CompiledPolicies::evaluate`], for a caller that knows more node addresses than the Node objects list, such
    /// as those of bridges: `is_node_address` returns true if a node has an address. The kernel treats all addresses of
    /// a node alike.
    pub fn evaluate_with_node_addresses(
        &self,
        connection: Connection,
        is_node_address: &dyn Fn(&Name, IpAddr) -> bool,
    ) -> Evaluation {
        let decide = |address, direction| {
            let pod = self.pod_at(address)?;
            Some(Evaluator { compiled: self, pod, direction, connection, is_node_address }.decide())
        };
        Evaluation {
            egress: decide(connection.from, Direction::Egress),
            ingress: decide(connection.to, Direction::Ingress),
        }
    }

    /// Returns true if a rule matches a connection with this peer.
    fn matches(&self, rule: &PolicyRule, peer: IpAddr, connection: Connection) -> bool {
        let Connection { to, port, protocol, .. } = connection;
        let peers = &rule.peers;
        let from_set =
            || peers.pods.as_ref().and_then(|id| self.set(id)).is_some_and(|set| set.contains(&peer));
        if !(peers.any || peers.blocks.contains(peer) || from_set()) {
            return false;
        }
        match &rule.ports {
            RulePorts::Any => true,
            RulePorts::Listed { numeric, named } => {
                let has_name = |id: &NamedPortId| {
                    id.protocol == protocol
                        && self.named_port(id).is_some_and(|set| set.contains(&(to, port)))
                };
                numeric.by_protocol(protocol).contains(port) || named.iter().any(has_name)
            }
        }
    }
}

/// Evaluation of one end of a connection.
struct Evaluator<'a> {
    compiled: &'a CompiledPolicies,
    pod: &'a LocalPod,
    direction: Direction,
    connection: Connection,
    is_node_address: &'a dyn Fn(&Name, IpAddr) -> bool,
}

impl Evaluator<'_> {
    fn decide(&self) -> Decision {
        let allow = |reason, passed: Vec<RuleRef>| Decision {
            verdict: PolicyVerdict::Allow,
            reason,
            passed: passed.into(),
        };
        let mut passed = Vec::new();
        let Some(profile) = self.pod.profile(self.direction) else {
            return allow(DecisionReason::NotSelected, passed);
        };
        let peer = self.peer();
        let own_node = self.pod.node.as_ref().is_some_and(|node| {
            self.compiled.node_addresses(node).contains(&peer) || (self.is_node_address)(node, peer)
        });
        // The API always allows a pod's own node: the kubelet probes its pods.
        if own_node && self.direction == Direction::Ingress {
            return allow(DecisionReason::OwnNode, passed);
        }
        for tier in [PolicyTier::Admin, PolicyTier::Network, PolicyTier::Baseline] {
            let policies = profile.tier(tier);
            if tier == PolicyTier::Network && !policies.is_empty() {
                if self.connection.from == self.connection.to {
                    return allow(DecisionReason::SamePod, passed);
                }
                if own_node && !is_link_local_v6(peer) {
                    return allow(DecisionReason::OwnNode, passed);
                }
            }
            match self.first_match(tier, policies) {
                Some(rule) if rule.action == RuleAction::Pass => passed.push(rule),
                Some(rule) => {
                    let verdict = if rule.action == RuleAction::Deny {
                        PolicyVerdict::Deny
                    } else {
                        PolicyVerdict::Allow
                    };
                    return Decision { verdict, reason: DecisionReason::Rule(rule), passed: passed.into() };
                }
                None if tier == PolicyTier::Network && !policies.is_empty() => {
                    let reason = DecisionReason::NoRuleMatches { policies: policies.into() };
                    return Decision { verdict: PolicyVerdict::Deny, reason, passed: passed.into() };
                }
                None => {}
            }
        }
        allow(DecisionReason::DefaultAllow, passed)
    }

    /// Returns the address of the other end.
    fn peer(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.connection.from,
            Direction::Egress => self.connection.to,
        }
    }

    /// Returns the first matching rule of a tier.
    fn first_match(&self, tier: PolicyTier, policies: &[PolicyId]) -> Option<RuleRef> {
        let peer = self.peer();
        policies.iter().find_map(|policy| {
            let rules = RulesId { policy: policy.clone(), direction: self.direction };
            let mut all = self.compiled.rules_of(&rules).iter();
            let rule = all.find(|rule| self.compiled.matches(rule, peer, self.connection))?;
            let PolicyRule { index, action, .. } = *rule;
            Some(RuleRef { rules, tier, index, name: rule.name.clone(), action })
        })
    }
}

/// Returns true for IPv6 link-local addresses. Packets to these have a link-local source address, so policies match
/// them by the pod's interface, including packets to the pod's own node.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
