//! Commits: the transactions that give the kernel's table the desired contents.
//!
//! ```text
//! contents known    ─► the edits ──────────────┐ rejected
//! contents unknown  ─► read the table, compare ◄┘─► the differences ─ rejected ─► replace the table
//! ```
//! Large new sets are filled in transactions of their own, before any rule uses them; with [`DesiredTable::split_map_changes`]
//! also large additions to existing maps, and large deletions follow in transactions of their own. With
//! [`DesiredTable::ranges_before_elements`], new ranges of existing sets are written first.

use std::borrow::Borrow;

use super::desired_table::DesiredTable;
use super::dump;
use super::element::{Element, Key};
use super::event_pause::EventPause;
use super::range_order::is_ordered;
use super::set::SetSpec;
use super::table_diff::{ChangeCounts, TableDiff, is_compatible, pairs_of};
use super::transaction::Transaction;
use crate::error::{Error, Result};
use crate::socket::Socket;

const ACTION: &str = "write an nf_tables table";

/// The bytes of elements of new sets in one transaction. While a process subscribes to nf_tables events, the kernel allocates
/// a message of 4 KiB per element before it sends the first: 400 MB for 100,000 elements.
const MAX_ELEMENT_BYTES: usize = 128 << 10;

/// The number of elements from which this process's subscriptions to nf_tables events pause.
const QUIET_ELEMENTS: usize = 1000;

/// The number of elements between two checks of [`MAX_ELEMENT_BYTES`].
const ELEMENT_CHUNK: usize = 1000;

/// The effects of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// The objects that were changed in the kernel.
    pub changes: ChangeCounts,
    /// The whole table was compared with the kernel, not only the edits.
    pub full: bool,
    /// The table was replaced in one transaction, because the one in the kernel could not be changed.
    pub replaced: bool,
    /// The bytes that were sent.
    pub bytes: usize,
}

/// Gives the kernel's table the desired contents. If the kernel rejects the edits, compares the table with the kernel; if it
/// rejects the differences, or the table cannot be read, replaces the table in one transaction. So changes of other
/// processes cannot make a commit fail.
///
/// # Errors
/// [`crate::Error::Object`] for an object of the desired table that the kernel rejects. The kernel then has the previous
/// contents, perhaps with new objects that no rule uses, and the next commit compares the whole table.
pub fn commit(socket: &mut Socket, table: &mut DesiredTable) -> Result<CommitSummary> {
    let result = write(socket, table);
    table.record_commit(result.is_ok());
    result
}

/// Has the kernel validate the edits without applying them, or the whole table if the contents in the kernel are unknown.
///
/// # Errors
/// As [`commit`].
pub fn check_edits(socket: &mut Socket, table: &DesiredTable) -> Result<()> {
    match Plan::from_edits(table) {
        Some(plan) => plan.check(socket),
        None => check_replacement(socket, table),
    }
}

/// Has the kernel validate the whole table as a replacement of the existing one, without applying it. Changes of other
/// processes do not influence the result.
///
/// # Errors
/// As [`commit`].
pub fn check_replacement(socket: &mut Socket, table: &DesiredTable) -> Result<()> {
    Plan::replacement(table).check(socket)
}

/// Compares the kernel's table with the desired contents. Returns the number of differing objects.
///
/// # Errors
/// As [`super::read`].
pub fn compare(socket: &mut Socket, table: &DesiredTable) -> Result<ChangeCounts> {
    let desired = table.desired();
    let found = dump::read(socket, desired.family, &desired.name)?;
    let mut counts = TableDiff::between(found.as_ref().map(|(table, _)| table), desired).counts();
    if let Some((found, unknown)) = &found {
        counts.chains += unknown.len() + usize::from(!is_compatible(found, desired));
    }
    Ok(counts)
}

fn write(socket: &mut Socket, table: &DesiredTable) -> Result<CommitSummary> {
    if let Some(plan) = Plan::from_edits(table) {
        match plan.send(socket, false) {
            Err(error) if error.may_be_external() => {}
            result => return result,
        }
    }
    let desired = table.desired();
    let found = match dump::read(socket, desired.family, &desired.name) {
        Ok(found) => found,
        Err(Error::Malformed { .. }) => return Plan::replacement(table).send(socket, true),
        Err(error) => return Err(error),
    };
    let plan = match &found {
        None => Plan { table, diff: TableDiff::between(None, desired), existing: Existing::None },
        Some((found, unknown)) if unknown.is_empty() && is_compatible(found, desired) => {
            Plan { table, diff: TableDiff::between(Some(found), desired), existing: Existing::Compatible }
        }
        Some(_) => Plan::replacement(table),
    };
    match plan.send(socket, true) {
        Err(error) if plan.existing == Existing::Compatible && error.may_be_external() => {
            Plan::replacement(table).send(socket, true)
        }
        result => result,
    }
}

/// The table in the kernel before a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    None,
    /// It can be changed into the desired one.
    Compatible,
    /// It cannot be changed, or is unknown: it is replaced, if it exists.
    Incompatible,
}

/// The changes of a commit.
struct Plan<'a> {
    table: &'a DesiredTable,
    diff: TableDiff<'a>,
    existing: Existing,
}

impl<'a> Plan<'a> {
    fn from_edits(table: &'a DesiredTable) -> Option<Self> {
        table.edits().map(|diff| Plan { table, diff, existing: Existing::Compatible })
    }

    fn replacement(table: &'a DesiredTable) -> Self {
        Plan { table, diff: TableDiff::between(None, table.desired()), existing: Existing::Incompatible }
    }

    fn check(&self, socket: &mut Socket) -> Result<()> {
        let mut transaction = self.begin()?;
        self.diff.write_new_objects(&mut transaction)?;
        for (name, spec, elements) in self.diff.new_elements() {
            transaction.add_elements(name, spec, elements)?;
        }
        self.diff.write_new_rules(&mut transaction)?;
        self.diff.write_element_changes(&mut transaction, |_| true)?;
        self.diff.write_rule_changes(&mut transaction)?;
        self.diff.write_deletions(&mut transaction)?;
        transaction.check(socket)
    }

    fn send(&self, socket: &mut Socket, full: bool) -> Result<CommitSummary> {
        if self.diff.elements() < QUIET_ELEMENTS {
            return self.send_all(socket, full);
        }
        let pause = EventPause::begin(socket);
        let sent = self.send_all(socket, full);
        if let Some(pause) = pause {
            pause.end(socket);
        }
        sent
    }

    fn send_all(&self, socket: &mut Socket, full: bool) -> Result<CommitSummary> {
        let diff = &self.diff;
        // A replacement deletes the existing table, so it must be a single transaction.
        let may_split = self.existing != Existing::Incompatible;
        let splits_maps =
            may_split && self.table.splits_map_changes() && diff.changed_map_values() > ELEMENT_CHUNK;
        let ranges_first = may_split && self.table.has_ranges_before_elements() && diff.adds_ranges();
        let mut sender = Sender { plan: self, socket, transaction: self.begin()?, bytes: 0 };
        if ranges_first {
            diff.write_added_ranges(&mut sender.transaction)?;
            sender.commit_part()?;
        }
        diff.write_new_objects(&mut sender.transaction)?;
        for (name, spec, elements) in diff.new_elements() {
            sender.add_elements(name, spec, elements.iter())?;
        }
        for (name, spec, elements) in splits_maps.then(|| diff.added_map_values()).into_iter().flatten() {
            sender.add_elements(name, spec, elements.into_iter().map(|(key, element)| (key, element)))?;
        }
        diff.write_new_rules(&mut sender.transaction)?;
        let rules_first = self.table.has_rules_before_elements() && diff.changes_rules_and_deletes_elements();
        if rules_first {
            diff.write_rule_changes(&mut sender.transaction)?;
        }
        if may_split && (rules_first || diff.has_verdicts_to_new_chains()) {
            sender.commit_part()?;
        }
        diff.write_element_changes(&mut sender.transaction, |spec| {
            !(splits_maps && spec.is_value_map() || ranges_first && is_ordered(spec))
        })?;
        if ranges_first {
            diff.write_deleted_ranges(&mut sender.transaction)?;
        }
        if splits_maps {
            diff.write_replaced_map_values(&mut sender.transaction)?;
        }
        if !rules_first {
            diff.write_rule_changes(&mut sender.transaction)?;
        }
        for (name, spec, elements) in splits_maps.then(|| diff.deleted_map_values()).into_iter().flatten() {
            for chunk in elements.chunks(ELEMENT_CHUNK) {
                sender.commit_part()?;
                sender.transaction.delete_elements(name, spec, pairs_of(chunk.iter().copied()))?;
            }
        }
        diff.write_deletions(&mut sender.transaction)?;
        let bytes = sender.finish()?;
        Ok(CommitSummary { changes: diff.counts(), full, replaced: !may_split, bytes })
    }

    fn begin(&self) -> Result<Transaction> {
        let mut transaction = self.transaction()?;
        if self.existing == Existing::Incompatible {
            // Add the table first: deleting a missing table is an error.
            transaction.add_table(None)?;
            transaction.delete_table()?;
        }
        if self.existing != Existing::Compatible {
            transaction.add_table(self.table.desired().comment.as_deref())?;
        }
        Ok(transaction)
    }

    fn transaction(&self) -> Result<Transaction> {
        let desired = self.table.desired();
        Transaction::new(ACTION, desired.family, &desired.name)
    }
}

/// The transactions of a plan, which are sent one after the other.
struct Sender<'p, 's> {
    plan: &'p Plan<'p>,
    socket: &'s mut Socket,
    /// The transaction that is not sent yet.
    transaction: Transaction,
    /// The bytes of the transactions that were sent.
    bytes: usize,
}

impl Sender<'_, '_> {
    /// Adds elements, in several transactions if there are many and the plan may be split.
    fn add_elements<K: Borrow<Key>, E: Borrow<Element>>(
        &mut self,
        set: &str,
        spec: &SetSpec,
        mut elements: impl ExactSizeIterator<Item = (K, E)>,
    ) -> Result<()> {
        while elements.len() > 0 {
            self.transaction.add_elements(set, spec, elements.by_ref().take(ELEMENT_CHUNK))?;
            if self.transaction.size() >= MAX_ELEMENT_BYTES && self.plan.existing != Existing::Incompatible {
                self.commit_part()?;
            }
        }
        Ok(())
    }

    /// Commits the transaction and begins the next one.
    fn commit_part(&mut self) -> Result<()> {
        self.bytes += self.transaction.size();
        std::mem::replace(&mut self.transaction, self.plan.transaction()?).commit(self.socket)
    }

    /// Commits the last transaction. Returns the bytes of all.
    fn finish(self) -> Result<usize> {
        let last = if self.transaction.is_empty() { 0 } else { self.transaction.size() };
        self.transaction.commit(self.socket)?;
        Ok(self.bytes + last)
    }
}
