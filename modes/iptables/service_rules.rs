//! The rules of one Service in one family: one text, and the ranges of its chains and rules.

use std::collections::HashMap;
use std::ops::Range;

use super::chain::{ChainName, SharedChain, Table};
use super::rule::Rule;
use super::script::RuleCount;

/// The rules of a Service: its own chains in table nat, and its rules in shared chains.
#[derive(Default)]
pub(super) struct ServiceRules {
    text: String,
    chains: Vec<(ChainName, Range<usize>)>,
    shared: Vec<(SharedChain, Range<usize>)>,
}

impl ServiceRules {
    /// Returns its own chains, each with its rules, one per line, beginning with `-A CHAIN`.
    pub(super) fn chains(&self) -> impl Iterator<Item = (ChainName, &str)> {
        self.chains.iter().map(|(name, range)| (*name, &self.text[range.clone()]))
    }

    /// Returns the lines of its own chains by name.
    pub(super) fn by_name(&self) -> HashMap<ChainName, &str> {
        self.chains().collect()
    }

    /// Returns its rules in a shared chain, without `-A CHAIN`.
    pub(super) fn shared(&self, chain: SharedChain) -> impl Iterator<Item = &str> {
        self.shared.iter().filter(move |(c, _)| *c == chain).map(|(_, range)| &self.text[range.clone()])
    }

    /// Returns all its rules; those of its own chains begin with `-A CHAIN`.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let own = self.chains().flat_map(|(_, lines)| lines.lines());
        own.chain(self.shared.iter().map(|(_, range)| &self.text[range.clone()]))
    }

    /// Returns the number of its rules and chains.
    pub(super) fn count(&self) -> RuleCount {
        let own = self.chains().map(|(_, lines)| lines.lines().count()).sum::<usize>();
        let in_nat = self.shared.iter().filter(|(chain, _)| chain.table() == Table::Nat).count();
        RuleCount { filter: self.shared.len() - in_nat, nat: own + in_nat, chains: self.chains.len() }
    }

    /// Begins a chain of its own.
    pub(super) fn begin_chain(&mut self, name: ChainName) {
        self.chains.push((name, self.text.len()..self.text.len()));
    }

    /// Appends a rule to the chain begun last.
    pub(super) fn rule(&mut self, write: impl FnOnce(Rule<'_>)) {
        let (name, range) = self.chains.last_mut().expect("a chain was begun");
        self.text.push_str("-A ");
        self.text.push_str(name.as_str());
        self.text.push(' ');
        write(Rule::new(&mut self.text));
        self.text.push('\n');
        range.end = self.text.len();
    }

    /// Appends a rule of a shared chain.
    pub(super) fn shared_rule(&mut self, chain: SharedChain, write: impl FnOnce(Rule<'_>)) {
        let from = self.text.len();
        write(Rule::new(&mut self.text));
        self.shared.push((chain, from..self.text.len()));
    }
}
