//! The traversal of a base chain by all branches of a trace.

use std::sync::Arc;

use super::evaluate::{Evaluator, Step};
use super::packet::Packet;
use super::{ConcurrentCommit, Fate, Trace};
use crate::nf_tables::data::Verdict;
use crate::nf_tables::expression::Expression;
use crate::nf_tables::rule::Rule;
use crate::nf_tables::table::{Chain, Table};

/// A trace and its probability.
type Branch = (Trace, f64);

/// The random numbers that expressions draw.
pub(super) enum RandomNumbers<'a> {
    /// A function chooses one number below its argument.
    Chosen(&'a mut dyn FnMut(u32) -> u32),
    /// All numbers, with equal probability.
    All,
}

/// Traces of one packet that differ in random numbers.
pub(super) struct Branches<'a> {
    evaluator: Evaluator<'a>,
    numbers: RandomNumbers<'a>,
    /// The branches with a final verdict.
    finished: Vec<Branch>,
    /// The number of nested jumps.
    depth: usize,
}

impl<'a> Branches<'a> {
    /// Traces a packet through a base chain. Returns the traces with their probabilities.
    ///
    /// # Panics
    /// If chains jump in a loop, which the kernel rejects.
    pub(super) fn trace(
        table: &'a Table,
        commit: Option<ConcurrentCommit<'a>>,
        packet: &'a Packet,
        (name, chain): (&Arc<str>, &Chain),
        trace: Trace,
        numbers: RandomNumbers<'a>,
    ) -> Vec<Branch> {
        let evaluator = Evaluator { table, commit, packet };
        let mut branches = Branches { evaluator, numbers, finished: Vec::new(), depth: 0 };
        let returned = branches.chain(name, chain, vec![(trace, 1.0)]);
        returned.into_iter().for_each(|branch| merge(&mut branches.finished, branch));
        branches.finished
    }

    /// Traverses a chain. Returns the branches that continue after the jump to it.
    fn chain(&mut self, name: &Arc<str>, chain: &Chain, mut branches: Vec<Branch>) -> Vec<Branch> {
        // The buffers are reused for all rules: most rules have one branch.
        let (mut returned, mut next, mut effects) = (Vec::new(), Vec::new(), Vec::new());
        for (position, rule) in chain.rules.iter().enumerate() {
            // Most rules have one effect on the only branch, which continues in its place.
            if let [(trace, _)] = &mut branches[..]
                && let Some(step) = self.single_step(rule, trace)
            {
                match step {
                    Step::Break => continue,
                    Step::Continue | Step::Verdict(Verdict::Continue) => {
                        trace.rules.push((Arc::clone(name), position));
                        continue;
                    }
                    end => effects.extend(branches.pop().map(|branch| (end, branch))),
                }
            }
            branches.drain(..).for_each(|branch| self.rule(rule, branch, &mut effects));
            // Branches that jump to the same chain traverse it together.
            let mut jumps: Vec<(Verdict, Vec<Branch>)> = Vec::new();
            for (step, (mut trace, probability)) in effects.drain(..) {
                if step != Step::Break {
                    trace.rules.push((Arc::clone(name), position));
                }
                match step {
                    Step::Break | Step::Continue | Step::Verdict(Verdict::Continue) => {
                        merge(&mut next, (trace, probability));
                    }
                    Step::Final | Step::Verdict(Verdict::Accept) => {
                        merge(&mut self.finished, (trace, probability));
                    }
                    Step::Verdict(Verdict::Drop) => {
                        trace.fate = Fate::Dropped;
                        merge(&mut self.finished, (trace, probability));
                    }
                    Step::Verdict(Verdict::Return) => merge(&mut returned, (trace, probability)),
                    Step::Verdict(jump) => match jumps.iter_mut().find(|(same, _)| *same == jump) {
                        Some((_, branches)) => merge(branches, (trace, probability)),
                        None => jumps.push((jump, vec![(trace, probability)])),
                    },
                }
            }
            for (jump, branches) in jumps {
                let ended = jump.chain().map(|target| self.jump(target, branches)).unwrap_or_default();
                let continued = if matches!(jump, Verdict::Goto(_)) { &mut returned } else { &mut next };
                ended.into_iter().for_each(|branch| merge(continued, branch));
            }
            std::mem::swap(&mut branches, &mut next);
            if branches.is_empty() {
                break;
            }
        }
        branches.into_iter().for_each(|branch| merge(&mut returned, branch));
        returned
    }

    fn jump(&mut self, name: &Arc<str>, branches: Vec<Branch>) -> Vec<Branch> {
        let table = self.evaluator.table;
        let Some(chain) = table.chains.get(name) else { return branches };
        self.depth += 1;
        assert!(self.depth <= table.chains.len(), "chains jump in a loop through {name}");
        let returned = self.chain(name, chain, branches);
        self.depth -= 1;
        returned
    }

    /// Evaluates a rule that has one effect. Returns `None`, without changing the trace, if its random numbers may have
    /// several.
    fn single_step(&mut self, rule: &Rule, trace: &mut Trace) -> Option<Step> {
        let is_random = |expression: &Expression| {
            matches!(expression, Expression::Random { .. } | Expression::Hash { .. })
        };
        match &mut self.numbers {
            RandomNumbers::Chosen(random) => Some(self.evaluator.rule(rule, trace, random)),
            RandomNumbers::All if !rule.expressions().iter().any(is_random) => {
                Some(self.evaluator.rule(rule, trace, &mut |_| 0))
            }
            RandomNumbers::All => None,
        }
    }

    /// Evaluates a rule for a branch. Adds a branch for each different effect.
    fn rule(&mut self, rule: &Rule, (mut trace, probability): Branch, effects: &mut Vec<(Step, Branch)>) {
        if let Some(step) = self.single_step(rule, &mut trace) {
            return effects.push((step, (trace, probability)));
        }
        let mut draws = Draws::default();
        while draws.start() {
            let mut trace = trace.clone();
            let step = self.evaluator.rule(rule, &mut trace, &mut |below| draws.draw(below));
            let probability = probability * draws.probability();
            match effects.iter_mut().find(|(other, (same, _))| *other == step && *same == trace) {
                Some((_, (_, sum))) => *sum += probability,
                None => effects.push((step, (trace, probability))),
            }
        }
    }
}

/// Adds a branch, or its probability to a branch with an equal trace.
fn merge(branches: &mut Vec<Branch>, (trace, probability): Branch) {
    match branches.iter_mut().find(|(same, _)| *same == trace) {
        Some((_, sum)) => *sum += probability,
        None => branches.push((trace, probability)),
    }
}

/// An enumeration of all sequences of random numbers that a rule draws.
#[derive(Default)]
struct Draws {
    /// Each number of the current sequence, and its limit.
    numbers: Vec<(u32, u32)>,
    position: usize,
    has_started: bool,
}

impl Draws {
    /// Starts the next sequence. Returns false after the last one.
    fn start(&mut self) -> bool {
        self.position = 0;
        if !std::mem::replace(&mut self.has_started, true) {
            return true;
        }
        while self.numbers.pop_if(|(number, below)| *number + 1 >= *below).is_some() {}
        self.numbers.last_mut().map(|(number, _)| *number += 1).is_some()
    }

    fn draw(&mut self, below: u32) -> u32 {
        if self.position == self.numbers.len() {
            self.numbers.push((0, below));
        }
        self.position += 1;
        self.numbers[self.position - 1].0
    }

    /// Returns the probability of the current sequence.
    fn probability(&self) -> f64 {
        self.numbers.iter().map(|(_, below)| 1.0 / f64::from(*below)).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::nf_tables::{Comparison, Expression, Field, Hook, Register, TableFamily, Value};

    fn random_is(number: u32, modulus: u32) -> Rule {
        let random = Field::Random { modulus, offset: 0 };
        Rule::new().compare(random, Comparison::Equal, Value::new(&number.to_ne_bytes()))
    }

    fn dnat(rule: Rule, last: u8) -> Rule {
        let address = Register(1);
        rule.push(Expression::Immediate { value: Value::new(&[10, 0, 0, last]), to: address })
            .push(Expression::Dnat { family: Family::V4, address, port: None })
    }

    fn trace(table: &Table, chain: &str) -> Vec<Branch> {
        let packet = Packet::new([10, 0, 0, 9].into(), [10, 0, 0, 8].into(), 6, 80);
        let (name, chain) = table.chains.get_key_value(chain).expect("the chain");
        Branches::trace(table, None, &packet, (name, chain), Trace::new(&packet), RandomNumbers::All)
    }

    /// One rule per endpoint, each with a random number: 30! sequences, but only 30 branches.
    #[test]
    fn equal_branches_are_merged() {
        let mut table = Table::new(TableFamily::Ip, "t");
        let rules = (0..30).map(|n| dnat(if n == 29 { Rule::new() } else { random_is(0, 30 - n) }, n as u8));
        table.chains.insert("lb".into(), Chain::new(rules.collect()));
        let jump = Rule::new().then(Verdict::jump("lb"));
        table.chains.insert("start".into(), Chain::new(vec![jump.clone(), jump]));
        let branches = trace(&table, "start");
        assert_eq!(branches.len(), 30);
        for (trace, probability) in branches {
            assert!((probability - 1.0 / 30.0).abs() < 1e-9, "{probability}: {trace:?}");
            assert_eq!(trace.rules.len(), 2, "the jump and the rule that matched");
        }
    }

    /// Numbers with equal effects need not be neighbours.
    #[test]
    fn number_in_the_middle_makes_two_branches() {
        let mut table = Table::new(TableFamily::Ip, "t");
        table.chains.insert("start".into(), Chain::new(vec![random_is(1, 3).then(Verdict::Drop)]));
        let branches = trace(&table, "start");
        let [(dropped, third), (accepted, rest)] = &branches[..] else { panic!("{branches:?}") };
        assert_eq!((&dropped.fate, &accepted.fate), (&Fate::Dropped, &Fate::Accepted));
        assert!((third - 1.0 / 3.0).abs() < 1e-9 && (rest - 2.0 / 3.0).abs() < 1e-9, "{third} {rest}");
    }

    #[test]
    #[should_panic(expected = "chains jump in a loop")]
    fn loops_are_found() {
        let mut table = Table::new(TableFamily::Ip, "t");
        let jump = |to: &str| Chain::new(vec![Rule::new().then(Verdict::jump(to))]);
        table.chains.extend([("a".into(), jump("b")), ("b".into(), jump("a"))]);
        trace(&table, "a");
    }

    #[test]
    fn chosen_numbers_give_one_branch() {
        let mut table = Table::new(TableFamily::Ip, "t");
        let base = crate::nf_tables::BaseChain {
            kind: crate::nf_tables::ChainKind::Filter,
            hook: Hook::Input,
            priority: 0,
        };
        let chain = Chain { base: Some(base), ..Chain::new(vec![random_is(2, 3).then(Verdict::Drop)]) };
        table.chains.insert("in".into(), chain);
        let packet = Packet::new([10, 0, 0, 9].into(), [10, 0, 0, 8].into(), 6, 80);
        let fates = [0, 1, 2].map(|number| table.trace(Hook::Input, &packet, &mut |_| number).fate);
        assert_eq!(fates, [Fate::Accepted, Fate::Accepted, Fate::Dropped]);
    }
}
