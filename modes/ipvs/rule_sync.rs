//! Keeps the iptables rules of one family as they must be.

use super::rules;
use crate::iptables::{BaseChain, Fingerprint, Kernel, Snapshot, Table, base_differs};
use crate::mode::{SyncError, TableRules};

/// The tables with rules of this mode. The packet filter stands before addresses lead anyone here.
pub(super) const TABLES: [Table; 2] = [Table::Filter, Table::Nat];

/// The rules of one family.
pub(super) struct RuleSync {
    kernel: Box<dyn Kernel>,
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
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) lines: usize,
    /// Chains and jumps that somebody else had changed.
    pub(super) repaired: usize,
}

impl RuleSync {
    pub(super) fn new(kernel: Box<dyn Kernel>) -> Self {
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

    /// Writes a table, if it is not as it must be.
    ///
    /// # Errors
    /// The tool could not be run, or refused. The table is as it was.
    pub(super) fn write(&mut self, table: Table) -> Result<Wrote, SyncError> {
        let at = TABLES.iter().position(|t| *t == table).expect("only these have rules");
        if self.tables[at].sure && self.tables[at].written == self.tables[at].wanted {
            return Ok(Wrote::default());
        }
        // Taken first, so that what others write from now on is not taken for what was compared.
        let before = self.kernel.fingerprint();
        if self.fingerprint.is_some() && before != self.fingerprint {
            self.suspect();
        }
        let rules = &mut self.tables[at];
        let (mut missing_jumps, mut repaired) = (Vec::new(), 0);
        if !rules.sure {
            let snapshot = Snapshot::read_table(&*self.kernel, table)?;
            let jumps = rules::jumps().into_iter().filter(|j| j.table == table);
            missing_jumps.extend(jumps.filter(|j| !snapshot.has_rule(table, j.from, &j.rule)));
            let differ = |chains: &[BaseChain]| chains.iter().filter(|c| base_differs(c, &snapshot)).count();
            if missing_jumps.is_empty() && differ(&rules.wanted) == 0 {
                rules.is_right();
                self.fingerprint = before;
                return Ok(Wrote::default());
            }
            // What was there before we first wrote is nobody's damage.
            if !rules.written.is_empty() {
                repaired = missing_jumps.len() + differ(&rules.written);
            }
        }
        self.kernel.restore(&mut |out| {
            writeln!(out, "*{table}")?;
            for chain in &rules.wanted {
                writeln!(out, ":{} - [0:0]", chain.name)?;
            }
            for chain in &rules.wanted {
                out.write_all(chain.lines.as_bytes())?;
            }
            // Each goes to the top, so the last written is the first.
            for jump in missing_jumps.iter().rev() {
                writeln!(out, "-I {} 1 {}", jump.from, jump.rule)?;
            }
            writeln!(out, "COMMIT")
        })?;
        rules.is_right();
        self.fingerprint = self.kernel.fingerprint();
        Ok(Wrote { lines: self.tables[at].count() + missing_jumps.len(), repaired })
    }

    /// How many rules there are, by table.
    pub(super) fn count(&self, written: [usize; TABLES.len()]) -> Vec<TableRules> {
        let count = |(i, table): (usize, Table)| TableRules {
            table: table.as_str(),
            in_kernel: self.tables[i].count(),
            written: written[i],
        };
        TABLES.into_iter().enumerate().map(count).collect()
    }
}

impl Rules {
    /// Notes that the kernel holds what it must.
    fn is_right(&mut self) {
        (self.written, self.sure) = (self.wanted.clone(), true);
    }

    /// How many rules there are.
    fn count(&self) -> usize {
        self.written.iter().map(|chain| chain.lines.lines().count()).sum()
    }
}
