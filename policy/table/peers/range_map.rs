//! Memberships of all addresses of a family by ranges: a function that is constant between its boundaries.

use std::collections::BTreeMap;

use super::memberships::{GroupIndex, Membership, Memberships, changed};

/// The first and the last address of a range, as numbers.
pub(super) type Range = (u128, u128);

/// Memberships by ranges of addresses.
#[derive(Debug)]
pub(super) struct RangeMap {
    /// Membership of the addresses from each boundary to the next. Neighbours differ, and there is one for 0.
    boundaries: BTreeMap<u128, Membership>,
    /// The greatest address.
    last: u128,
}

/// Ranges that join or leave a group.
#[derive(Debug)]
pub(super) struct RangeChange {
    pub(super) group: GroupIndex,
    pub(super) range: Range,
    pub(super) joins: bool,
}

impl RangeMap {
    /// Returns a map in which no address is in a group.
    pub(super) fn new(last: u128, memberships: &mut Memberships) -> Self {
        RangeMap { boundaries: BTreeMap::from([(0, memberships.shared(&[]))]), last }
    }

    /// Returns the membership of an address.
    pub(super) fn at(&self, address: u128) -> &Membership {
        let (_, membership) =
            self.boundaries.range(..=address).next_back().expect("there is a boundary at 0");
        membership
    }

    /// Returns the pieces with the same membership that overlap a range or are next to it, as ranges.
    pub(super) fn pieces(&self, (first, last): Range) -> impl Iterator<Item = (Range, &Membership)> {
        let from = first.saturating_sub(1);
        let from = self.boundaries.range(..=from).next_back().map_or(0, |(start, _)| *start);
        let to = last.saturating_add(1).min(self.last);
        self.boundaries.range(from..=to).map(|(start, membership)| {
            let next = self.boundaries.range(start + 1..).next();
            ((*start, next.map_or(self.last, |(next, _)| next - 1)), membership)
        })
    }

    /// Applies changes.
    pub(super) fn apply(&mut self, changes: &[RangeChange], memberships: &mut Memberships) {
        for RangeChange { group, range: (first, last), joins } in changes {
            self.split(*first);
            if *last < self.last {
                self.split(last + 1);
            }
            for membership in self.boundaries.range_mut(first..=last).map(|(_, membership)| membership) {
                let group = std::slice::from_ref(group);
                let after =
                    if *joins { changed(membership, group, &[]) } else { changed(membership, &[], group) };
                *membership = memberships.shared(&after);
            }
        }
        for RangeChange { range: (first, last), .. } in changes {
            self.join(*first);
            if *last < self.last {
                self.join(last + 1);
            }
        }
    }

    /// Adds a boundary.
    fn split(&mut self, at: u128) {
        if !self.boundaries.contains_key(&at) {
            let membership = self.at(at).clone();
            self.boundaries.insert(at, membership);
        }
    }

    /// Removes a boundary between pieces with the same membership.
    fn join(&mut self, at: u128) {
        if at == 0 {
            return;
        }
        let before = self.at(at - 1);
        if self.boundaries.get(&at).is_some_and(|membership| membership == before) {
            self.boundaries.remove(&at);
        }
    }
}

/// Sorts ranges and merges those that overlap, or that are so close that they share a neighbour.
pub(super) fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(2) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Returns two lists without what both start and end with. Lists have up to 20,000 ranges, of which a change concerns few.
pub(super) fn without_common_ends<'a, T: PartialEq>(before: &'a [T], after: &'a [T]) -> [&'a [T]; 2] {
    let start = before.iter().zip(after).take_while(|(before, after)| before == after).count();
    let (before, after) = (&before[start..], &after[start..]);
    let end =
        before.iter().rev().zip(after.iter().rev()).take_while(|(before, after)| before == after).count();
    [&before[..before.len() - end], &after[..after.len() - end]]
}

/// Returns the ranges that are in exactly one of two sorted lists of disjoint ranges, and true for those of the second.
pub(super) fn difference(before: &[Range], after: &[Range]) -> Vec<(Range, bool)> {
    let mut found = Vec::new();
    subtract(before, after, |range| found.push((range, false)));
    subtract(after, before, |range| found.push((range, true)));
    found
}

/// Passes the parts of ranges that are not in others.
fn subtract(ranges: &[Range], others: &[Range], mut found: impl FnMut(Range)) {
    let mut others = others.iter().copied().peekable();
    for &(first, last) in ranges {
        let mut at = first;
        loop {
            while others.peek().is_some_and(|(_, end)| *end < at) {
                others.next();
            }
            match others.peek() {
                Some((start, end)) if *start <= last => {
                    if *start > at {
                        found((at, start - 1));
                    }
                    if *end >= last {
                        break;
                    }
                    at = end + 1;
                }
                _ => {
                    found((at, last));
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(map: &RangeMap) -> Vec<(u128, u128, Vec<u32>)> {
        let all = map.pieces((0, 99));
        let all = all.filter(|(_, membership)| !membership.is_empty());
        all.map(|((first, last), membership)| (first, last, membership.to_vec())).collect()
    }

    #[test]
    fn pieces_are_split_and_joined() {
        let mut memberships = Memberships::default();
        let mut map = RangeMap::new(99, &mut memberships);
        let change = |group, range, joins| RangeChange { group, range, joins };
        map.apply(&[change(1, (10, 29), true), change(2, (20, 99), true)], &mut memberships);
        assert_eq!(pieces(&map), [(10, 19, vec![1]), (20, 29, vec![1, 2]), (30, 99, vec![2])]);
        map.apply(&[change(1, (25, 26), false)], &mut memberships);
        assert_eq!(pieces(&map).len(), 5);
        map.apply(&[change(1, (25, 26), true)], &mut memberships);
        assert_eq!(pieces(&map), [(10, 19, vec![1]), (20, 29, vec![1, 2]), (30, 99, vec![2])]);
        map.apply(&[change(2, (20, 99), false), change(1, (10, 29), false)], &mut memberships);
        assert_eq!(pieces(&map), []);
        assert_eq!(map.boundaries.len(), 1);
    }

    #[test]
    fn difference_has_the_ranges_of_one_side() {
        type Row<'a> = (&'a [Range], &'a [Range], &'a [(Range, bool)]);
        let rows: [Row<'_>; 5] = [
            (&[], &[(1, 2)], &[((1, 2), true)]),
            (&[(0, 9)], &[(0, 9)], &[]),
            (&[(0, 9)], &[(3, 4), (6, 6)], &[((0, 2), false), ((5, 5), false), ((7, 9), false)]),
            (&[(0, 3), (8, 9)], &[(2, 8)], &[((0, 1), false), ((9, 9), false), ((4, 7), true)]),
            (&[(5, u128::MAX)], &[(0, u128::MAX)], &[((0, 4), true)]),
        ];
        for (before, after, expected) in rows {
            assert_eq!(difference(before, after), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn common_ends_do_not_change_the_difference() {
        let all: [Range; 5] = [(0, 3), (5, 5), (7, 9), (20, 29), (40, u128::MAX)];
        let lists: Vec<Vec<Range>> = (0..1 << all.len())
            .map(|bits| {
                all.iter()
                    .enumerate()
                    .filter(|(n, _)| bits & (1 << n) != 0)
                    .map(|(_, range)| *range)
                    .collect()
            })
            .collect();
        for before in &lists {
            for after in &lists {
                let [shorter_before, shorter_after] = without_common_ends(before, after);
                assert_eq!(difference(shorter_before, shorter_after), difference(before, after));
                assert!(before != after || shorter_before.is_empty() && shorter_after.is_empty());
            }
        }
        let [before, after] = without_common_ends(&[1, 2, 3], &[1, 2, 2, 3]);
        assert_eq!((before, after), (&[][..], &[2][..]));
    }
}
