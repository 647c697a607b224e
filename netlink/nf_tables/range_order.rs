//! The order of changes of sets with concatenated ranges: what a set gets before all other changes, and what it loses with them.
//!
//! The kernel publishes such a set at the end of a transaction, a moment after the elements of other sets. A rule that looks up a
//! range for an element of another set would find the element without its range.

use super::element::{Element, Key};
use super::set::SetSpec;
use super::table_diff::{ElementChanges, TableDiff, pairs_of};
use super::transaction::Transaction;
use crate::error::Result;

impl TableDiff<'_> {
    /// Returns true if existing sets get ranges.
    pub(super) fn adds_ranges(&self) -> bool {
        self.range_sets().any(|(.., elements)| !elements.added.is_empty())
    }

    /// Adds ranges to existing sets, and deletes those that overlap with one of them, which the kernel would reject.
    pub(super) fn write_added_ranges(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, spec, elements) in self.range_sets() {
            let added = sorted(&elements.added);
            let deleted = elements.deleted.iter().filter(|range| overlaps(range, &added));
            transaction.delete_elements(name, spec, pairs_of(deleted))?;
            transaction.add_elements(name, spec, pairs_of(&elements.added))?;
        }
        Ok(())
    }

    /// Deletes the ranges of existing sets that [`TableDiff::write_added_ranges`] does not.
    pub(super) fn write_deleted_ranges(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, spec, elements) in self.range_sets() {
            let added = sorted(&elements.added);
            let deleted = elements.deleted.iter().filter(|range| !overlaps(range, &added));
            transaction.delete_elements(name, spec, pairs_of(deleted))?;
        }
        Ok(())
    }

    fn range_sets(&self) -> impl Iterator<Item = (&str, &SetSpec, &ElementChanges<'_>)> {
        self.sets.iter().filter_map(|(name, (change, elements))| match (change.before, change.after) {
            (Some(_), Some(spec)) if is_ordered(spec) && elements.refill.is_none() => {
                Some((&***name, spec, elements))
            }
            _ => None,
        })
    }
}

/// Returns true for a set whose changes have this order.
pub(super) fn is_ordered(spec: &SetSpec) -> bool {
    spec.has_range_elements() && !spec.is_map()
}

/// Returns the first and last keys of ranges that do not overlap, in their order.
fn sorted(ranges: &[(Key, Element)]) -> Vec<(&Key, &Key)> {
    let mut ends: Vec<(&Key, &Key)> = ranges.iter().map(ends).collect();
    ends.sort_unstable();
    ends
}

fn ends((first, element): &(Key, Element)) -> (&Key, &Key) {
    (first, element.last.as_ref().unwrap_or(first))
}

/// Returns true if a range may overlap with one of these. Ranges of several parts overlap if those of each part do; then they
/// overlap as ranges of all bytes, too.
fn overlaps(range: &(Key, Element), sorted: &[(&Key, &Key)]) -> bool {
    let (first, last) = ends(range);
    let following = sorted.partition_point(|(start, _)| *start <= last);
    sorted[..following].last().is_some_and(|(_, end)| *end >= first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_found() {
        let range = |port: u16, first: [u8; 4], last: [u8; 4]| {
            let [first, last] = [first, last].map(|address| Key::new().port(port).address(address.into()));
            (first, Element::range_to(last))
        };
        let added =
            [range(80, [10, 0, 0, 0], [10, 255, 255, 255]), range(80, [172, 16, 0, 0], [172, 16, 0, 9])];
        let added = sorted(&added);
        let rows = [
            (range(80, [10, 0, 0, 0], [10, 255, 255, 255]), true),
            (range(80, [10, 3, 0, 0], [10, 3, 255, 255]), true),
            (range(80, [0, 0, 0, 0], [255, 255, 255, 255]), true),
            (range(80, [172, 16, 0, 9], [172, 17, 0, 0]), true),
            (range(80, [172, 16, 0, 10], [172, 17, 0, 0]), false),
            (range(80, [9, 0, 0, 0], [9, 255, 255, 255]), false),
            (range(81, [10, 3, 0, 0], [10, 3, 255, 255]), false),
        ];
        for (range, expected) in rows {
            assert_eq!(overlaps(&range, &added), expected, "{range:?}");
        }
        assert!(!overlaps(&range(80, [10, 0, 0, 0], [10, 0, 0, 1]), &[]));
    }
}
