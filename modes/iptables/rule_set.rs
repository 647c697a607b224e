//! A rule set: all rules of a family, as `render` prints and `diff` compares them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use portcullis_cluster::Family;
use portcullis_cluster::desired::Desired;

use super::chain::{SharedChain, Table, is_service_chain};
use super::error::ToolError;
use super::kernel::IptablesKernel;
use super::saved_rule::{SavedRule, declared_chain};
use super::service_renderer::Renderer;
use super::{base_rules, service_rules};
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// Above this total number of endpoints, comments on endpoints are left out (kube-proxy's limit).
const LARGE_CLUSTER_ENDPOINTS: usize = 1000;

/// The rules of all our tables in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Rules by table and chain, each beginning with `-A CHAIN`. Chains that are only declared are empty.
    pub tables: BTreeMap<Table, BTreeMap<String, Vec<String>>>,
}

impl RuleSet {
    /// Renders the rules of a desired state.
    pub fn render(desired: &Desired, family: Family, options: &Options, facts: &NodeFacts) -> RuleSet {
        let mut set = RuleSet::default();
        for table in Table::ALL {
            for chain in table.built_in().iter().copied().chain(base_rules::shared_names(table)) {
                set.chain(table, chain);
            }
        }
        for jump in base_rules::jumps() {
            set.add(jump.table, jump.from, &jump.rule);
        }
        for base in base_rules::chains(family, options, facts) {
            set.chain(base.table, base.name).extend(base.lines.lines().map(str::to_owned));
        }
        let renderer = Renderer::new(family, options, facts);
        let large = is_large_cluster(desired, family);
        for ports in desired.services().values() {
            set.add_service(&renderer.service(ports, large));
        }
        for line in base_rules::node_port_tail(family, options, facts) {
            set.add(Table::Nat, SharedChain::NatServices.name(), &line);
        }
        set
    }

    /// Reads the kernel's rules: the chains of this mode, and the jumps to them from built-in chains. Chains of other
    /// programs, such as the kubelet, are left out.
    ///
    /// # Errors
    /// The tool could not be run, or failed.
    pub fn read(kernel: &dyn IptablesKernel) -> Result<RuleSet, ToolError> {
        RuleSet::read_chains(kernel, &Table::ALL, is_ours)
    }

    /// Reads the chains of any mode.
    pub(crate) fn read_chains(
        kernel: &dyn IptablesKernel,
        tables: &[Table],
        is_ours: impl Fn(Table, &str) -> bool,
    ) -> Result<RuleSet, ToolError> {
        let mut set = RuleSet::default();
        for &table in tables {
            for chain in table.built_in() {
                set.chain(table, chain);
            }
            kernel.dump(table, &mut |line| set.add_line(table, line.trim_end(), &is_ours))?;
        }
        Ok(set)
    }

    fn add_line(&mut self, table: Table, line: &str, is_ours: &impl Fn(Table, &str) -> bool) {
        if let Some(name) = declared_chain(line) {
            if is_ours(table, name) {
                self.chain(table, name);
            }
        } else if let Some(rule) = SavedRule::parse(line) {
            let jump = table.built_in().contains(&rule.chain)
                && rule.target().is_some_and(|target| is_ours(table, target));
            if jump || is_ours(table, rule.chain) {
                self.chain(table, rule.chain).push(line.to_owned());
            }
        }
    }

    fn add_service(&mut self, rules: &service_rules::ServiceRules) {
        for (name, lines) in rules.chains() {
            self.chain(Table::Nat, name.as_str()).extend(lines.lines().map(str::to_owned));
        }
        for chain in SharedChain::ALL {
            for rule in rules.shared(chain) {
                self.add(chain.table(), chain.name(), rule);
            }
        }
    }

    pub(crate) fn chain(&mut self, table: Table, name: &str) -> &mut Vec<String> {
        self.tables.entry(table).or_default().entry(name.to_owned()).or_default()
    }

    pub(crate) fn add(&mut self, table: Table, chain: &str, rule: &str) {
        self.chain(table, chain).push(format!("-A {chain} {rule}"));
    }
}

/// Returns true if this mode writes a chain of this name.
pub(crate) fn is_ours(table: Table, name: &str) -> bool {
    base_rules::shared_names(table).chain(base_rules::names(table)).any(|ours| ours == name)
        || (table == Table::Nat && is_service_chain(name))
}

/// Returns true if a family has too many endpoints to write comments on their rules.
pub(super) fn is_large_cluster(desired: &Desired, family: Family) -> bool {
    let mut endpoints = 0;
    // Runs at every sync: in a large cluster the first Services suffice.
    desired.ports().filter(|p| p.family == family).any(|p| {
        endpoints += p.endpoints.total();
        endpoints > LARGE_CLUSTER_ENDPOINTS
    })
}

/// Prints the rules as `iptables-save` does, with counters at zero and tables sorted by name.
impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, chains) in &self.tables {
            writeln!(f, "*{table}")?;
            let built_in = table.built_in();
            let own = || chains.keys().filter(|name| !built_in.contains(&name.as_str()));
            for name in built_in {
                writeln!(f, ":{name} ACCEPT [0:0]")?;
            }
            for name in own() {
                writeln!(f, ":{name} - [0:0]")?;
            }
            let in_order = built_in.iter().filter_map(|name| chains.get(*name));
            for lines in in_order.chain(own().map(|name| &chains[name])) {
                for line in lines {
                    f.write_str(line)?;
                    f.write_char('\n')?;
                }
            }
            writeln!(f, "COMMIT")?;
        }
        Ok(())
    }
}
