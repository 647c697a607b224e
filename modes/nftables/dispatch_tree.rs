//! The dispatch of frontends with many endpoints: a binary tree over the numbers of endpoints.
//!
//! ```text
//! @service-large         frontends with more than MAX_SEQUENTIAL endpoints ─► the root of the tree
//! @service-bit-3         those of them whose number of endpoints has bit 3
//!
//! service-0-to-31        @service-bit-4 goto service-16-to-31, else goto service-8-to-15     numbers from 0 to 31
//! service-8-to-15        @service-bit-1 goto service-14, else goto service-12                numbers from 8 to 15
//! ```
//! Each chain of the tree tests the highest bit in which the numbers below it differ, so a lookup in a cluster with 500 numbers
//! of endpoints takes 9 steps, not 500. The sets have no data and no verdicts: a rule that looks one up can be added at no cost
//! for its elements, and the kernel does not search them for loops.
//!
//! While a transaction moves a frontend to another map, a packet in the tree may find some bits of the old number and some of
//! the new one. It then ends in a map without the frontend, returns, and enters the tree again.

use std::fmt;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Rule, Set, SetSpec, Verdict};

use super::endpoint_map::{EndpointMap, FrontendKey, MapKind};
use super::settings::Settings;

/// The number of endpoints up to which endpoint maps are tried one after the other. Most Services have fewer, and need no element
/// in the sets of the tree.
pub(super) const MAX_SEQUENTIAL: u16 = 10;

/// The steps of the tree. The kernel accepts 16 levels of chains, of which others take four before the tree and two after it. Numbers
/// that still do not differ are tried one after the other, which happens only above 522 different numbers, or if they are far apart.
const MAX_DEPTH: u32 = 9;

/// A set of frontends that the tree looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CountSet {
    pub(super) key: FrontendKey,
    pub(super) kind: MapKind,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Part {
    /// The frontends with more than [`MAX_SEQUENTIAL`] endpoints.
    Large,
    /// The frontends whose number of endpoints has this bit.
    Bit(u8),
}

impl EndpointMap {
    /// Returns true if the map is found by the tree.
    pub(super) fn is_in_tree(self) -> bool {
        self.count > MAX_SEQUENTIAL
    }

    /// Returns the sets of the tree that contain the frontends of the map.
    pub(super) fn count_sets(self) -> impl Iterator<Item = CountSet> {
        let EndpointMap { key, kind, count } = self;
        let bits = (0..u16::BITS as u8).filter(move |bit| count & (1 << bit) != 0).map(Part::Bit);
        let parts = std::iter::once(Part::Large).chain(bits).filter(move |_| self.is_in_tree());
        parts.map(move |part| CountSet { key, kind, part })
    }
}

impl CountSet {
    /// Returns the name of the set.
    pub(super) fn name(self) -> Arc<str> {
        self.to_string().into()
    }

    /// Parses a name that [`CountSet::name`] returned.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let parts = || std::iter::once(Part::Large).chain((0..u16::BITS as u8).map(Part::Bit));
        let groups = FrontendKey::ALL.into_iter().flat_map(|key| MapKind::ALL.map(|kind| (key, kind)));
        let mut all = groups.flat_map(|(key, kind)| parts().map(move |part| CountSet { key, kind, part }));
        all.find(|set| *set.name() == *name)
    }

    /// Returns the set without elements.
    pub(super) fn set(self, settings: &Settings) -> Set {
        let about = match self.part {
            Part::Large => format!("more than {MAX_SEQUENTIAL} endpoints"),
            Part::Bit(bit) => format!("the number of endpoints has bit {bit}, {}", 1u32 << bit),
        };
        Set::new(SetSpec::new(&self.key.types(settings)).with_comment(&about))
    }
}

impl fmt::Display for CountSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = EndpointMap::prefix(self.key, self.kind);
        match self.part {
            Part::Large => write!(f, "{prefix}-large"),
            Part::Bit(bit) => write!(f, "{prefix}-bit-{bit}"),
        }
    }
}

/// The tree of one kind of endpoint maps.
pub(super) struct DispatchTree {
    /// The rule that sends frontends with many endpoints into the tree.
    pub(super) entry: Rule,
    pub(super) chains: Vec<(Arc<str>, Chain)>,
}

/// Returns the tree for the maps of one kind that have these numbers of endpoints, in ascending order; `None` without any.
pub(super) fn tree(
    key: FrontendKey,
    kind: MapKind,
    counts: &[u16],
    settings: &Settings,
) -> Option<DispatchTree> {
    if counts.is_empty() {
        return None;
    }
    let mut builder = Builder { key, kind, settings, chains: Vec::new() };
    let root = builder.add(counts, MAX_DEPTH);
    let entry = builder.is_in(Part::Large).then(Verdict::Jump(root));
    Some(DispatchTree { entry, chains: builder.chains })
}

struct Builder<'a> {
    key: FrontendKey,
    kind: MapKind,
    settings: &'a Settings,
    chains: Vec<(Arc<str>, Chain)>,
}

impl Builder<'_> {
    /// Adds the chains that distinguish these numbers. Returns the name of the first.
    fn add(&mut self, counts: &[u16], depth: u32) -> Arc<str> {
        let (key, kind) = (self.key, self.kind);
        let map = |count: u16| EndpointMap { key, kind, count }.name();
        let [first, .., last] = *counts else { return map(counts[0]) };
        let bit = (first ^ last).ilog2();
        let below = (1u32 << (bit + 1)) - 1;
        let from = u32::from(first) & !below;
        let name: Arc<str> = format!("{}-{from}-to-{}", EndpointMap::prefix(key, kind), from | below).into();
        let rules = match depth {
            0 => counts.iter().map(|count| Rule::new().then(Verdict::Jump(map(*count)))).collect(),
            _ => {
                let with_bit = counts.partition_point(|count| count & (1 << bit) == 0);
                let [without, with] =
                    [&counts[..with_bit], &counts[with_bit..]].map(|counts| self.add(counts, depth - 1));
                vec![
                    self.is_in(Part::Bit(bit as u8)).then(Verdict::Goto(with)),
                    Rule::new().then(Verdict::Goto(without)),
                ]
            }
        };
        self.chains.push((Arc::clone(&name), Chain::new(rules)));
        name
    }

    fn is_in(&self, part: Part) -> Rule {
        let set = CountSet { key: self.key, kind: self.kind, part };
        Rule::new().is_in(&self.key.fields(self.settings), set.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::node_facts::NodeFacts;
    use crate::options::Options;
    use portcullis_cluster::Family;

    fn chains(counts: &[u16]) -> (String, BTreeMap<Arc<str>, String>) {
        let settings = Settings::new(Family::V4, &Options::default(), &NodeFacts::default());
        let tree = tree(FrontendKey::Address, MapKind::Direct, counts, &settings).expect("there are counts");
        let printed = tree.chains.into_iter().map(|(name, chain)| (name, chain.to_string()));
        (tree.entry.to_string(), printed.collect())
    }

    /// Follows the rules for a number of endpoints. Returns the name of the map, and the number of lookups.
    fn find(entry: &str, chains: &BTreeMap<Arc<str>, String>, count: u16) -> (BTreeSet<String>, usize) {
        let sets: BTreeSet<String> = EndpointMap { key: FrontendKey::Address, kind: MapKind::Direct, count }
            .count_sets()
            .map(|set| format!("@{set}"))
            .collect();
        let (mut at, mut lookups) = (entry.rsplit(' ').next().expect("a chain").to_owned(), 1);
        while let Some(chain) = chains.get(&*at) {
            let mut rules = chain.lines().map(|rule| rule.split_whitespace().collect::<Vec<_>>());
            if chain.contains("jump") {
                return (rules.map(|words| words[1].to_owned()).collect(), lookups);
            }
            let [test, otherwise] = [rules.next(), rules.next()].map(|rule| rule.expect("two rules"));
            let set = test.iter().find(|word| word.starts_with('@')).expect("a lookup");
            let next = if sets.contains(*set) { test } else { otherwise };
            at = next.last().expect("a chain").to_string();
            lookups += 1;
        }
        (BTreeSet::from([at]), lookups)
    }

    #[test]
    fn every_number_of_endpoints_leads_to_its_map() {
        let rows: [(&str, Vec<u16>, usize); 7] = [
            ("one", vec![11], 1),
            ("two", vec![12, 13], 2),
            ("64 numbers", (11..=74).collect(), 8),
            ("500 numbers", (11..=510).collect(), 10),
            ("powers of two", (4..16).map(|bit| 1 << bit).collect(), 10),
            ("far apart", vec![11, 500, 65_535], 3),
            ("thousands", (11..=5_000).collect(), 10),
        ];
        for (name, counts, most) in rows {
            let (entry, chains) = chains(&counts);
            for count in &counts {
                let (found, lookups) = find(&entry, &chains, *count);
                assert!(found.contains(&format!("service-{count}")), "{name}: {count} is in {found:?}");
                assert!(lookups <= most, "{name}: {lookups} lookups for {count}");
                assert!(found.len() == 1 || lookups == MAX_DEPTH as usize + 1, "{name}: {found:?}");
            }
            let names: BTreeSet<&str> = chains.keys().map(|name| &**name).collect();
            assert!(names.iter().all(|name| EndpointMap::from_name(name).is_none()), "{name}: {names:?}");
        }
    }

    #[test]
    fn sets_have_names_that_can_be_parsed() {
        for key in FrontendKey::ALL {
            for kind in MapKind::ALL {
                for set in (EndpointMap { key, kind, count: u16::MAX }).count_sets() {
                    assert_eq!(CountSet::from_name(&set.name()), Some(set));
                    assert_eq!(EndpointMap::from_name(&set.name()), None);
                }
                assert_eq!((EndpointMap { key, kind, count: MAX_SEQUENTIAL }).count_sets().count(), 0);
            }
        }
    }
}
