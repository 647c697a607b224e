//! Identities of peers: a number for the groups of peers that an address belongs to.
//!
//! ```text
//! peer set (selectors) ─┐                       ┌─ map peers:       address of a pod or node ─► identity
//!                       ├► groups of an address ┤
//! ipBlocks, networks ───┘        (identity)     └─ map peer-ranges: range of addresses ───────► identity
//!                                    │
//!                                    └──────────── set of each group: identities
//! ```
//! A rule matches the identity of a packet's peer, which is looked up once. A pod that starts with the groups of another
//! one costs one element, however many rules match it.

mod deltas;
mod groups;
mod identities;
mod members;
mod memberships;
mod range_map;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, Key};

use self::deltas::Deltas;
use self::groups::Groups;
use self::identities::Identities;
use self::members::Members;
use self::memberships::{Membership, Memberships};
use self::range_map::{Range, RangeChange, RangeMap};
use super::edit::ElementEdit;
use super::names::{PEER_RANGES, PEERS, of_family};
use crate::compile::{
    AddressRanges, BlocksId, PolicyChanges, PolicyRule, ReferenceCounts, RulesChange, RulesId, SetUpdate,
};

pub(super) use self::groups::PeerGroup;
pub(super) use self::memberships::GroupIndex;

/// Identities of all peers of rules.
#[derive(Debug)]
pub(super) struct Peers {
    groups: Groups,
    memberships: Memberships,
    identities: Identities,
    /// Addresses of pods and nodes that are in groups by selectors, with their identities, which include their groups by address.
    members: Members,
    /// Ranges of groups, by family in the order of [`Family::ALL`].
    ranges: [RangeMap; 2],
    /// The maps of members and of ranges, by family.
    sets: [(Arc<str>, Arc<str>); 2],
    /// The number of rules with each list of ranges.
    blocks: ReferenceCounts<BlocksId>,
    /// The last changes deleted identities, whose memberships may have become unused since.
    has_deleted: bool,
}

/// Identities that changes have created and deleted.
#[derive(Debug, Default)]
pub(super) struct IdentityChanges {
    /// New identities with their groups.
    pub(super) created: Vec<(u32, Membership)>,
    /// Identities that no address has any longer, with their groups.
    pub(super) deleted: Vec<(u32, Membership)>,
}

impl IdentityChanges {
    /// Returns true if nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty()
    }
}

impl Default for Peers {
    fn default() -> Self {
        let mut memberships = Memberships::default();
        let ranges = Family::ALL.map(|family| RangeMap::new(last_address(family), &mut memberships));
        Peers {
            groups: Groups::default(),
            memberships,
            identities: Identities::default(),
            members: Members::default(),
            sets: Family::ALL
                .map(|family| (of_family(PEERS, family).into(), of_family(PEER_RANGES, family).into())),
            ranges,
            blocks: ReferenceCounts::new(),
            has_deleted: false,
        }
    }
}

impl Peers {
    /// Applies changes of compiled policies. Passes the changes of elements to `edit` one by one: the first sync of a large cluster has
    /// hundreds of thousands.
    pub(super) fn apply(
        &mut self,
        changes: &PolicyChanges,
        edit: &mut dyn FnMut(ElementEdit),
    ) -> IdentityChanges {
        // Most changes are pods with known groups, for which all memberships need not be looked through.
        if self.has_deleted {
            self.memberships.remove_unused();
        }
        let mut dirty = self.change_sets(changes);
        self.change_ranges(changes, &mut dirty, edit);
        dirty.for_each(|address, added, removed| self.update_member(address, added, removed, edit));
        self.groups.remove_unused();
        let changes = self.identities.take_changes();
        self.has_deleted = !changes.deleted.is_empty();
        changes
    }

    /// Returns the index of a group; `None` if no rule matches it.
    pub(super) fn index(&self, group: &PeerGroup) -> Option<GroupIndex> {
        self.groups.index(group)
    }

    /// Returns a group; `None` if no rule matches it any longer.
    pub(super) fn group(&self, index: GroupIndex) -> Option<&PeerGroup> {
        self.groups.group(index)
    }

    /// Returns all identities with their groups, which are sorted.
    pub(super) fn identities(&self) -> impl Iterator<Item = (u32, &[GroupIndex])> {
        self.identities.iter()
    }

    /// Returns a hash of groups that rules match. It does not depend on their order or indexes.
    pub(super) fn digest(&self, groups: &[GroupIndex]) -> [u8; 16] {
        self.groups.digest(groups)
    }

    /// Returns the number of identities.
    pub(super) fn len(&self) -> usize {
        self.identities.len()
    }

    /// Returns the groups of an identity, sorted; empty if there is no such identity.
    pub(super) fn groups_of(&self, identity: u32) -> &[GroupIndex] {
        self.identities.groups_of(identity)
    }

    /// Returns the groups whose peers a rule matches.
    pub(super) fn groups_of_rule(&self, id: &RulesId, rule: &PolicyRule) -> Vec<GroupIndex> {
        let set = rule.peers.pods.clone().map(PeerGroup::Set);
        let blocks = BlocksId::from_rule(id, rule).map(PeerGroup::Blocks);
        set.into_iter().chain(blocks).filter_map(|group| self.groups.index(&group)).collect()
    }

    /// Creates and deletes the groups of peer sets, and returns the addresses whose groups change.
    fn change_sets(&mut self, changes: &PolicyChanges) -> Deltas {
        let mut dirty = Deltas::default();
        let mut deleted: Vec<GroupIndex> = Vec::new();
        for change in &changes.sets {
            let group = PeerGroup::Set(change.id.clone());
            match &change.update {
                SetUpdate::Created(members) => {
                    let group = self.groups.create(group);
                    members.iter().for_each(|address| dirty.join(*address, group));
                }
                SetUpdate::Deleted => {
                    let Some(group) = self.groups.index(&group) else { continue };
                    self.groups.set_unused(group);
                    deleted.push(group);
                }
                SetUpdate::Updated { added, removed } => {
                    let Some(group) = self.groups.index(&group) else { continue };
                    added.iter().for_each(|address| dirty.join(*address, group));
                    removed.iter().for_each(|address| dirty.leave(*address, group));
                }
            }
        }
        if !deleted.is_empty() {
            for (address, identity) in self.members.iter() {
                let groups = self.identities.groups_of(identity);
                let left = deleted.iter().filter(|group| groups.binary_search(group).is_ok());
                left.for_each(|group| dirty.leave(address, *group));
            }
        }
        dirty
    }

    /// Updates the ranges of rules. Adds the members in changed ranges to `dirty`.
    fn change_ranges(
        &mut self,
        changes: &PolicyChanges,
        dirty: &mut Deltas,
        edit: &mut dyn FnMut(ElementEdit),
    ) {
        let mut by_family: [Vec<RangeChange>; 2] = Default::default();
        let lists: Vec<(Lists, Lists)> = changes.rules.iter().map(lists).collect();
        // Additions first, so that a list that passes from one rule to another stays.
        for (before, after) in &lists {
            self.add_blocks(before, after, &mut by_family);
        }
        for (before, after) in &lists {
            self.remove_blocks(before, after, &mut by_family);
        }
        self.blocks.take_changes();
        for (at, changes) in by_family.into_iter().enumerate() {
            if changes.is_empty() {
                continue;
            }
            let family = Family::ALL[at];
            let touched = range_map::merged(changes.iter().map(|change| change.range).collect());
            let before = self.elements(at, &touched);
            self.ranges[at].apply(&changes, &mut self.memberships);
            let after = self.elements(at, &touched);
            self.edit_ranges(family, &before, &after, edit);
            for range in touched {
                self.members.in_range(family, range).into_iter().for_each(|address| dirty.touch(address));
            }
        }
    }

    /// Adds the range changes of the lists of ranges that a policy's rules have now.
    fn add_blocks(&mut self, before: &Lists, after: &Lists, changes: &mut [Vec<RangeChange>; 2]) {
        for (id, ranges) in after {
            match before.get(id) {
                // Only a list that is identified by its rule changes.
                Some(old) if old != ranges => {
                    let Some(group) = self.groups.index(&PeerGroup::Blocks(id.clone())) else { continue };
                    add_changes(group, old, ranges, changes);
                }
                Some(_) => {}
                None => {
                    let is_new = !self.blocks.contains(id);
                    self.blocks.add(id);
                    if is_new {
                        let group = self.groups.create(PeerGroup::Blocks(id.clone()));
                        add_changes(group, &AddressRanges::default(), ranges, changes);
                    }
                }
            }
        }
    }

    /// Adds the range changes of the lists of ranges that a policy's rules do not have any longer.
    fn remove_blocks(&mut self, before: &Lists, after: &Lists, changes: &mut [Vec<RangeChange>; 2]) {
        for (id, ranges) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
            self.blocks.remove(id);
            if self.blocks.contains(id) {
                continue;
            }
            if let Some(group) = self.groups.index(&PeerGroup::Blocks(id.clone())) {
                self.groups.set_unused(group);
                add_changes(group, ranges, &AddressRanges::default(), changes);
            }
        }
    }

    /// Returns the pieces of a family that overlap or adjoin these ranges, and that are in groups.
    fn elements(&self, at: usize, touched: &[Range]) -> BTreeMap<u128, (u128, Membership)> {
        let pieces = touched.iter().flat_map(|range| self.ranges[at].pieces(*range));
        let pieces = pieces.filter(|(_, membership)| !membership.is_empty());
        pieces.map(|((first, last), membership)| (first, (last, Arc::clone(membership)))).collect()
    }

    fn edit_ranges(
        &mut self,
        family: Family,
        before: &BTreeMap<u128, (u128, Membership)>,
        after: &BTreeMap<u128, (u128, Membership)>,
        edit: &mut dyn FnMut(ElementEdit),
    ) {
        let (_, set) = &self.sets[position(family)];
        let key = |number| Key::from(address(family, number));
        let mut edit =
            |first: u128, element| edit(ElementEdit { set: Arc::clone(set), key: key(first), element });
        for (first, piece @ (last, membership)) in after {
            if before.get(first) != Some(piece) {
                let identity = self.identities.take(membership, &self.groups);
                let element = Element::value(Key::new().number(identity));
                edit(*first, Some(Element { last: Some(key(*last)), ..element }));
            }
        }
        for (first, old) in before {
            let now = after.get(first);
            if now != Some(old) {
                self.identities.release(&old.1);
                if now.is_none() {
                    edit(*first, None);
                }
            }
        }
    }

    fn update_member(
        &mut self,
        address: IpAddr,
        added: &[GroupIndex],
        removed: &[GroupIndex],
        edit: &mut dyn FnMut(ElementEdit),
    ) {
        let at = position(Family::from_address(address));
        let before = self.members.get(address);
        let of_before = before.map_or(&[][..], |identity| self.identities.groups_of(identity));
        // Of the groups of its identity, those by address are looked up again.
        let by_selectors = of_before.iter().copied().filter(|group| self.groups.is_by_selectors(*group));
        let by_selectors: Vec<GroupIndex> = by_selectors.collect();
        let groups = memberships::changed(&by_selectors, added, removed);
        let identity = (!groups.is_empty()).then(|| {
            let all = memberships::union(&groups, self.ranges[at].at(number_of(address)));
            let all = self.memberships.shared(&all);
            self.identities.take(&all, &self.groups)
        });
        if before != identity {
            let element = identity.map(|identity| Element::value(Key::new().number(identity)));
            edit(ElementEdit { set: Arc::clone(&self.sets[at].0), key: Key::from(address), element });
            self.members.set(address, identity);
        }
        if let Some(before) = before {
            self.identities.release_number(before);
        }
    }
}

/// The lists of ranges of a policy's rules.
type Lists<'a> = BTreeMap<BlocksId, &'a AddressRanges>;

/// Returns the lists of ranges of a policy's rules before and after a change.
fn lists(change: &RulesChange) -> (Lists<'_>, Lists<'_>) {
    fn of_rules<'a>(id: &RulesId, rules: &'a Option<Arc<[PolicyRule]>>) -> Lists<'a> {
        let rules = rules.iter().flat_map(|rules| rules.iter());
        rules.filter_map(|rule| Some((BlocksId::from_rule(id, rule)?, &rule.peers.blocks))).collect()
    }
    (of_rules(&change.id, &change.before), of_rules(&change.id, &change.after))
}

/// Adds the differences between two lists of ranges of a group.
fn add_changes(
    group: GroupIndex,
    before: &AddressRanges,
    after: &AddressRanges,
    changes: &mut [Vec<RangeChange>; 2],
) {
    let v4 =
        range_map::without_common_ends(before.partial_v4(), after.partial_v4()).map(|ranges| -> Vec<Range> {
            ranges.iter().map(|(a, b)| (a.to_bits().into(), b.to_bits().into())).collect()
        });
    let v6 = range_map::without_common_ends(before.partial_v6(), after.partial_v6())
        .map(|ranges| -> Vec<Range> { ranges.iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect() });
    let differences = [v4, v6].map(|[before, after]| range_map::difference(&before, &after));
    for (changes, differences) in changes.iter_mut().zip(differences) {
        let all = differences.into_iter().map(|(range, joins)| RangeChange { group, range, joins });
        changes.extend(all);
    }
}

/// Returns the position of a family in [`Family::ALL`].
fn position(family: Family) -> usize {
    usize::from(family == Family::V6)
}

/// Returns the greatest address of a family as a number.
fn last_address(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}
