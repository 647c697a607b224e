//! The decision of policies about a connection, as part of an explanation.

use portcullis_cluster::{Name, NamespacedName};
use portcullis_policy::Direction;
use portcullis_policy::compile::PolicyId;
use portcullis_policy::evaluation::{Decision, DecisionReason, PolicyVerdict, RuleRef};

use super::explanation::{PolicyExplanation, RuleExplanation};
use crate::commands::cluster_lookup::{ClusterLookup, listed};

/// Returns the explanation of a decision about `pod`.
pub(super) fn decided(
    cluster: &ClusterLookup<'_>,
    pod: &NamespacedName,
    direction: Direction,
    decision: &Decision,
) -> PolicyExplanation {
    let allowed = decision.verdict == PolicyVerdict::Allow;
    let passed: Vec<RuleExplanation> =
        decision.passed.iter().map(|rule| rule_explanation(cluster, rule)).collect();
    let (reason, text, rule, isolated_by) = match &decision.reason {
        DecisionReason::NotSelected => ("notSelected", format!("no policy selects {pod}"), None, Vec::new()),
        DecisionReason::OwnNode => ("ownNode", own_node_reason(direction).to_owned(), None, Vec::new()),
        DecisionReason::SamePod => ("itself", "a pod can always reach itself".to_owned(), None, Vec::new()),
        DecisionReason::DefaultAllow => {
            let reason = "no ClusterNetworkPolicy rule decides, and no NetworkPolicy isolates the pod";
            ("undecided", reason.to_owned(), None, Vec::new())
        }
        DecisionReason::Rule(rule) => {
            let explanation = rule_explanation(cluster, rule);
            ("rule", describe_rule(&explanation), Some(explanation), Vec::new())
        }
        DecisionReason::NoRuleMatches { policies } => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            ("noRuleMatches", isolation_reason(pod, &names), None, names)
        }
    };
    PolicyExplanation { allowed, reason, text, rule, isolated_by, passed }
}

/// Returns the explanation of an end to which no policy applies.
pub(super) fn not_evaluated(text: impl Into<String>) -> PolicyExplanation {
    PolicyExplanation {
        allowed: true,
        reason: "notEvaluated",
        text: text.into(),
        rule: None,
        isolated_by: Vec::new(),
        passed: Vec::new(),
    }
}

fn own_node_reason(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "traffic from the pod's own node is always allowed",
        Direction::Egress => "traffic to the pod's own node is always allowed",
    }
}

fn isolation_reason(pod: &NamespacedName, names: &[String]) -> String {
    format!("{pod} is isolated by {}; no rule matches", listed(names.iter().map(String::as_str)))
}

fn rule_explanation(cluster: &ClusterLookup<'_>, rule: &RuleRef) -> RuleExplanation {
    let priority = match &rule.rules.policy {
        PolicyId::Network(_) => None,
        PolicyId::Cluster(name) => {
            let key = NamespacedName { namespace: Name::new(""), name: name.clone() };
            cluster.index.cluster_network_policy(&key).map(|policy| policy.priority)
        }
    };
    RuleExplanation {
        policy: rule.rules.policy.to_string(),
        place: format!("spec.{}[{}]", rule.rules.direction, rule.index),
        name: rule.name.as_ref().map(ToString::to_string),
        action: rule.action.to_string(),
        tier: rule.tier.to_string(),
        priority,
    }
}

/// `NetworkPolicy shop/web spec.ingress[0]`; of a ClusterNetworkPolicy also name, action, tier and priority.
pub(super) fn describe_rule(rule: &RuleExplanation) -> String {
    let name = rule.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let rest =
        rule.priority.map(|priority| format!(" ({}, tier {}, priority {priority})", rule.action, rule.tier));
    format!("{} {}{name}{}", rule.policy, rule.place, rest.unwrap_or_default())
}
