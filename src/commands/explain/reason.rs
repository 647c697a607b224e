//! The policies' word on a connection, in words.

use portcullis_cluster::{Name, NamespacedName};
use portcullis_policy::Direction;
use portcullis_policy::compile::PolicyId;
use portcullis_policy::evaluation::{Decision, DecisionReason, PolicyVerdict, RuleRef};

use super::answer::{EndAnswer, RuleAnswer};
use crate::commands::world::{World, listed};

/// What one end says. `pod` is the pod that is judged there.
pub(super) fn decided(
    world: &World<'_>,
    pod: &NamespacedName,
    direction: Direction,
    decision: &Decision,
) -> EndAnswer {
    let allowed = decision.verdict == PolicyVerdict::Allow;
    let passed: Vec<RuleAnswer> = decision.passed.iter().map(|rule| rule_answer(world, rule)).collect();
    let (reason, words, rule, isolated_by) = match &decision.reason {
        DecisionReason::NotSelected => ("notSelected", format!("no policy selects {pod}"), None, Vec::new()),
        DecisionReason::OwnNode => ("ownNode", own_node(direction).to_owned(), None, Vec::new()),
        DecisionReason::SamePod => ("itself", "a pod reaches itself".to_owned(), None, Vec::new()),
        DecisionReason::DefaultAllow => {
            let words = "no rule of a ClusterNetworkPolicy decides, and no NetworkPolicy isolates it";
            ("undecided", words.to_owned(), None, Vec::new())
        }
        DecisionReason::Rule(rule) => {
            let answer = rule_answer(world, rule);
            ("rule", rule_words(&answer), Some(answer), Vec::new())
        }
        DecisionReason::NoRuleMatches { policies } => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            ("noRuleMatches", isolated_words(pod, &names), None, names)
        }
    };
    EndAnswer { allowed, reason, words, rule, isolated_by, passed }
}

/// What is said where nobody judges.
pub(super) fn not_judged(words: impl Into<String>) -> EndAnswer {
    EndAnswer {
        allowed: true,
        reason: "notJudged",
        words: words.into(),
        rule: None,
        isolated_by: Vec::new(),
        passed: Vec::new(),
    }
}

fn own_node(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "it comes from the pod's own node, which always may",
        Direction::Egress => "it goes to the pod's own node, which it always may reach",
    }
}

fn isolated_words(pod: &NamespacedName, names: &[String]) -> String {
    format!("{pod} is isolated by {}; no rule matches", listed(names.iter().map(String::as_str)))
}

fn rule_answer(world: &World<'_>, rule: &RuleRef) -> RuleAnswer {
    let priority = match &rule.rules.policy {
        PolicyId::Network(_) => None,
        PolicyId::Cluster(name) => {
            let key = NamespacedName { namespace: Name::new(""), name: name.clone() };
            world.index.cluster_network_policy(&key).map(|policy| policy.priority)
        }
    };
    RuleAnswer {
        policy: rule.rules.policy.to_string(),
        place: format!("spec.{}[{}]", rule.rules.direction, rule.index),
        name: rule.name.as_ref().map(ToString::to_string),
        action: rule.action.to_string(),
        tier: rule.tier.to_string(),
        priority,
    }
}

/// `NetworkPolicy shop/web spec.ingress[0]`; of a ClusterNetworkPolicy also name, action, tier and priority.
pub(super) fn rule_words(rule: &RuleAnswer) -> String {
    let name = rule.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let rest =
        rule.priority.map(|priority| format!(" ({}, tier {}, priority {priority})", rule.action, rule.tier));
    format!("{} {}{name}{}", rule.policy, rule.place, rest.unwrap_or_default())
}
