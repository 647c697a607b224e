//! A snapshot of the kernel's rules: one hash per chain.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::chain::{ChainName, SharedChain, Table};
use super::error::ToolError;
use super::kernel::IptablesKernel;
use super::saved_rule::declared_chain;

/// The number of lines read between two reports of progress.
const LINES_A_STEP: usize = 1000;

/// The chains of our tables, with the hashes of their rules.
#[derive(Default)]
pub(crate) struct Snapshot {
    chains: HashMap<(Table, ChainName), u64>,
    /// The rules of built-in chains, which hold our jumps.
    built_in: HashMap<(Table, String), Vec<String>>,
    /// The hashes of the rules of shared chains.
    shared: [Vec<u64>; SharedChain::ALL.len()],
    /// Tables of which our chains were read without their rules, as these take longer to list than to write. They are written
    /// again, and are no evidence of external changes.
    without_rules: BTreeSet<Table>,
}

impl Snapshot {
    /// Reads all our tables, and calls `progressed` after some lines each.
    pub(super) fn read(kernel: &dyn IptablesKernel, progressed: &dyn Fn()) -> Result<Snapshot, ToolError> {
        let mut snapshot = Snapshot::default();
        for table in Table::ALL {
            snapshot.read_in(kernel, table, progressed)?;
        }
        Ok(snapshot)
    }

    /// Reads one table.
    pub(crate) fn read_table(kernel: &dyn IptablesKernel, table: Table) -> Result<Snapshot, ToolError> {
        let mut snapshot = Snapshot::default();
        snapshot.read_in(kernel, table, &|| ())?;
        Ok(snapshot)
    }

    fn read_in(
        &mut self,
        kernel: &dyn IptablesKernel,
        table: Table,
        progressed: &dyn Fn(),
    ) -> Result<(), ToolError> {
        let is_costly = kernel.is_costly_to_list(table);
        if is_costly {
            tracing::debug!(%table, "the rules take longer to list than to write; writing them again");
            self.without_rules.insert(table);
        }
        let mut reader = Reader::new(self, table);
        let mut lines = 0_usize;
        let mut read = |line: &str| {
            lines += 1;
            if lines.is_multiple_of(LINES_A_STEP) {
                progressed();
            }
            reader.line(line);
        };
        match is_costly {
            true => kernel.dump_without(table, &|name| name.starts_with("KUBE-"), &mut read)?,
            false => kernel.dump(table, &mut read)?,
        }
        reader.end_chain();
        Ok(())
    }

    /// Returns true if a chain of ours exists, but its rules were not read.
    pub(super) fn lacks_rules_of(&self, table: Table, name: &str) -> bool {
        self.without_rules.contains(&table) && self.chain(table, name).is_some()
    }

    /// Returns the hash of a chain's rules; `None` if the chain does not exist.
    pub(super) fn chain(&self, table: Table, name: &str) -> Option<u64> {
        self.chains.get(&(table, ChainName::new(name)?)).copied()
    }

    /// Returns all chains of a table but the built-in ones.
    pub(super) fn chains_of(&self, table: Table) -> impl Iterator<Item = ChainName> + '_ {
        self.chains.keys().filter(move |(t, _)| *t == table).map(|(_, name)| *name)
    }

    /// Returns the hashes of a shared chain's rules, in order.
    pub(super) fn shared_rules(&self, chain: SharedChain) -> &[u64] {
        &self.shared[chain.index()]
    }

    /// Returns true if a built-in chain has a rule, given without `-A CHAIN`.
    pub(crate) fn has_rule(&self, table: Table, chain: &str, rule: &str) -> bool {
        self.built_in.get(&(table, chain.to_owned())).is_some_and(|rules| rules.iter().any(|r| r == rule))
    }
}

/// The hash of a list of rules.
pub(super) struct ChainHash(DefaultHasher);

impl ChainHash {
    pub(super) fn new() -> Self {
        ChainHash(DefaultHasher::new())
    }

    /// Adds a rule, given without `-A CHAIN`.
    pub(super) fn rule(&mut self, rule: &str) {
        // White space is ignored: versions of the tools differ in it.
        rule.split_ascii_whitespace().for_each(|word| word.hash(&mut self.0));
        self.0.write_u8(b'\n');
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// Returns the hash of one rule, given without `-A CHAIN`.
pub(super) fn hash_of_rule(rule: &str) -> u64 {
    let mut hash = ChainHash::new();
    hash.rule(rule);
    hash.finish()
}

/// Returns the hash of lines that each begin with `-A CHAIN`.
pub(super) fn hash_of(chain: &str, lines: &str) -> u64 {
    let mut hash = ChainHash::new();
    for line in lines.lines() {
        hash.rule(rule_of(chain, line));
    }
    hash.finish()
}

fn rule_of<'a>(chain: &str, line: &'a str) -> &'a str {
    line.get("-A ".len() + chain.len() + 1..).unwrap_or_default()
}

/// Reads a dump, in which the rules of a chain are contiguous.
struct Reader<'a> {
    into: &'a mut Snapshot,
    table: Table,
    chain: Option<(ChainName, ChainHash)>,
}

impl<'a> Reader<'a> {
    fn new(into: &'a mut Snapshot, table: Table) -> Self {
        Reader { into, table, chain: None }
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = declared_chain(line) {
            if let Some(name) = ChainName::new(name) {
                self.into.chains.insert((self.table, name), ChainHash::new().finish());
            }
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (name, rule) = rest.trim_end().split_once(' ').unwrap_or((rest, ""));
            if self.table.built_in().contains(&name) {
                self.into.built_in.entry((self.table, name.to_owned())).or_default().push(rule.to_owned());
                return;
            }
            let Some(name) = ChainName::new(name) else { return };
            if self.chain.as_ref().is_none_or(|(current, _)| *current != name) {
                self.end_chain();
                self.chain = Some((name, ChainHash::new()));
            }
            if let Some((_, hash)) = &mut self.chain {
                hash.rule(rule);
            }
            let shared =
                SharedChain::ALL.into_iter().find(|c| c.table() == self.table && c.name() == name.as_str());
            if let Some(chain) = shared {
                self.into.shared[chain.index()].push(hash_of_rule(rule));
            }
        }
    }

    fn end_chain(&mut self) {
        if let Some((name, hash)) = self.chain.take() {
            self.into.chains.insert((self.table, name), hash.finish());
        }
    }
}
