//! Keeps the iptables rules of one family as they must be.

use std::io::{self, Write};

use super::rules;
use crate::iptables::saved_rule::declared_chain;
use crate::iptables::{
    BaseChain, Fingerprint, IptablesKernel, Jump, Snapshot, Table, base_differs, has_synced_since,
};
use crate::mode::{SyncError, TableRuleCounts};

/// The tables with rules of this mode. The packet filter stands before addresses lead anyone here.
pub(super) const TABLES: [Table; 2] = [Table::Filter, Table::Nat];

/// The place of a table in [`TABLES`].
pub(super) fn place(table: Table) -> usize {
    TABLES.iter().position(|t| *t == table).expect("only these have rules")
}

/// The rules of one family.
pub(super) struct RuleSync {
    kernel: Box<dyn IptablesKernel>,
    /// What each of [`TABLES`] must hold, and what it holds.
    tables: [Rules; TABLES.len()],
    /// As it was when all that others had written till then was compared, or is known not to be.
    fingerprint: Option<Fingerprint>,
}

/// The rules of one table.
#[derive(Default)]
struct Rules {
    wanted: Vec<BaseChain>,
    /// What we wrote, or found to be as it must be. Nothing before that.
    written: Vec<BaseChain>,
    /// Nobody else wrote since.
    sure: bool,
    /// Set while the last write has failed: how many external changes were found before it. The kernel may hold part of that
    /// write, so that differences found after it do not prove more.
    found_before_failure: Option<usize>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) lines: usize,
    /// Chains and jumps that somebody else had changed.
    pub(super) repaired: usize,
}

impl RuleSync {
    pub(super) fn new(kernel: Box<dyn IptablesKernel>) -> Self {
        RuleSync { kernel, tables: Default::default(), fingerprint: None }
    }

    /// Takes new rules to be written.
    pub(super) fn set(&mut self, rules: rules::Rules<'_>) {
        let mut chains = rules.chains();
        for (table, rules) in TABLES.into_iter().zip(&mut self.tables) {
            (rules.wanted, chains) = chains.into_iter().partition(|chain| chain.table == table);
        }
    }

    /// Makes the next write compare everything with the kernel.
    pub(super) fn suspect(&mut self) {
        self.tables.iter_mut().for_each(|rules| rules.sure = false);
    }

    /// Whether somebody wrote since we last wrote or compared.
    pub(super) fn somebody_wrote(&self) -> bool {
        self.fingerprint.is_some() && self.kernel.fingerprint() != self.fingerprint
    }

    /// Whether the rules were written or compared at this generation of nf_tables or later.
    pub(super) fn has_synced_since(&self, generation: u32) -> bool {
        has_synced_since(self.kernel.flavour(), self.fingerprint.as_ref(), generation)
    }

    /// Whether a table has none of the chains that are written here, so that no other mode serves by them.
    ///
    /// # Errors
    /// The tool could not be run.
    pub(super) fn is_new(&self, table: Table) -> Result<bool, SyncError> {
        let mut new = true;
        self.kernel.dump(table, &mut |line| {
            new &= !declared_chain(line).is_some_and(|chain| rules::names(table).contains(&chain));
        })?;
        Ok(new)
    }

    /// Writes those of these tables that are not as they must be, in one restore. Says what that did to each.
    ///
    /// # Errors
    /// The tool could not be run, or rejected. The table that it rejected, and those after it, are as they were.
    pub(super) fn write(&mut self, tables: &[Table]) -> Result<Vec<(Table, Wrote)>, SyncError> {
        let outdated = |rules: &Rules| !rules.sure || rules.written != rules.wanted;
        if !tables.iter().any(|table| outdated(&self.tables[place(*table)])) {
            return Ok(Vec::new());
        }
        // Taken first, so that what others write from now on is not taken for what was compared.
        let before = self.kernel.fingerprint();
        if self.fingerprint.is_some() && before != self.fingerprint {
            self.suspect();
        }
        let mut differences = Vec::new();
        for (table, at) in tables.iter().map(|table| (*table, place(*table))) {
            if outdated(&self.tables[at]) {
                match self.tables[at].difference(&*self.kernel, table)? {
                    Some(difference) => differences.push((table, at, difference)),
                    None => self.tables[at].is_right(),
                }
            }
        }
        if differences.is_empty() {
            self.fingerprint = before;
            return Ok(Vec::new());
        }
        let restored = self.kernel.restore(&mut |out| {
            differences.iter().try_for_each(|(table, at, d)| self.tables[*at].write(out, *table, d))
        });
        if let Err(error) = restored {
            for (_, at, difference) in differences {
                self.tables[at].sure = false;
                self.tables[at].found_before_failure = Some(difference.repaired);
            }
            return Err(error);
        }
        let mut wrote = Vec::new();
        for (table, at, difference) in differences {
            self.tables[at].is_right();
            let lines = self.tables[at].count() + difference.missing_jumps.len();
            wrote.push((table, Wrote { lines, repaired: difference.repaired }));
        }
        self.fingerprint = self.kernel.fingerprint();
        Ok(wrote)
    }

    /// How many rules there are, by table.
    pub(super) fn count(&self, written: [usize; TABLES.len()]) -> Vec<TableRuleCounts> {
        let count = |(i, table): (usize, Table)| TableRuleCounts {
            table: table.as_str(),
            in_kernel: self.tables[i].count(),
            written: written[i],
        };
        TABLES.into_iter().enumerate().map(count).collect()
    }
}

/// How a table differs from what it must hold.
#[derive(Default)]
struct Difference {
    missing_jumps: Vec<Jump>,
    /// Chains and jumps that somebody else had changed.
    repaired: usize,
}

impl Rules {
    /// How the kernel differs from what is wanted; `None` if it does not.
    fn difference(&self, kernel: &dyn IptablesKernel, table: Table) -> Result<Option<Difference>, SyncError> {
        if self.sure {
            return Ok(Some(Difference::default()));
        }
        let snapshot = Snapshot::read_table(kernel, table)?;
        let missing = |jump: &Jump| jump.table == table && !snapshot.has_rule(table, jump.from, &jump.rule);
        let missing_jumps: Vec<Jump> = rules::jumps().into_iter().filter(missing).collect();
        let differ = |chains: &[BaseChain]| chains.iter().filter(|c| base_differs(c, &snapshot)).count();
        if missing_jumps.is_empty() && differ(&self.wanted) == 0 {
            return Ok(None);
        }
        let repaired = match self.found_before_failure {
            Some(found) => found,
            // Rules that were there before the first write are no external change.
            None if self.written.is_empty() => 0,
            None => missing_jumps.len() + differ(&self.written),
        };
        Ok(Some(Difference { missing_jumps, repaired }))
    }

    /// Writes the table for a restore.
    fn write(&self, out: &mut dyn Write, table: Table, difference: &Difference) -> io::Result<()> {
        writeln!(out, "*{table}")?;
        for chain in &self.wanted {
            writeln!(out, ":{} - [0:0]", chain.name)?;
        }
        for chain in &self.wanted {
            out.write_all(chain.lines.as_bytes())?;
        }
        // Each goes to the top, so the last written is the first.
        for jump in difference.missing_jumps.iter().rev() {
            writeln!(out, "-I {} 1 {}", jump.from, jump.rule)?;
        }
        writeln!(out, "COMMIT")
    }

    /// Notes that the kernel holds what it must.
    fn is_right(&mut self) {
        (self.written, self.sure, self.found_before_failure) = (self.wanted.clone(), true, None);
    }

    /// How many rules there are.
    fn count(&self) -> usize {
        self.written.iter().map(|chain| chain.lines.lines().count()).sum()
    }
}
