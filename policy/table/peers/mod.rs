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

mod groups;
mod identities;
mod memberships;
mod range_map;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, Key};

use self::groups::Groups;
use self::identities::Identities;
use self::memberships::{Membership, Memberships};
use self::range_map::{Range, RangeChange, RangeMap};
use super::edit::TableEdits;
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
    /// Addresses of pods and nodes that are in groups by selectors.
    members: BTreeMap<IpAddr, Member>,
    /// Ranges of groups, by family in the order of [`Family::ALL`].
    ranges: [RangeMap; 2],
    /// The number of rules with each list of ranges.
    blocks: ReferenceCounts<BlocksId>,
    /// The last changes deleted identities, whose memberships may have become unused since.
    has_deleted: bool,
}

/// A member of peer sets.
#[derive(Debug)]
struct Member {
    /// Its groups by selectors.
    groups: Membership,
    /// Its identity, which includes its groups by address.
    identity: u32,
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
            members: BTreeMap::new(),
            ranges,
            blocks: ReferenceCounts::new(),
            has_deleted: false,
        }
    }
}

impl Peers {
    /// Applies changes of compiled policies.
    pub(super) fn apply(&mut self, changes: &PolicyChanges, edits: &mut TableEdits) -> IdentityChanges {
        // Most changes are pods with known groups, for which all memberships need not be looked through.
        if self.has_deleted {
            self.memberships.remove_unused();
        }
        let mut dirty = self.change_sets(changes);
        self.change_ranges(changes, &mut dirty, edits);
        for (address, delta) in dirty {
            self.update_member(address, &delta, edits);
        }
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
    fn change_sets(&mut self, changes: &PolicyChanges) -> BTreeMap<IpAddr, Delta> {
        let mut dirty: BTreeMap<IpAddr, Delta> = BTreeMap::new();
        let mut deleted: Vec<GroupIndex> = Vec::new();
        for change in &changes.sets {
            let group = PeerGroup::Set(change.id.clone());
            match &change.update {
                SetUpdate::Created(members) => {
                    let group = self.groups.create(group);
                    members.iter().for_each(|address| dirty.entry(*address).or_default().added.push(group));
                }
                SetUpdate::Deleted => {
                    let Some(group) = self.groups.index(&group) else { continue };
                    self.groups.set_unused(group);
                    deleted.push(group);
                }
                SetUpdate::Updated { added, removed } => {
                    let Some(group) = self.groups.index(&group) else { continue };
                    added.iter().for_each(|address| dirty.entry(*address).or_default().added.push(group));
                    removed.iter().for_each(|address| dirty.entry(*address).or_default().removed.push(group));
                }
            }
        }
        if !deleted.is_empty() {
            for (address, member) in &self.members {
                let left = deleted.iter().filter(|group| member.groups.binary_search(group).is_ok());
                let left: Vec<GroupIndex> = left.copied().collect();
                if !left.is_empty() {
                    dirty.entry(*address).or_default().removed.extend(left);
                }
            }
        }
        dirty
    }

    /// Updates the ranges of rules. Adds the members in changed ranges to `dirty`.
    fn change_ranges(
        &mut self,
        changes: &PolicyChanges,
        dirty: &mut BTreeMap<IpAddr, Delta>,
        edits: &mut TableEdits,
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
            self.edit_ranges(family, &before, &after, edits);
            for (first, last) in touched {
                let bounds = address(family, first)..=address(family, last);
                for (address, _) in self.members.range(bounds) {
                    dirty.entry(*address).or_default();
                }
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
        edits: &mut TableEdits,
    ) {
        let set: Arc<str> = of_family(PEER_RANGES, family).into();
        let key = |number| Key::from(address(family, number));
        let mut edit = |first: u128, element| edits.element(&set, key(first), element);
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

    fn update_member(&mut self, address: IpAddr, delta: &Delta, edits: &mut TableEdits) {
        let before = self.members.remove(&address);
        let groups: &[GroupIndex] = before.as_ref().map_or(&[], |member| &member.groups);
        let groups = memberships::changed(groups, &delta.added, &delta.removed);
        let (family, number) = (Family::from_address(address), number_of(address));
        let at = usize::from(family == Family::V6);
        let identity = (!groups.is_empty()).then(|| {
            let all = memberships::union(&groups, self.ranges[at].at(number));
            let all = self.memberships.shared(&all);
            self.identities.take(&all, &self.groups)
        });
        if before.as_ref().map(|member| member.identity) != identity {
            let element = identity.map(|identity| Element::value(Key::new().number(identity)));
            edits.element(&of_family(PEERS, family).into(), Key::from(address), element);
        }
        if let Some(before) = before {
            self.identities.release_number(before.identity);
        }
        if let Some(identity) = identity {
            let groups = self.memberships.shared(&groups);
            self.members.insert(address, Member { groups, identity });
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

/// Groups that an address joins and leaves.
#[derive(Debug, Default)]
struct Delta {
    added: Vec<GroupIndex>,
    removed: Vec<GroupIndex>,
}

/// Adds the differences between two lists of ranges of a group.
fn add_changes(
    group: GroupIndex,
    before: &AddressRanges,
    after: &AddressRanges,
    changes: &mut [Vec<RangeChange>; 2],
) {
    let v4 = |ranges: &AddressRanges| -> Vec<Range> {
        ranges.partial_v4().iter().map(|(a, b)| (a.to_bits().into(), b.to_bits().into())).collect()
    };
    let v6 = |ranges: &AddressRanges| -> Vec<Range> {
        ranges.partial_v6().iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect()
    };
    let differences =
        [range_map::difference(&v4(before), &v4(after)), range_map::difference(&v6(before), &v6(after))];
    for (changes, differences) in changes.iter_mut().zip(differences) {
        let all = differences.into_iter().map(|(range, joins)| RangeChange { group, range, joins });
        changes.extend(all);
    }
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
