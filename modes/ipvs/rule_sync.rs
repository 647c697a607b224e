//! The iptables rules of one family: writes them, and restores what another process changed.

use std::io::{self, Write};

use super::rules::{self, Rules};
use crate::error::SyncError;
use crate::iptables::saved_rule::declared_chain;
use crate::iptables::{
    BaseChain, Fingerprint, Flavour, IptablesKernel, Jump, OwnWrites, Snapshot, Table, WriteInterval,
    base_differs, has_synced_since,
};
use crate::mode::TableRuleCounts;

/// The tables with rules of this mode, in the order of writing.
pub(super) const TABLES: [Table; 2] = [Table::Filter, Table::Nat];

/// Returns the index of a table in [`TABLES`].
pub(super) fn table_index(table: Table) -> usize {
    TABLES.iter().position(|t| *t == table).expect("this mode has rules in these tables only")
}

/// The rules of one family.
pub(super) struct RuleSync {
    kernel: Box<dyn IptablesKernel>,
    /// In the order of [`TABLES`].
    tables: [TableSync; TABLES.len()],
    /// The options or node facts changed since the rules were rendered.
    is_outdated: bool,
    /// The fingerprint of the kernel's rules when they were last written or compared.
    fingerprint: Option<Fingerprint>,
    /// The fingerprint after a write that was rejected, if own writes alone can have led to it.
    after_rejection: Option<Fingerprint>,
}

/// The rules of one table.
#[derive(Default)]
struct TableSync {
    desired: Vec<BaseChain>,
    /// The chains as last written or found in the kernel; empty before that.
    written: Vec<BaseChain>,
    /// No other process has written since.
    is_verified: bool,
    /// Set after a failed write: the number of external changes that had been found before it. The kernel may have part
    /// of the write, so differences found later do not prove more external changes.
    restored_before_failure: Option<usize>,
}

/// The result of a write to one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableWrite {
    /// The number of rules.
    pub(super) rules: usize,
    /// The number of chains and jumps that another process had changed.
    pub(super) restored: usize,
}

impl RuleSync {
    pub(super) fn new(kernel: Box<dyn IptablesKernel>) -> Self {
        RuleSync {
            kernel,
            tables: Default::default(),
            is_outdated: true,
            fingerprint: None,
            after_rejection: None,
        }
    }

    /// Returns true if [`RuleSync::set_rules`] must be called before the next write.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Notes that options or node facts changed.
    pub(super) fn mark_outdated(&mut self) {
        self.is_outdated = true;
    }

    /// Sets the rules for the next write.
    pub(super) fn set_rules(&mut self, rules: Rules<'_>) {
        self.is_outdated = false;
        let mut chains = rules.chains();
        for (table, sync) in TABLES.into_iter().zip(&mut self.tables) {
            (sync.desired, chains) = chains.into_iter().partition(|chain| chain.table == table);
        }
    }

    /// Makes the next write compare all rules with the kernel.
    pub(super) fn mark_unverified(&mut self) {
        self.tables.iter_mut().for_each(|sync| sync.is_verified = false);
    }

    /// Returns true if another process may have written rules since the last write or comparison.
    pub(super) fn has_external_changes(&self) -> bool {
        self.fingerprint.is_some() && self.kernel.fingerprint() != self.fingerprint
    }

    /// Returns true if the rules were written or compared at this generation of nf_tables or later.
    pub(super) fn has_synced_since(&self, generation: u32) -> bool {
        has_synced_since(self.fingerprint.as_slice(), generation)
    }

    /// Returns true if nothing shows that another process wrote until this nf_tables generation, as the last write was rejected in part.
    pub(super) fn may_be_own_write(&self, generation: u32) -> bool {
        has_synced_since(self.after_rejection.as_slice(), generation)
    }

    /// Returns true if a table has none of this mode's chains, which other modes may have, too.
    ///
    /// # Errors
    /// iptables could not be run.
    pub(super) fn has_no_chains(&self, table: Table) -> Result<bool, SyncError> {
        let mut has_none = true;
        self.kernel.dump(table, &mut |line| {
            has_none &= !declared_chain(line).is_some_and(|chain| rules::names(table).contains(&chain));
        })?;
        Ok(has_none)
    }

    /// Writes those of `tables` that differ from the desired rules, in one restore. Returns the written tables.
    ///
    /// # Errors
    /// iptables could not be run, or rejected the rules. The rejected table and those after it are unchanged.
    pub(super) fn write(&mut self, tables: &[Table]) -> Result<Vec<(Table, TableWrite)>, SyncError> {
        let needs_write = |sync: &TableSync| !sync.is_verified || sync.written != sync.desired;
        if !tables.iter().any(|table| needs_write(&self.tables[table_index(*table)])) {
            return Ok(Vec::new());
        }
        // Read first: external changes during the comparison must change the fingerprint.
        let before = self.kernel.fingerprint();
        let interval =
            WriteInterval::new(before.map(|fingerprint| vec![fingerprint]), vec![OwnWrites::default()]);
        self.after_rejection = None;
        if self.fingerprint.is_some() && before != self.fingerprint {
            self.mark_unverified();
        }
        let mut diffs = Vec::new();
        for (table, index) in tables.iter().map(|table| (*table, table_index(*table))) {
            if needs_write(&self.tables[index]) {
                match self.tables[index].compare(&*self.kernel, table)? {
                    Some(diff) => diffs.push((table, index, diff)),
                    None => self.tables[index].mark_written(),
                }
            }
        }
        if diffs.is_empty() {
            self.fingerprint = before;
            return Ok(Vec::new());
        }
        // What the rules add to legacy tables is not counted.
        let uncertain = u32::from(self.kernel.flavour() == Flavour::Legacy);
        let own = OwnWrites { tables: diffs.len() as u32, uncertain, ..OwnWrites::default() };
        let written = self.kernel.restore(&mut |out| {
            diffs.iter().try_for_each(|(table, index, diff)| self.tables[*index].write(out, *table, diff))
        });
        if let Err(error) = written {
            for (_, index, diff) in diffs {
                self.tables[index].is_verified = false;
                self.tables[index].restored_before_failure = Some(diff.restored);
            }
            let after = self.kernel.fingerprint();
            self.after_rejection =
                after.filter(|after| interval.may_be_own(std::slice::from_ref(after), &[own]));
            return Err(error.into());
        }
        let mut written = Vec::new();
        for (table, index, diff) in diffs {
            self.tables[index].mark_written();
            let rules = self.tables[index].count() + diff.missing_jumps.len();
            written.push((table, TableWrite { rules, restored: diff.restored }));
        }
        let after = self.kernel.fingerprint();
        // If another process wrote at the same time, the next check compares the rules.
        let is_disturbed = interval.is_disturbed(after.as_ref().map(std::slice::from_ref), &[own]);
        self.fingerprint = if is_disturbed { before } else { after };
        if self.kernel.flavour() == Flavour::Legacy {
            // The write may hide one of another process. The tables are small, so the next write compares them.
            self.mark_unverified();
        }
        Ok(written)
    }

    /// Returns the number of rules by table. `written` is the number of those that a sync wrote.
    pub(super) fn count(&self, written: [usize; TABLES.len()]) -> Vec<TableRuleCounts> {
        let count = |(i, table): (usize, Table)| TableRuleCounts {
            table: table.as_str(),
            in_kernel: self.tables[i].count(),
            written: written[i],
        };
        TABLES.into_iter().enumerate().map(count).collect()
    }
}

/// The differences between a table and its desired rules.
#[derive(Default)]
struct TableDiff {
    missing_jumps: Vec<Jump>,
    /// The number of chains and jumps that another process changed.
    restored: usize,
}

impl TableSync {
    /// Compares the table with the desired rules; `None` if there is no difference.
    fn compare(&self, kernel: &dyn IptablesKernel, table: Table) -> Result<Option<TableDiff>, SyncError> {
        if self.is_verified {
            return Ok(Some(TableDiff::default()));
        }
        let snapshot = Snapshot::read_table(kernel, table)?;
        let is_missing =
            |jump: &Jump| jump.table == table && !snapshot.has_rule(table, jump.from, &jump.rule);
        let missing_jumps: Vec<Jump> = rules::jumps().into_iter().filter(is_missing).collect();
        let differing = |chains: &[BaseChain]| chains.iter().filter(|c| base_differs(c, &snapshot)).count();
        if missing_jumps.is_empty() && differing(&self.desired) == 0 {
            return Ok(None);
        }
        let restored = match self.restored_before_failure {
            Some(restored) => restored,
            // Rules from before the first write are no external change.
            None if self.written.is_empty() => 0,
            None => missing_jumps.len() + differing(&self.written),
        };
        Ok(Some(TableDiff { missing_jumps, restored }))
    }

    /// Writes the table in the format of iptables-restore.
    fn write(&self, out: &mut dyn Write, table: Table, diff: &TableDiff) -> io::Result<()> {
        writeln!(out, "*{table}")?;
        for chain in &self.desired {
            writeln!(out, ":{} - [0:0]", chain.name)?;
        }
        for chain in &self.desired {
            out.write_all(chain.lines.as_bytes())?;
        }
        // Each jump is inserted at the top, so the last one written comes first.
        for jump in diff.missing_jumps.iter().rev() {
            writeln!(out, "-I {} 1 {}", jump.from, jump.rule)?;
        }
        writeln!(out, "COMMIT")
    }

    /// Notes that the kernel has the desired rules.
    fn mark_written(&mut self) {
        (self.written, self.is_verified, self.restored_before_failure) = (self.desired.clone(), true, None);
    }

    /// Returns the number of rules.
    fn count(&self) -> usize {
        self.written.iter().map(|chain| chain.lines.lines().count()).sum()
    }
}
