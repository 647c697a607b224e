//! Output of `iptables-save`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::Mode;
use portcullis_modes::iptables::{
    Fingerprint, Flavour, IptablesKernel, IptablesProxier, RuleSet, Table, ToolError, compare_rules,
};

use super::sample_cluster::{desired, node, options};

/// Compares the rules with those of a cluster, and writes the difference.
pub(crate) fn restore(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (desired, options, node) = (desired(), options(), node());
    let wanted = RuleSet::render(&desired, Family::V4, &options, &node);
    let kernel = SavedRules::parse(&text);
    let found = RuleSet::read(&kernel).unwrap();
    let lines: usize = found.tables.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    assert!(lines <= text.lines().count());
    for difference in compare_rules(&wanted, &found) {
        assert!(!difference.chains.is_empty(), "{difference:?}");
    }
    assert_eq!(compare_rules(&found, &found), []);
    // The tool accepts everything here, and its rules never change: a sync ends all the same.
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let kernel: Box<dyn IptablesKernel> = Box::new(SavedRules { flavour, ..SavedRules::parse(&text) });
        let mut proxier = IptablesProxier::new(options.clone(), node.clone(), [(Family::V4, kernel)]);
        proxier.sync(&desired, &[]);
        proxier.sync(&desired, &[]);
    }
}

/// Rules that do not change.
struct SavedRules {
    tables: BTreeMap<Table, Vec<String>>,
    flavour: Flavour,
}

impl SavedRules {
    fn parse(text: &str) -> Self {
        let mut tables: BTreeMap<Table, Vec<String>> = BTreeMap::new();
        let mut table = Table::Nat;
        for line in text.lines() {
            table = line.strip_prefix('*').and_then(Table::from_name).unwrap_or(table);
            tables.entry(table).or_default().push(line.to_owned());
        }
        SavedRules { tables, flavour: Flavour::Nft }
    }
}

impl IptablesKernel for SavedRules {
    fn flavour(&self) -> Flavour {
        self.flavour
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let mut text = Vec::new();
        write(&mut text).expect("writing to memory");
        let text = String::from_utf8(text).expect("rules are text");
        assert!(text.ends_with("COMMIT\n"), "{text}");
        Ok(())
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.tables.get(&table).into_iter().flatten().for_each(|text| line(text));
        Ok(())
    }

    fn dump_without(
        &self,
        table: Table,
        _: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        self.dump(table, line)
    }

    fn is_costly_to_list(&self, _: Table) -> bool {
        false
    }

    fn delete_jumps(&self, _: Table, _: &[String]) -> bool {
        false
    }

    fn dump_counters(&self, _chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.dump(Table::Nat, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint::Generation(1))
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        Some(1)
    }
}
