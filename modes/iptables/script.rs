//! The text of a restore, built chain by chain, and the Service that each line belongs to.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::num::NonZeroU32;

use super::chain::{ChainName, SharedChain, Table};

/// Approximate number of lines of one restore with the nft tool. Measured at 430,000 lines: batches of 4,000 to 12,000
/// lines cost the least in total; batches of 1,000 or 40,000 lines cost half as much again.
pub(super) const NFT_LINES: usize = 6_000;

/// The number of rules by table, and of the chains that they are in, if these belong to one Service. `mangle` has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleCount {
    pub(super) filter: usize,
    pub(super) nat: usize,
    /// Chains of Services in table nat.
    pub(super) chains: usize,
}

impl std::ops::AddAssign for RuleCount {
    fn add_assign(&mut self, other: Self) {
        self.filter += other.filter;
        self.nat += other.nat;
        self.chains += other.chains;
    }
}

impl std::ops::SubAssign for RuleCount {
    fn sub_assign(&mut self, other: Self) {
        self.filter -= other.filter;
        self.nat -= other.nat;
        self.chains -= other.chains;
    }
}

/// Lines of a restore. Knows the Service of each line, since the tools name a rejected line by its number.
#[derive(Default)]
pub(super) struct Script {
    text: String,
    lines: usize,
    rules: RuleCount,
    current: Option<Table>,
    /// The sections of lines, by their first lines. A bulk write has one for each chain.
    owners: Vec<Section>,
    /// The table that begins with the next line.
    table: Option<Table>,
}

/// Lines of one owner, in 8 bytes.
struct Section {
    first_line: u32,
    /// The index of the Service, plus 1.
    service: Option<NonZeroU32>,
}

impl Script {
    /// Sets the owner of the following lines: the Service with this index, or none.
    pub(super) fn owner(&mut self, service: Option<usize>) {
        let number = |n: usize| u32::try_from(n).expect("memory holds fewer than 2³² lines and Services");
        let service = service.and_then(|index| NonZeroU32::new(number(index + 1)));
        if self.owners.last().is_none_or(|section| section.service != service) {
            self.owners.push(Section { first_line: number(self.lines), service });
        }
    }

    /// Begins a table; its header is written with its first line.
    pub(super) fn begin_table(&mut self, table: Table) {
        self.table = Some(table);
        self.current = Some(table);
    }

    /// Ends the table, if its header was written.
    pub(super) fn end_table(&mut self) {
        if self.table.take().is_none() {
            self.line(format_args!("COMMIT"));
        }
    }

    /// Declares a chain: creates it, or empties it.
    pub(super) fn declare(&mut self, chain: impl std::fmt::Display) {
        self.line(format_args!(":{chain} - [0:0]"));
    }

    /// Deletes an empty chain.
    pub(super) fn delete_chain(&mut self, chain: ChainName) {
        self.line(format_args!("-X {chain}"));
    }

    /// Appends a rule given without `-A CHAIN`.
    pub(super) fn append(&mut self, chain: &str, rule: &str) {
        self.line(format_args!("-A {chain} {rule}"));
        self.count_rules(1);
    }

    /// Appends a rule to a chain that the same restore deletes, so that the rule does not count.
    pub(super) fn append_check(&mut self, chain: &str, rule: &str) {
        self.line(format_args!("-A {chain} {rule}"));
    }

    /// Inserts a rule, given without `-A CHAIN`, at `position`, from 1.
    pub(super) fn insert(&mut self, chain: SharedChain, position: usize, rule: &str) {
        self.line(format_args!("-I {} {position} {rule}", chain.name()));
        self.count_rules(1);
    }

    /// Inserts a rule at the top of a chain.
    pub(super) fn insert_first(&mut self, chain: &str, rule: &str) {
        self.line(format_args!("-I {chain} 1 {rule}"));
        self.count_rules(1);
    }

    /// Deletes the rule at `position`, from 1.
    pub(super) fn delete_at(&mut self, chain: SharedChain, position: usize) {
        self.line(format_args!("-D {} {position}", chain.name()));
    }

    /// Appends lines, each with its line end.
    pub(super) fn lines(&mut self, lines: &str) {
        if lines.is_empty() {
            return;
        }
        self.write_header();
        let count = lines.bytes().filter(|b| *b == b'\n').count();
        self.lines += count;
        self.count_rules(count);
        self.text.push_str(lines);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the size of the buffered text in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn count(&self) -> usize {
        self.lines
    }

    /// Returns the index of the Service that owns a line, counted from 0.
    pub(super) fn owner_of(&self, line: usize) -> Option<usize> {
        let after = self.owners.partition_point(|section| section.first_line as usize <= line);
        let service = self.owners.get(after.checked_sub(1)?)?.service?;
        Some(service.get() as usize - 1)
    }

    /// Writes the buffered text and clears it, keeping the line numbers.
    pub(super) fn drain(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }

    /// Returns the number of rules that it writes.
    pub(super) fn rules(&self) -> RuleCount {
        self.rules
    }

    fn count_rules(&mut self, count: usize) {
        match self.current {
            Some(Table::Filter) => self.rules.filter += count,
            Some(Table::Nat) => self.rules.nat += count,
            Some(Table::Mangle) | None => {}
        }
    }

    fn write_header(&mut self) {
        if let Some(table) = self.table.take() {
            self.line(format_args!("*{table}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.write_header();
        writeln!(self.text, "{line}").expect("writing to a string does not fail");
        self.lines += 1;
    }
}

/// The incremental restore: one script per table.
pub(super) struct Restore {
    pub(super) filter: Script,
    pub(super) mangle: Script,
    pub(super) nat: Script,
}

impl Default for Restore {
    fn default() -> Self {
        let of = |table| Script { current: Some(table), ..Script::default() };
        Restore { filter: of(Table::Filter), mangle: of(Table::Mangle), nat: of(Table::Nat) }
    }
}

impl Restore {
    /// Returns the number of rules that it writes.
    pub(super) fn rules(&self) -> RuleCount {
        let mut rules = self.filter.rules();
        rules += self.nat.rules();
        rules
    }

    pub(super) fn table(&mut self, table: Table) -> &mut Script {
        match table {
            Table::Filter => &mut self.filter,
            Table::Mangle => &mut self.mangle,
            Table::Nat => &mut self.nat,
        }
    }

    /// Sets the owner of the following lines of all tables.
    pub(super) fn owner(&mut self, service: Option<usize>) {
        for table in Table::ALL {
            self.table(table).owner(service);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filter.is_empty() && self.mangle.is_empty() && self.nat.is_empty()
    }

    /// Returns the tables that it writes to.
    pub(super) fn tables(&self) -> impl Iterator<Item = Table> {
        self.in_order().filter(|(_, script)| !script.is_empty()).map(|(table, _)| table)
    }

    /// Returns the number of its lines, without table headers and COMMIT lines.
    pub(super) fn count(&self) -> usize {
        self.filter.count() + self.mangle.count() + self.nat.count()
    }

    /// Writes the restore. Table nat comes last: rules that reject traffic must exist before rules that forward it.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (table, script) in self.in_order().filter(|(_, script)| !script.is_empty()) {
            writeln!(out, "*{table}")?;
            out.write_all(script.text.as_bytes())?;
            writeln!(out, "COMMIT")?;
        }
        Ok(())
    }

    /// Returns the index of the Service that owns a line of the whole text, counted from 1 as the tools do.
    pub(super) fn owner_of(&self, line: usize) -> Option<usize> {
        let mut first = 1;
        for (_, script) in self.in_order().filter(|(_, script)| !script.is_empty()) {
            let inside = line.checked_sub(first + 1)?;
            if inside < script.count() {
                return script.owner_of(inside);
            }
            first += script.count() + 2;
        }
        None
    }

    fn in_order(&self) -> impl Iterator<Item = (Table, &Script)> {
        [(Table::Mangle, &self.mangle), (Table::Filter, &self.filter), (Table::Nat, &self.nat)].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_service_that_owns_it() {
        let mut restore = Restore::default();
        restore.owner(Some(0));
        restore.filter.append("KUBE-SERVICES", "-j DROP");
        restore.nat.declare("KUBE-SVC-A");
        restore.owner(Some(1));
        restore.nat.lines("-A KUBE-SVC-A -j X\n-A KUBE-SVC-A -j Y\n");
        let mut text = Vec::new();
        restore.write(&mut text).expect("writing to memory");
        let text = String::from_utf8(text).expect("it is text");
        let owners: Vec<_> =
            text.lines().enumerate().map(|(i, line)| (line, restore.owner_of(i + 1))).collect();
        assert_eq!(
            owners,
            [
                ("*filter", None),
                ("-A KUBE-SERVICES -j DROP", Some(0)),
                ("COMMIT", None),
                ("*nat", None),
                (":KUBE-SVC-A - [0:0]", Some(0)),
                ("-A KUBE-SVC-A -j X", Some(1)),
                ("-A KUBE-SVC-A -j Y", Some(1)),
                ("COMMIT", None),
            ]
        );
    }
}
