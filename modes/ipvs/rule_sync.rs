//! Keeps the iptables rules of one family as they must be.

use super::rules::{self, Rules};
use crate::iptables::{BaseChain, Fingerprint, Kernel, Snapshot, Table, base_differs};
use crate::mode::{SyncError, TableRules};

/// The tables with rules of this mode. The packet filter stands before addresses lead anyone here.
pub(super) const TABLES: [Table; 2] = [Table::Filter, Table::Nat];

/// The rules of one family, as they were last written.
pub(super) struct RuleSync {
    kernel: Box<dyn Kernel>,
    /// What each of [`TABLES`] must hold, and whether it does.
    tables: [Written; TABLES.len()],
    /// As it was when all that others had written till then was compared, or is known not to be.
    fingerprint: Option<Fingerprint>,
}

#[derive(Default)]
struct Written {
    chains: Vec<BaseChain>,
    state: State,
    rules: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Only the kernel knows.
    #[default]
    Unknown,
    /// The kernel holds what was last written, which is not what must be.
    Changed,
    /// The kernel holds what must be.
    Right,
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
    pub(super) fn set(&mut self, rules: Rules<'_>) {
        let mut chains = rules.chains();
        for (table, written) in TABLES.into_iter().zip(&mut self.tables) {
            let (own, rest): (Vec<_>, Vec<_>) = chains.into_iter().partition(|c| c.table == table);
            chains = rest;
            if same(&own, &written.chains) {
                continue;
            }
            written.rules = own.iter().map(|c| c.lines.lines().count()).sum();
            written.chains = own;
            if written.state == State::Right {
                written.state = State::Changed;
            }
        }
    }

    /// Makes the next write compare everything with the kernel.
    pub(super) fn suspect(&mut self) {
        self.tables.iter_mut().for_each(|written| written.state = State::Unknown);
    }

    /// Whether somebody wrote since we last wrote or compared.
    pub(super) fn somebody_wrote(&self) -> bool {
        self.fingerprint.is_some() && self.kernel.fingerprint() != self.fingerprint
    }

    /// Writes a table, if it is not as it must be. `first`: what differs is not somebody's damage.
    ///
    /// # Errors
    /// The tool could not be run, or refused.
    pub(super) fn write(&mut self, table: Table, first: bool) -> Result<Wrote, SyncError> {
        let at = TABLES.iter().position(|t| *t == table).expect("only these have rules");
        if self.tables[at].state == State::Right {
            return Ok(Wrote::default());
        }
        // Taken first, so that what others write from now on is not taken for what was compared.
        let before = self.kernel.fingerprint();
        if self.fingerprint.is_some() && before != self.fingerprint {
            self.suspect();
        }
        let (repaired, missing_jumps) = match self.tables[at].state {
            State::Right | State::Changed => (0, Vec::new()),
            State::Unknown => {
                let snapshot = Snapshot::read_table(&*self.kernel, table)?;
                let jumps = rules::jumps().into_iter().filter(|j| j.table == table);
                let missing: Vec<_> = jumps.filter(|j| !snapshot.has_rule(table, j.from, &j.rule)).collect();
                let differ = self.tables[at].chains.iter().filter(|c| base_differs(c, &snapshot)).count();
                if missing.is_empty() && differ == 0 {
                    self.tables[at].state = State::Right;
                    self.fingerprint = before;
                    return Ok(Wrote::default());
                }
                (missing.len() + differ, missing)
            }
        };
        let chains = &self.tables[at].chains;
        let mut lines = 0;
        self.kernel.restore(&mut |out| {
            writeln!(out, "*{table}")?;
            for chain in chains {
                writeln!(out, ":{} - [0:0]", chain.name)?;
            }
            for chain in chains {
                out.write_all(chain.lines.as_bytes())?;
            }
            // Each goes to the top, so the last written is the first.
            for jump in missing_jumps.iter().rev() {
                writeln!(out, "-I {} 1 {}", jump.from, jump.rule)?;
            }
            lines = self.tables[at].rules + missing_jumps.len();
            writeln!(out, "COMMIT")
        })?;
        self.tables[at].state = State::Right;
        self.fingerprint = self.kernel.fingerprint();
        Ok(Wrote { lines, repaired: if first { 0 } else { repaired } })
    }

    /// How many rules there are, by table.
    pub(super) fn count(&self, written: [usize; TABLES.len()]) -> Vec<TableRules> {
        let count = |(i, table): (usize, Table)| TableRules {
            table: table.as_str(),
            in_kernel: self.tables[i].rules,
            written: written[i],
        };
        TABLES.into_iter().enumerate().map(count).collect()
    }
}

fn same(a: &[BaseChain], b: &[BaseChain]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.lines == b.lines)
}
