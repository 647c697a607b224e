//! This process's own writes, by which writes of other processes at the same time are detected.
//!
//! A fingerprint that is read after a write also covers what another process wrote meanwhile. With nf_tables it is a number
//! that each transaction raises by 1, so a difference greater than the number of own transactions shows other writers.
//!
//! With the legacy tool it is the sizes of the tables. The number of entries must have grown by those of the Services that were
//! written, and the built-in chains must have kept their sizes, since only a comparison writes jumps. What this does not show, as a
//! rule that was replaced in one of our chains, is found by the comparison that follows own writes ([`Confirmation`]).

use std::cell::Cell;
use std::io::{self, Write};

use portcullis_netlink::nf_tables::committed_transactions;
use portcullis_netlink::xtables::TableInfo;

use super::chain::Table;
#[cfg(doc)]
use super::confirmation::Confirmation;
use super::error::ToolError;
use super::kernel::{Fingerprint, Flavour, IptablesKernel};
use super::script::RuleCount;

/// A kernel interface that counts writes.
pub(super) struct CountingKernel {
    kernel: Box<dyn IptablesKernel>,
    tables: Cell<u32>,
    partial: Cell<u32>,
}

impl CountingKernel {
    pub(super) fn new(kernel: Box<dyn IptablesKernel>) -> Self {
        CountingKernel { kernel, tables: Cell::new(0), partial: Cell::new(0) }
    }

    /// Returns the writes since the start, as [`OwnWrites::tables`] and [`OwnWrites::uncertain`].
    pub(super) fn writes(&self) -> (u32, u32) {
        (self.tables.get(), self.partial.get())
    }
}

impl IptablesKernel for CountingKernel {
    fn flavour(&self) -> Flavour {
        self.kernel.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let mut tables = 0;
        let result = self.kernel.restore(&mut |out| {
            let mut counter = CommitCounter { out, line: Vec::new(), commits: 0 };
            write(&mut counter)?;
            tables = counter.commits;
            Ok(())
        });
        // The kernel may have any of several tables of a failed restore.
        if result.is_ok() || tables > 1 {
            self.tables.set(self.tables.get().wrapping_add(tables));
        }
        if result.is_err() && tables > 1 {
            self.partial.set(self.partial.get().wrapping_add(1));
        }
        result
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump(table, line)
    }

    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        self.kernel.dump_without(table, is_skipped, line)
    }

    fn is_costly_to_list(&self, table: Table) -> bool {
        self.kernel.is_costly_to_list(table)
    }

    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool {
        let are_deleted = self.kernel.delete_jumps(table, jumps);
        if are_deleted {
            self.tables.set(self.tables.get().wrapping_add(1));
        }
        are_deleted
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump_counters(chain, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.kernel.chain_fingerprint()
    }
}

/// Counts the lines that commit a table.
struct CommitCounter<'a> {
    out: &'a mut dyn Write,
    /// The beginning of the current line.
    line: Vec<u8>,
    commits: u32,
}

const COMMIT: &[u8] = b"COMMIT\n";

impl Write for CommitCounter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        for part in bytes[..written].split_inclusive(|byte| *byte == b'\n') {
            let missing = (COMMIT.len() + 1).saturating_sub(self.line.len());
            self.line.extend(part.iter().take(missing));
            if part.ends_with(b"\n") {
                self.commits += u32::from(self.line == COMMIT);
                self.line.clear();
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The writes of this process to the tables of one family. The counters wrap around.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnWrites {
    /// The number of tables that the tools have written, at most.
    pub(crate) tables: u32,
    /// The number of writes of which it is not known what they changed.
    pub(crate) uncertain: u32,
    /// The number of entries that the written Services have in each legacy table, in the order of [`Table::ALL`].
    pub(crate) entries: [usize; Table::ALL.len()],
}

impl OwnWrites {
    /// Returns the writes since `earlier`; their entries are the additional ones.
    fn since(&self, earlier: &OwnWrites) -> (u32, u32, [i64; Table::ALL.len()]) {
        let growth = |i: usize| self.entries[i] as i64 - earlier.entries[i] as i64;
        let (tables, uncertain) =
            (self.tables.wrapping_sub(earlier.tables), self.uncertain.wrapping_sub(earlier.uncertain));
        (tables, uncertain, [growth(0), growth(1), growth(2)])
    }
}

/// Returns the number of entries that the rules and chains of Services have in each legacy table. A rule is one entry, a chain has
/// one at its beginning and one at its end.
pub(super) fn entries(rules: RuleCount) -> [usize; Table::ALL.len()] {
    Table::ALL.map(|table| match table {
        Table::Filter => rules.filter,
        Table::Mangle => 0,
        Table::Nat => rules.nat + 2 * rules.chains,
    })
}

/// A time in which this process writes.
pub(crate) struct WriteInterval {
    before: Option<Vec<Fingerprint>>,
    own: Vec<OwnWrites>,
    /// The transactions of this process that are not written by the tools.
    transactions: u32,
}

impl WriteInterval {
    /// Begins with these fingerprints, which were read just now, and the writes until now, both by family.
    pub(crate) fn new(before: Option<Vec<Fingerprint>>, own: Vec<OwnWrites>) -> Self {
        WriteInterval { before, own, transactions: committed_transactions() }
    }

    pub(crate) fn before(&self) -> Option<&[Fingerprint]> {
        self.before.as_deref()
    }

    /// Returns true if this process has written since, given its writes until now.
    pub(crate) fn has_written(&self, own: &[OwnWrites]) -> bool {
        self.own
            .iter()
            .zip(own)
            .any(|(before, now)| now.tables != before.tables || now.uncertain != before.uncertain)
    }

    /// Returns true if another process has written since, given fingerprints that were read just now, and the writes of this process
    /// until now. With the legacy tool, false does not mean that no other process has written.
    pub(crate) fn is_disturbed(&self, now: Option<&[Fingerprint]>, own: &[OwnWrites]) -> bool {
        let Some(now) = now else { return false };
        let Some(before) = &self.before else { return true };
        let written: Vec<_> = self.own.iter().zip(own).map(|(before, now)| now.since(before)).collect();
        let transactions = self.own_transactions(own);
        before.iter().zip(now).zip(written).any(|((before, now), (tables, uncertain, growth))| {
            match (before, now) {
                (Fingerprint::Generation(before), Fingerprint::Generation(now)) => {
                    uncertain > 0 || now.wrapping_sub(*before) > transactions
                }
                (Fingerprint::Sizes(before), Fingerprint::Sizes(now)) if tables == 0 => before != now,
                (Fingerprint::Sizes(before), Fingerprint::Sizes(now)) => {
                    uncertain == 0
                        && before.iter().zip(now).zip(growth).any(|((b, n), growth)| !grew_by(b, n, growth))
                }
                _ => true,
            }
        })
    }

    /// Returns true if the generation of nf_tables grew by no more than the transactions of this process, of which some may have been
    /// rejected: then nothing shows another process. False with the legacy tool.
    pub(crate) fn may_be_own(&self, now: &[Fingerprint], own: &[OwnWrites]) -> bool {
        let Some(before) = &self.before else { return false };
        let transactions = self.own_transactions(own);
        before.iter().zip(now).all(|pair| match pair {
            (Fingerprint::Generation(before), Fingerprint::Generation(now)) => {
                now.wrapping_sub(*before) <= transactions
            }
            _ => false,
        })
    }

    /// Returns the largest number of transactions of this process since the beginning, given its writes until now. The generation
    /// counts those of the tables of all families.
    fn own_transactions(&self, own: &[OwnWrites]) -> u32 {
        let tables = self.own.iter().zip(own).map(|(before, now)| now.since(before).0);
        tables.fold(committed_transactions().wrapping_sub(self.transactions), u32::saturating_add)
    }
}

/// Returns true if a legacy table has this number of additional entries, none of them in a built-in chain.
fn grew_by(before: &Option<TableInfo>, now: &Option<TableInfo>, growth: i64) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => {
            let offsets = |table: &TableInfo| (table.hook_entry, table.underflow);
            i64::from(now.entries) - i64::from(before.entries) == growth && offsets(now) == offsets(before)
        }
        // A table of which there is none has no entries of ours.
        (None, None) => growth == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_however_they_are_written() {
        let text = b"*nat\n:KUBE-X - [0:0]\n-A KUBE-X -m comment --comment \"COMMIT\"\nCOMMIT\n*filter\nCOMMIT\nCOMMITS\n";
        for size in 1..text.len() {
            let mut out = Vec::new();
            let mut counter = CommitCounter { out: &mut out, line: Vec::new(), commits: 0 };
            text.chunks(size).for_each(|part| counter.write_all(part).expect("writing to memory"));
            assert_eq!(counter.commits, 2, "in parts of {size} bytes");
            assert_eq!(out, text);
        }
    }

    fn own(tables: u32, uncertain: u32, nat: usize) -> OwnWrites {
        OwnWrites { tables, uncertain, entries: [0, 0, nat] }
    }

    #[test]
    fn more_transactions_than_own_ones_are_of_another_process() {
        let rows = [
            (7, 7, own(0, 0, 0), false, true),
            (7, 9, own(1, 0, 9), false, true),
            (7, 9, own(2, 0, 9), false, true),
            (7, 10, own(1, 0, 9), true, false),
            // Of a rejected write, it is not known which tables the kernel has.
            (7, 8, own(1, 1, 9), true, true),
            (7, 10, own(1, 1, 9), true, false),
            (u32::MAX, 1, own(1, 0, 9), false, true),
            (u32::MAX, 2, own(1, 0, 9), true, false),
        ];
        for (before, now, writes, expected, may_be_own) in rows {
            // Two families, whose tables share the generation.
            let fingerprint = |generation| vec![Fingerprint::Generation(generation); 2];
            let interval = WriteInterval::new(Some(fingerprint(before)), vec![OwnWrites::default(); 2]);
            let disturbed = interval.is_disturbed(Some(&fingerprint(now)), &[writes; 2]);
            assert_eq!(disturbed, expected, "{before} {now} {writes:?}");
            let found = interval.may_be_own(&fingerprint(now), &[writes; 2]);
            assert_eq!(found, may_be_own, "{before} {now} {writes:?}");
        }
    }

    #[test]
    fn unknown_fingerprints_do_not_hide_another_process() {
        let now = [Fingerprint::Generation(1)];
        let interval = WriteInterval::new(None, vec![OwnWrites::default()]);
        assert!(interval.is_disturbed(Some(&now), &[OwnWrites::default()]));
    }

    /// Returns the sizes of tables nat with a number of entries, of which `built_in` are rules of chain PREROUTING.
    fn sizes(entries: u32, built_in: u32) -> Fingerprint {
        let start = built_in * 100;
        let nat = TableInfo {
            valid_hooks: 0b11011,
            hook_entry: [0, start, 0, start + 100, start + 200],
            underflow: [start, start + 50, 0, start + 150, start + 250],
            entries,
            size: entries * 100,
        };
        Fingerprint::Sizes([None, None, Some(nat)])
    }

    #[test]
    fn legacy_tables_that_did_not_grow_as_written_were_written_by_another_process() {
        let before = sizes(10, 1);
        let rows = [
            ("nothing happens", sizes(10, 1), own(0, 0, 0), false),
            ("another process adds a rule", sizes(11, 1), own(0, 0, 0), true),
            ("another process moves a rule to a built-in chain", sizes(10, 2), own(0, 0, 0), true),
            ("we replace rules", sizes(10, 1), own(1, 0, 0), false),
            ("we add five entries", sizes(15, 1), own(1, 0, 5), false),
            ("we add five, another process deletes one", sizes(14, 1), own(1, 0, 5), true),
            ("we add one, another process deletes a jump and adds a rule", sizes(11, 0), own(1, 0, 1), true),
            (
                "we add one, another process deletes the table",
                Fingerprint::Sizes([None; 3]),
                own(1, 0, 1),
                true,
            ),
            ("we restore the jumps", sizes(30, 2), own(1, 1, 5), false),
            ("a tool that wrote nothing was killed", sizes(30, 2), own(0, 1, 0), true),
        ];
        for (what, now, writes, expected) in rows {
            let interval = WriteInterval::new(Some(vec![before]), vec![OwnWrites::default()]);
            assert_eq!(interval.is_disturbed(Some(&[now]), &[writes]), expected, "{what}");
        }
        let interval = WriteInterval::new(Some(vec![before; 2]), vec![OwnWrites::default(); 2]);
        let other_family =
            interval.is_disturbed(Some(&[before, sizes(15, 1)]), &[own(1, 0, 0), own(0, 0, 0)]);
        assert!(other_family, "we wrote to the other family only");
    }
}
