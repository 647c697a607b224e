//! Chains of classes: the rules of a profile's tiers for peers that are in the same groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Chain, DataType, Element, Field, Key, Rule, Set, SetSpec, Verdict};
use sha2::{Digest, Sha256};

use super::decisions::{DecidedRange, Decision, PROTOCOLS, Step, steps};
use crate::compile::{Direction, PolicyRule, PolicyTier, RulesId, suffix};
use crate::table::edit::ChainWithSets;
use crate::table::names::of_family;
use crate::table::options::PolicyOptions;
use crate::table::rules::{allowed, denied};
use crate::table::shared_sets::{self, UsedSets};

/// The number of port ranges up to which each is a rule. More are a set or a map.
const RANGES_IN_RULES: usize = 2;

/// A rule that matches the peers of a class, by family in the order of [`Family::ALL`].
pub(super) struct MatchedRule<'a> {
    pub(super) tier: PolicyTier,
    pub(super) id: &'a RulesId,
    pub(super) rule: &'a PolicyRule,
    pub(super) families: [bool; 2],
}

/// The chains of a class: its own first, then those to which it jumps.
#[derive(Debug)]
pub(super) struct ClassChains(pub(super) Vec<ChainWithSets>);

impl ClassChains {
    /// Renders the chains of a class. `rules` are those that match its peers, in the order of evaluation.
    pub(super) fn render(direction: Direction, rules: &[MatchedRule<'_>], options: &PolicyOptions) -> Self {
        let mut others = Vec::new();
        let mut own = Vec::new();
        let mut sets = UsedSets::new();
        for tier in [PolicyTier::Admin, PolicyTier::Network, PolicyTier::Baseline] {
            let mut of_tier: Vec<&MatchedRule<'_>> = rules.iter().filter(|rule| rule.tier == tier).collect();
            if of_tier.is_empty() {
                continue;
            }
            let mut renderer =
                TierRenderer { direction, options, sets: UsedSets::new(), denials: BTreeMap::new() };
            if tier == PolicyTier::Network {
                // All accept, so those that decide most come first.
                of_tier.sort_by_key(|rule| rule.rule.ports != crate::compile::RulePorts::Any);
                own.extend(renderer.render(&of_tier));
                sets.append(&mut renderer.sets);
            } else {
                // Pass returns from the chain of the tier.
                let chain = content_chain("tier", direction, renderer.render(&of_tier), renderer.sets);
                own.push(Rule::new().then(Verdict::jump(&*chain.name)));
                others.push(chain);
            }
            others.extend(renderer.denials.into_values());
        }
        let mut chains = vec![content_chain("class", direction, own, sets)];
        chains.extend(others);
        ClassChains(chains)
    }
}

/// Returns a chain whose name is derived from its content.
fn content_chain(kind: &str, direction: Direction, rules: Vec<Rule>, sets: UsedSets) -> ChainWithSets {
    let mut hash = Sha256::new();
    for rule in &rules {
        let text = rule.to_string();
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let hash = suffix(&hash.finalize());
    let name = format!("{kind}-{direction}-{hash}").into();
    ChainWithSets { name, chain: Chain::new(rules), sets, groups: BTreeMap::new() }
}

/// Renders the rules of a tier.
struct TierRenderer<'a> {
    direction: Direction,
    options: &'a PolicyOptions,
    sets: UsedSets,
    /// Chains that deny connections, by name.
    denials: BTreeMap<Arc<str>, ChainWithSets>,
}

impl TierRenderer<'_> {
    fn render(&mut self, rules: &[&MatchedRule<'_>]) -> Vec<Rule> {
        let [v4, v6] = [0, 1].map(|at| {
            let of_family = rules.iter().filter(|rule| rule.families[at]);
            steps(of_family.map(|rule| (rule.id, rule.rule)))
        });
        if v4 == v6 {
            return v4.iter().flat_map(|step| self.step(None, step)).collect();
        }
        let mut all = Vec::new();
        for (family, steps) in Family::ALL.into_iter().zip([v4, v6]) {
            all.extend(steps.iter().flat_map(|step| self.step(Some(family), step)));
        }
        all
    }

    fn step(&mut self, family: Option<Family>, step: &Step<'_>) -> Vec<Rule> {
        let start = || family.map_or_else(Rule::new, |family| Rule::new().family(family));
        match step {
            Step::Rest(decision) => vec![start().then(self.verdict(decision))],
            Step::Named(port, decision) => {
                let verdict = self.verdict(decision);
                let families = Family::ALL.into_iter().filter(|of| family.is_none_or(|family| family == *of));
                let rule = |of: Family| {
                    let key = [Field::Destination(of), Field::DestinationPort];
                    let rule = Rule::new().family(of).protocol(port.protocol.number());
                    rule.is_in(&key, of_family(&port.name(), of)).then(verdict.clone())
                };
                families.map(rule).collect()
            }
            Step::Numeric(by_protocol) => {
                let mut rules = Vec::new();
                for (protocol, ranges) in PROTOCOLS.into_iter().zip(by_protocol) {
                    rules.extend(self.ranges(&start(), protocol, ranges));
                }
                rules
            }
        }
    }

    fn ranges(&mut self, start: &Rule, protocol: Protocol, ranges: &[DecidedRange<'_>]) -> Vec<Rule> {
        let start = start.clone().protocol(protocol.number());
        let verdicts: Vec<Verdict> = ranges.iter().map(|(_, _, decision)| self.verdict(decision)).collect();
        match ranges {
            [] => Vec::new(),
            [(0, u16::MAX, _)] => vec![start.then(verdicts[0].clone())],
            few if few.len() <= RANGES_IN_RULES => {
                let rules = few.iter().zip(verdicts);
                let rules = rules.map(|((first, last, _), verdict)| {
                    start.clone().between(Field::DestinationPort, *first, *last).then(verdict)
                });
                rules.collect()
            }
            many if verdicts.iter().all(|verdict| *verdict == verdicts[0]) => {
                let bounds: Vec<(u16, u16)> = many.iter().map(|(first, last, _)| (*first, *last)).collect();
                let set = shared_sets::ports(&bounds, &mut self.sets);
                vec![start.is_in(&[Field::DestinationPort], set).then(verdicts[0].clone())]
            }
            many => {
                let map = self.verdict_map(many, &verdicts);
                vec![start.verdict_map(&[Field::DestinationPort], map)]
            }
        }
    }

    /// Adds a map of port ranges to verdicts, and returns its name.
    fn verdict_map(&mut self, ranges: &[DecidedRange<'_>], verdicts: &[Verdict]) -> Arc<str> {
        let mut hash = Sha256::new();
        let mut elements = Vec::new();
        for ((first, last, _), verdict) in ranges.iter().zip(verdicts) {
            hash.update(first.to_be_bytes());
            hash.update(last.to_be_bytes());
            hash.update(verdict.to_string().as_bytes());
            let element = Element { last: Some(Key::new().port(*last)), ..Element::verdict(verdict.clone()) };
            elements.push((Key::new().port(*first), element));
        }
        let hash = suffix(&hash.finalize());
        let name: Arc<str> = format!("port-verdicts-{hash}").into();
        let spec = SetSpec::verdict_map(&[DataType::InetService]).with_intervals();
        self.sets.entry(Arc::clone(&name)).or_insert_with(|| Set::with_elements(spec, elements));
        name
    }

    fn verdict(&mut self, decision: &Decision<'_>) -> Verdict {
        match decision {
            Decision::Accept => allowed(),
            Decision::Pass => Verdict::Return,
            Decision::Deny(id) => {
                let name: Arc<str> = format!("deny-{}", id.name()).into();
                let (direction, options) = (self.direction, self.options);
                self.denials.entry(Arc::clone(&name)).or_insert_with(|| {
                    let reason = id.policy.to_string();
                    let rules = denied(&Rule::new(), direction, &id.name(), &reason, options);
                    let chain = Chain::new(rules).with_comment(&id.describe());
                    ChainWithSets::without_sets(Arc::clone(&name), chain)
                });
                Verdict::goto(&*name)
            }
        }
    }
}
