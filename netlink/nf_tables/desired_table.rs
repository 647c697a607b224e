//! A table that we keep as we want it.
//!
//! ```text
//! edits ─► desired state, and what each edited thing was ─► commit ─► one transaction of what differs
//!                                                             └ not sure what the kernel holds: read it, compare all
//! ```
//! The cost of a commit follows the size of the edits. After a failure the edits wait for the next one. What is new and
//! large goes ahead in transactions of its own: nothing leads to it before the last one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::dump;
use super::element::{Element, Key};
use super::set::SetSpec;
use super::table::{Chain, Set, Table, TableFamily};
use super::table_diff::{Change, ChangeCounts, ElementChanges, TableDiff, same_kinds};
use super::transaction::Transaction;
use crate::error::{Error, Result};
use crate::socket::Socket;

/// A table with the edits that the kernel has not seen yet.
#[derive(Debug)]
pub struct DesiredTable {
    desired: Table,
    /// What each thing was in the kernel that was edited since: `None` if it was not there.
    chains: BTreeMap<Arc<str>, Option<Chain>>,
    sets: BTreeMap<Arc<str>, Option<Set>>,
    counters: BTreeMap<Arc<str>, bool>,
    /// Of sets that were there and stay.
    elements: BTreeMap<Arc<str>, HashMap<Key, Option<Element>>>,
    /// The kernel holds what was last committed.
    known: bool,
    /// Rules change before elements go that the old ones may look for.
    rules_before_elements: bool,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// What was changed in the kernel.
    pub changes: ChangeCounts,
    /// All was compared with the kernel, not only what was edited.
    pub full: bool,
    /// The whole table was replaced in one transaction, as the one in the kernel could not be changed into what is wanted.
    pub replaced: bool,
    /// Bytes sent.
    pub bytes: usize,
}

const ACTION: &str = "write an nf_tables table";

/// So many bytes of elements of new sets go into one transaction. While anyone on the machine listens to changes, the
/// kernel makes a message of 4 KiB for each element before it sends the first: 400 MB for 100,000.
const PIECE_BYTES: usize = 128 << 10;

/// After so many elements is looked how many bytes they are.
const PIECE: usize = 1000;

/// What there is of a table before a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// It can be made into what is wanted.
    Fit,
    /// It cannot, or is not known: it is replaced, if there is one.
    Unfit,
}

/// A difference that is to be written, into what.
type Plan<'a> = (TableDiff<'a>, There);

impl DesiredTable {
    /// Nothing, of which is not known whether the kernel holds something else.
    pub fn new(family: TableFamily, name: &str) -> Self {
        DesiredTable {
            desired: Table::new(family, name),
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            counters: BTreeMap::new(),
            elements: BTreeMap::new(),
            known: false,
            rules_before_elements: false,
        }
    }

    /// Has the rules of chains that stay change in a transaction before the one in which elements go. A transaction takes
    /// effect at one moment, but not for a packet that is under way: it goes on by the rules by which it began, and finds
    /// the elements that there are. For tables where new rules may meet old elements, but not the other way round.
    pub fn rules_before_elements(&mut self) {
        self.rules_before_elements = true;
    }

    /// What the kernel should hold.
    pub fn desired(&self) -> &Table {
        &self.desired
    }

    /// What is said of the table; counts only when it is made.
    pub fn set_comment(&mut self, comment: &str) {
        self.desired.comment = Some(super::comment::shortened(comment).into());
    }

    /// Whether there is something that the kernel does not have yet, or may not have.
    pub fn is_dirty(&self) -> bool {
        let edits = self.chains.len() + self.sets.len() + self.counters.len() + self.elements.len();
        !self.known || edits > 0
    }

    /// Forgets what the kernel is believed to hold: the next commit reads it.
    pub fn invalidate(&mut self) {
        self.known = false;
    }

    /// Makes a chain, or gives it other rules.
    pub fn put_chain(&mut self, name: &Arc<str>, chain: Chain) {
        if self.desired.chains.get(name).is_some_and(|there| *there == chain) {
            return;
        }
        let before = self.desired.chains.insert(Arc::clone(name), chain);
        self.chains.entry(Arc::clone(name)).or_insert(before);
    }

    /// Removes a chain.
    pub fn remove_chain(&mut self, name: &str) {
        if let Some((name, before)) = self.desired.chains.remove_entry(name) {
            self.chains.entry(name).or_insert(Some(before));
        }
    }

    /// Makes a set, with its elements. One that is there and of the same kind gets these elements.
    pub fn put_set(&mut self, name: &Arc<str>, set: Set) {
        if let Some(there) = self.desired.sets.get(name)
            && there.spec == set.spec
        {
            let gone: Vec<Key> =
                there.elements.keys().filter(|key| !set.elements.contains_key(*key)).cloned().collect();
            gone.iter().for_each(|key| self.remove_element(name, key));
            set.elements.into_iter().for_each(|(key, element)| self.put_element(name, key, element));
            return;
        }
        let before = self.desired.sets.insert(Arc::clone(name), set);
        self.remember_set(Arc::clone(name), before);
    }

    /// Removes a set.
    pub fn remove_set(&mut self, name: &str) {
        if let Some((name, before)) = self.desired.sets.remove_entry(name) {
            self.remember_set(name, Some(before));
        }
    }

    /// Notes what a set was that comes or goes as a whole, with the elements that the kernel has of it.
    fn remember_set(&mut self, name: Arc<str>, mut before: Option<Set>) {
        if let (Some(edited), Some(before)) = (self.elements.remove(&name), &mut before) {
            for (key, element) in edited {
                match element {
                    Some(element) => _ = before.elements.insert(key, element),
                    None => _ = before.elements.remove(&key),
                }
            }
        }
        self.sets.entry(name).or_insert(before);
    }

    /// Puts an element into a set that is there.
    pub fn put_element(&mut self, set: &Arc<str>, key: Key, element: Element) {
        let Some(there) = self.desired.sets.get_mut(set) else { return };
        if there.elements.get(&key).is_some_and(|same| *same == element) {
            return;
        }
        let before = there.elements.insert(key.clone(), element);
        self.remember_element(set, key, before);
    }

    /// Takes an element out of a set.
    pub fn remove_element(&mut self, set: &Arc<str>, key: &Key) {
        let Some(there) = self.desired.sets.get_mut(set) else { return };
        if let Some((key, before)) = there.elements.remove_entry(key) {
            self.remember_element(set, key, Some(before));
        }
    }

    fn remember_element(&mut self, set: &Arc<str>, key: Key, before: Option<Element>) {
        // Of a set that is new to the kernel all elements are new.
        if !self.sets.contains_key(set) {
            self.elements.entry(Arc::clone(set)).or_default().entry(key).or_insert(before);
        }
    }

    /// Makes a counter.
    pub fn put_counter(&mut self, name: &Arc<str>, comment: Option<&str>) {
        let comment = comment.map(|comment| super::comment::shortened(comment).into());
        if self.desired.counters.insert(Arc::clone(name), comment).is_none() {
            self.counters.entry(Arc::clone(name)).or_insert(false);
        }
    }

    /// Removes a counter.
    pub fn remove_counter(&mut self, name: &str) {
        if let Some((name, _)) = self.desired.counters.remove_entry(name) {
            self.counters.entry(name).or_insert(true);
        }
    }

    /// Makes the kernel hold what is wanted. If the kernel rejects the change, the table is compared with the kernel, and
    /// if it rejects the difference, or the table cannot be read, the table is replaced in one transaction: what another
    /// process put there can reject neither.
    ///
    /// # Errors
    /// [`crate::Error::Object`] for an object of the wanted table that the kernel rejects; it then holds what it held, or
    /// that and parts to which nothing leads, and the next commit compares all.
    pub fn commit(&mut self, socket: &mut Socket) -> Result<CommitSummary> {
        let committed = self.write(socket);
        self.known = committed.is_ok();
        if self.known {
            self.chains.clear();
            self.sets.clear();
            self.counters.clear();
            self.elements.clear();
        }
        committed
    }

    fn write(&self, socket: &mut Socket) -> Result<CommitSummary> {
        if let Some(plan) = self.plan_of_edits() {
            match self.send(socket, &plan, false) {
                Err(error) if error.may_be_external() => {}
                done => return done,
            }
        }
        let found = match dump::read(socket, self.desired.family, &self.desired.name) {
            Ok(found) => found,
            Err(Error::Malformed { .. }) => return self.send(socket, &self.plan_of_replacement(), true),
            Err(error) => return Err(error),
        };
        let plan = match &found {
            None => (TableDiff::between(None, &self.desired), There::Nothing),
            Some((table, foreign)) if foreign.is_empty() && same_kinds(table, &self.desired) => {
                (TableDiff::between(Some(table), &self.desired), There::Fit)
            }
            Some(_) => self.plan_of_replacement(),
        };
        match self.send(socket, &plan, true) {
            Err(error) if plan.1 == There::Fit && error.may_be_external() => {
                self.send(socket, &self.plan_of_replacement(), true)
            }
            done => done,
        }
    }

    /// Has the kernel check the edits, without making them; if it is not known what the kernel holds, the whole table in
    /// place of the one there.
    ///
    /// # Errors
    /// As [`DesiredTable::commit`].
    pub fn check_edits(&self, socket: &mut Socket) -> Result<()> {
        match self.plan_of_edits() {
            Some(plan) => self.check_plan(socket, &plan),
            None => self.check_replacement(socket),
        }
    }

    /// Has the kernel check the whole table in place of the one there, without replacing it. What another process put
    /// into that one has no part in the result.
    ///
    /// # Errors
    /// As [`DesiredTable::commit`].
    pub fn check_replacement(&self, socket: &mut Socket) -> Result<()> {
        self.check_plan(socket, &self.plan_of_replacement())
    }

    fn check_plan(&self, socket: &mut Socket, (difference, there): &Plan<'_>) -> Result<()> {
        let mut transaction = self.begin(*there)?;
        difference.write_new(&mut transaction)?;
        for (name, spec, elements) in difference.new_elements() {
            transaction.add_elements(name, spec, elements.iter().copied())?;
        }
        difference.write_new_rules(&mut transaction)?;
        difference.write_elements(&mut transaction)?;
        difference.write_other_rules(&mut transaction)?;
        difference.write_removals(&mut transaction)?;
        transaction.check(socket)
    }

    /// What to do if the kernel holds what was last committed; `None` if that is not known, or cannot be made into what
    /// is wanted.
    fn plan_of_edits(&self) -> Option<Plan<'_>> {
        (self.known && self.edits_keep_kinds()).then(|| (self.edits(), There::Fit))
    }

    fn plan_of_replacement(&self) -> Plan<'_> {
        (TableDiff::between(None, &self.desired), There::Unfit)
    }

    /// Whether nothing that is there would have to be of another kind.
    fn edits_keep_kinds(&self) -> bool {
        let chain = |(name, before): (&Arc<str>, &Option<Chain>)| {
            let after = self.desired.chains.get(name);
            before.as_ref().zip(after).is_none_or(|(before, after)| before.base == after.base)
        };
        let set = |(name, before): (&Arc<str>, &Option<Set>)| {
            let after = self.desired.sets.get(name);
            before.as_ref().zip(after).is_none_or(|(before, after)| before.spec == after.spec)
        };
        self.chains.iter().all(chain) && self.sets.iter().all(set)
    }

    fn send(&self, socket: &mut Socket, (difference, there): &Plan<'_>, full: bool) -> Result<CommitSummary> {
        let there = *there;
        let mut bytes = 0;
        let mut transaction = self.begin(there)?;
        difference.write_new(&mut transaction)?;
        for (name, spec, elements) in difference.new_elements() {
            for piece in elements.chunks(PIECE) {
                transaction.add_elements(name, spec, piece.iter().copied())?;
                // Where a table goes, it goes with all that takes its place.
                if transaction.size() >= PIECE_BYTES && there != There::Unfit {
                    bytes += transaction.size();
                    std::mem::replace(&mut transaction, self.transaction()?).commit(socket)?;
                }
            }
        }
        difference.write_new_rules(&mut transaction)?;
        let rules_before_elements = self.rules_before_elements && difference.takes_from_old_rules();
        if rules_before_elements {
            difference.write_other_rules(&mut transaction)?;
        }
        // Where a table goes, it goes with all that takes its place.
        if there != There::Unfit && (rules_before_elements || difference.leads_to_new_chains()) {
            bytes += transaction.size();
            transaction.commit(socket)?;
            transaction = self.transaction()?;
        }
        difference.write_elements(&mut transaction)?;
        if !rules_before_elements {
            difference.write_other_rules(&mut transaction)?;
        }
        difference.write_removals(&mut transaction)?;
        bytes += if transaction.is_empty() { 0 } else { transaction.size() };
        transaction.commit(socket)?;
        Ok(CommitSummary { changes: difference.counts(), full, replaced: there == There::Unfit, bytes })
    }

    fn begin(&self, there: There) -> Result<Transaction> {
        let mut transaction = self.transaction()?;
        if there == There::Unfit {
            // There may be none, and then there is nothing that could be deleted.
            transaction.add_table(None)?;
            transaction.delete_table()?;
        }
        if there != There::Fit {
            transaction.add_table(self.desired.comment.as_deref())?;
        }
        Ok(transaction)
    }

    fn transaction(&self) -> Result<Transaction> {
        Transaction::new(ACTION, self.desired.family, &self.desired.name)
    }

    /// What was edited since the last commit.
    fn edits(&self) -> TableDiff<'_> {
        let mut difference = TableDiff::default();
        for (name, before) in &self.chains {
            let change = Change { before: before.as_ref(), after: self.desired.chains.get(name) };
            if change.before.map(|chain| &chain.rules) != change.after.map(|chain| &chain.rules) {
                difference.chains.insert(name, change);
            }
        }
        for (name, before) in &self.sets {
            let after = self.desired.sets.get(name);
            let change = Change { before: before.as_ref().map(|s| &s.spec), after: after.map(|s| &s.spec) };
            let elements = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => {
                    ElementChanges { come: after.elements.iter().collect(), ..ElementChanges::default() }
                }
                (Some(before), Some(after)) => ElementChanges::between(before, after),
                (Some(_), None) => ElementChanges::default(),
            };
            difference.sets.insert(name, (change, elements));
        }
        for (name, edited) in &self.elements {
            let Some(set) = self.desired.sets.get(name) else { continue };
            let change: Change<&SetSpec> = Change { before: Some(&set.spec), after: Some(&set.spec) };
            let mut changes = ElementChanges::default();
            for (key, before) in edited {
                let after = set.elements.get(key);
                if before.as_ref() != after {
                    changes.gone.extend(before.as_ref().map(|element| (key, element)));
                    changes.come.extend(after.map(|element| (key, element)));
                }
            }
            if !changes.is_empty() {
                difference.sets.insert(name, (change, changes));
            }
        }
        for (name, was_there) in &self.counters {
            let after = self.desired.counters.get(name).map(Option::as_deref);
            if *was_there != after.is_some() {
                difference.counters.insert(name, Change { before: was_there.then_some(None), after });
            }
        }
        difference
    }

    /// Compares the kernel's table with what is wanted, and changes nothing. Says what differs.
    ///
    /// # Errors
    /// As [`dump::read`].
    pub fn check(&self, socket: &mut Socket) -> Result<ChangeCounts> {
        let found = dump::read(socket, self.desired.family, &self.desired.name)?;
        let mut extent = TableDiff::between(found.as_ref().map(|(table, _)| table), &self.desired).counts();
        if let Some((table, foreign)) = &found {
            extent.chains += foreign.len() + usize::from(!same_kinds(table, &self.desired));
        }
        Ok(extent)
    }
}
