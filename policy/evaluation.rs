//! What becomes of a connection, and why: judged by addresses over the compiled values, as the kernel does.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Name, Protocol};

use crate::compile::{
    CompiledPolicies, Direction, LocalPod, NamedPortId, PolicyId, PolicyRule, PolicyTier, RuleAction,
    RulePorts, RulesId,
};

/// A new connection, after the address of a Service was replaced by that of its endpoint, and before the
/// source is masqueraded.
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

/// What both ends say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// At the source; `None` if it is not a judged pod's address.
    pub egress: Option<Decision>,
    /// At the destination; `None` if it is not a judged pod's address.
    pub ingress: Option<Decision>,
}

impl Evaluation {
    /// Whether neither end stops it.
    pub fn is_allowed(&self) -> bool {
        [&self.egress, &self.ingress].into_iter().flatten().all(|d| d.verdict == PolicyVerdict::Allow)
    }
}

/// What one end says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the connection may pass.
    pub verdict: PolicyVerdict,
    /// What decided.
    pub reason: DecisionReason,
    /// Rules that passed it on to the next tier before that, at most one of each tier.
    pub passed: Box<[RuleRef]>,
}

/// Whether a connection may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyVerdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Why a connection may pass or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionReason {
    /// No policy selects the pod in this direction.
    NotSelected,
    /// The other end is the node the pod is on.
    OwnNode,
    /// The other end is the pod itself, and NetworkPolicies let that pass.
    SamePod,
    /// This rule matches.
    Rule(RuleRef),
    /// NetworkPolicies isolate the pod, and none of their rules matches: denied.
    NoRuleMatches {
        /// The policies that isolate it.
        policies: Box<[PolicyId]>,
    },
    /// No rule of a ClusterNetworkPolicy decides, and no NetworkPolicy isolates the pod: allowed.
    DefaultAllow,
}

/// A rule, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy and direction.
    pub rules: RulesId,
    /// Its tier.
    pub tier: PolicyTier,
    /// Its place in the object, counted from 0, as in `spec.ingress[0]`.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its action.
    pub action: RuleAction,
}

impl CompiledPolicies {
    /// What becomes of a connection, by what is compiled. A pod's connection to its own address stays in the
    /// pod and is never judged; one with the same address at both ends came through a Service.
    pub fn evaluate(&self, connection: Connection) -> Evaluation {
        self.evaluate_with_node_addresses(connection, &|_, _| false)
    }

    /// The same for a caller that knows more addresses of nodes than the Node objects list, such as those of their
    /// bridges: `is_of_node` says whether a node has an address. The kernel treats all of a node's own addresses
    /// alike.
    pub fn evaluate_with_node_addresses(
        &self,
        connection: Connection,
        is_of_node: &dyn Fn(Name, IpAddr) -> bool,
    ) -> Evaluation {
        let decide = |address, direction| {
            let pod = self.pod_at(address)?;
            Some(Evaluator { compiled: self, pod, direction, connection, is_of_node }.decide())
        };
        Evaluation {
            egress: decide(connection.from, Direction::Egress),
            ingress: decide(connection.to, Direction::Ingress),
        }
    }

    /// Whether a rule matches a connection with this peer.
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
                numeric.of(protocol).contains(port) || named.iter().any(has_name)
            }
        }
    }
}

/// One end of a connection.
struct Evaluator<'a> {
    compiled: &'a CompiledPolicies,
    pod: &'a LocalPod,
    direction: Direction,
    connection: Connection,
    is_of_node: &'a dyn Fn(Name, IpAddr) -> bool,
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
        let own_node = self.pod.node.is_some_and(|node| {
            self.compiled.node_addresses(node).contains(&peer) || (self.is_of_node)(node, peer)
        });
        // The node must reach its pods whatever the policy: it asks after their health.
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

    /// The other end.
    fn peer(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.connection.from,
            Direction::Egress => self.connection.to,
        }
    }

    /// The first rule of a tier that matches.
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

/// Whether packets to an address come from a link-local address of a pod, which policies match by the pod's interface,
/// also on their way to the pod's own node.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
