//! Phases of a change of the groups of peers that rules match.
//!
//! ```text
//! additions ─► addresses get identities that are in old and new groups │ the old rules match them
//! main ──────► the rules change                                        │ old and new rules match them
//! removal ───► addresses get identities that are in new groups only    │ the new rules match them
//! ```
//! A transaction is not atomic for a packet in progress, which continues with the old rules and finds new identities. And the kernel
//! publishes the elements of maps of ranges only after the new rules. So identities that old and new rules match are written before the
//! rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::{BlocksId, PolicyChanges, PolicyRule, RulesChange, SetUpdate};

/// Returns the changes that only add groups.
pub(super) fn additions(changes: &PolicyChanges) -> PolicyChanges {
    of_phase(
        changes,
        |update| matches!(update, SetUpdate::Created(_)),
        |before, after| (before.cloned(), joined(after, before)),
    )
}

/// Returns the changes of the members of groups, and with `adds` those that add groups.
pub(super) fn main(changes: &PolicyChanges, adds: bool) -> PolicyChanges {
    let is_in_phase = |update: &_| match update {
        SetUpdate::Created(_) => adds,
        SetUpdate::Updated { .. } => true,
        SetUpdate::Deleted => false,
    };
    of_phase(changes, is_in_phase, |before, after| {
        let start = if adds { before.cloned() } else { joined(after, before) };
        (start, joined(before, after))
    })
}

/// Returns the changes that only remove groups.
pub(super) fn removal(changes: &PolicyChanges) -> PolicyChanges {
    of_phase(
        changes,
        |update| matches!(update, SetUpdate::Deleted),
        |before, after| (joined(before, after), after.cloned()),
    )
}

/// Returns true if groups are added or removed.
pub(super) fn has_groups(phase: &PolicyChanges) -> bool {
    let blocks = |change: &RulesChange, rules: &Option<Arc<[PolicyRule]>>| -> BTreeSet<BlocksId> {
        let rules = rules.iter().flat_map(|rules| rules.iter());
        rules.filter_map(|rule| BlocksId::from_rule(&change.id, rule)).collect()
    };
    !phase.sets.is_empty()
        || phase.rules.iter().any(|change| blocks(change, &change.before) != blocks(change, &change.after))
}

type Rules = Arc<[PolicyRule]>;

/// Returns the changes of a phase: the updates of peer sets in it, and the rules that `rules` returns before and after it.
fn of_phase(
    changes: &PolicyChanges,
    is_in_phase: impl Fn(&SetUpdate<std::net::IpAddr>) -> bool,
    rules: impl Fn(Option<&Rules>, Option<&Rules>) -> (Option<Rules>, Option<Rules>),
) -> PolicyChanges {
    let change = |change: &RulesChange| {
        let (before, after) = rules(change.before.as_ref(), change.after.as_ref());
        RulesChange { id: change.id.clone(), before, after }
    };
    PolicyChanges {
        sets: changes.sets.iter().filter(|set| is_in_phase(&set.update)).cloned().collect(),
        rules: changes.rules.iter().map(change).collect(),
        ..PolicyChanges::default()
    }
}

/// Returns both lists of rules. If they have different ranges with the same identity, those of `last` count.
fn joined(first: Option<&Rules>, last: Option<&Rules>) -> Option<Rules> {
    match (first, last) {
        (Some(first), Some(last)) => Some(first.iter().chain(last.iter()).cloned().collect()),
        (first, last) => first.or(last).cloned(),
    }
}
