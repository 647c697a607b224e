//! Classes of peers: peers for which the same rules of a profile match.
//!
//! ```text
//! profile ─► dispatch ─┬─ map of identities to classes ─► class ─► admin tier, allowed ports, baseline tier
//!                      └─ no element ───────────────────► class of all other peers
//! ```
//! A profile with few rules is evaluated rule by rule. With many, the rules for each class are merged, so that the number of
//! lookups does not depend on the number of policies, rules, peers or ports. Classes with equal rules share their chains, also
//! across profiles.

mod chains;
mod decisions;
mod dispatch_key;
mod dispatch_rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, DataType, Element, Key, Rule, Set, SetSpec, Verdict};
use sha2::{Digest, Sha256};

use self::chains::ClassChains;
use self::dispatch_rules::DispatchRules;
use super::edit::{ChainWithSets, ElementEdit, SetEdit, TableEdit, TableEdits};
use super::layouts::LayoutContext;
use super::numbers::{Numbered, Numbers};
use super::options::PolicyOptions;
use super::peers::{GroupIndex, IdentityChanges};
use super::priority::PRIORITY;

pub(super) use self::dispatch_key::{DispatchKey, has_classes};

/// A profile with more classes than this is evaluated rule by rule. Each class is a chain, and labels and policies that tenants
/// create can multiply classes.
pub(super) const MAX_CLASSES: usize = 1024;

/// All classes.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: Numbers,
    dispatches: BTreeMap<DispatchKey, Dispatch>,
    /// Class chains by name, with the number of classes of dispatches that use each.
    chains: HashMap<Arc<str>, UsedClass>,
    /// Chains to which class chains jump, with the number of class chains.
    parts: HashMap<Arc<str>, usize>,
    /// Class chains that have become unused since the last [`Self::remove_unused`].
    unused: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct UsedClass {
    number: u32,
    count: usize,
    parts: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Dispatch {
    /// The groups that rules match, sorted.
    groups: Vec<GroupIndex>,
    /// Class chain of peers by their groups among those; that of no group is for all other peers.
    classes: BTreeMap<Vec<GroupIndex>, Arc<str>>,
    /// Class chain of each identity with such groups.
    by_identity: BTreeMap<u32, Arc<str>>,
}

impl Dispatch {
    /// Returns the classes of identities.
    fn used(&self) -> BTreeSet<Arc<str>> {
        self.by_identity.values().cloned().collect()
    }
}

impl Default for Classes {
    fn default() -> Self {
        Classes {
            numbers: Numbers::new(Numbered::Class),
            dispatches: BTreeMap::new(),
            chains: HashMap::new(),
            parts: HashMap::new(),
            unused: BTreeSet::new(),
        }
    }
}

impl Classes {
    /// Returns true if a dispatch would have too many classes.
    pub(super) fn exceeds_limit(key: &DispatchKey, context: &LayoutContext<'_>) -> bool {
        let groups = DispatchRules::new(key, context.peers, context.compiled).groups();
        let mut classes = BTreeSet::new();
        for (_, of_identity) in context.peers.identities() {
            classes.insert(common(&groups, of_identity));
            if classes.len() > MAX_CLASSES {
                return true;
            }
        }
        false
    }

    /// Returns the number of classes of a dispatch.
    pub(super) fn count(&self, key: &DispatchKey) -> usize {
        self.dispatches.get(key).map_or(0, |dispatch| dispatch.classes.len())
    }

    /// Returns the number of classes of all dispatches.
    pub(super) fn total(&self) -> usize {
        self.dispatches.values().map(|dispatch| dispatch.classes.len()).sum()
    }

    /// Adds a dispatch, or updates it after a change of its rules.
    pub(super) fn put(&mut self, key: &DispatchKey, context: &LayoutContext<'_>, edits: &mut TableEdits) {
        let LayoutContext { peers, compiled, options } = *context;
        let before = self.dispatches.remove(key);
        let rules = DispatchRules::new(key, peers, compiled);
        let mut dispatch = Dispatch { groups: rules.groups(), ..Dispatch::default() };
        let default = self.class(&mut dispatch, &[], &rules, options, edits);
        for (number, groups) in peers.identities() {
            let common = common(&dispatch.groups, groups);
            if !common.is_empty() {
                let class = self.class(&mut dispatch, &common, &rules, options, edits);
                dispatch.by_identity.insert(number, class);
            }
        }
        let name: Arc<str> = key.name().into();
        let verdicts: Arc<str> = key.verdicts().into();
        if before.is_none() {
            let by_identity = SetSpec::new(&[DataType::ClassId]).with_data(&[DataType::ClassId]);
            let set = Set::new(by_identity.with_comment("classes of peers by identity"));
            edits.set(SetEdit::Put(Arc::clone(&name), set));
            let set = SetSpec::verdict_map(&[DataType::ClassId]).with_comment("classes of peers by number");
            edits.set(SetEdit::Put(Arc::clone(&verdicts), Set::new(set)));
        }
        let old = before.as_ref().map(Dispatch::used).unwrap_or_default();
        let used = dispatch.used();
        used.difference(&old).for_each(|class| edits.set(self.verdict(&verdicts, class)));
        for class in old.difference(&used) {
            // A packet may have looked it up just before.
            edits.retire(Arc::clone(&verdicts), Key::new().number(self.number(class)));
        }
        let old = before.as_ref().map(|dispatch| &dispatch.by_identity);
        for (identity, class) in &dispatch.by_identity {
            if old.and_then(|old| old.get(identity)) != Some(class) {
                edits.set(self.element(&name, *identity, class));
            }
        }
        for identity in old.into_iter().flat_map(BTreeMap::keys) {
            if !dispatch.by_identity.contains_key(identity) {
                match peers.groups_of(*identity) {
                    [] => edits.retire(Arc::clone(&name), Key::new().number(*identity)),
                    _ => edits.set(SetEdit::Element(removal(&name, *identity))),
                }
            }
        }
        let rules = vec![
            Rule::new().set_priority_from_map(&[PRIORITY], Arc::clone(&name)),
            Rule::new().verdict_map(&[PRIORITY], Arc::clone(&verdicts)),
            Rule::new().then(Verdict::goto(&*default)).with_comment("all other peers"),
        ];
        let chain = Chain::new(rules).with_comment(&format!("classes of {}", key.profile.describe()));
        edits.edits.push(TableEdit::PutChain(ChainWithSets::without_sets(name, chain)));
        self.dispatches.insert(key.clone(), dispatch);
        if let Some(before) = before {
            self.release(before);
        }
    }

    /// Removes a dispatch.
    pub(super) fn remove(&mut self, key: &DispatchKey, edits: &mut TableEdits) {
        let Some(dispatch) = self.dispatches.remove(key) else { return };
        let name: Arc<str> = key.name().into();
        edits.edits.push(TableEdit::RemoveChain(Arc::clone(&name)));
        edits.set(SetEdit::Remove(name));
        edits.set(SetEdit::Remove(key.verdicts().into()));
        self.release(dispatch);
    }

    /// Adds and removes identities of peers.
    pub(super) fn change_identities(
        &mut self,
        changes: &IdentityChanges,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) {
        let LayoutContext { peers, compiled, options } = *context;
        let IdentityChanges { created, deleted } = changes;
        let keys: Vec<DispatchKey> = self.dispatches.keys().cloned().collect();
        for key in keys {
            let Some(mut dispatch) = self.dispatches.remove(&key) else { continue };
            let (mut rules, mut has_deleted) = (None, false);
            let mut name: Option<Arc<str>> = None;
            for (identity, groups) in created {
                // A dispatch that was put after the identity was created has it.
                if dispatch.by_identity.contains_key(identity) {
                    continue;
                }
                let common = common(&dispatch.groups, groups);
                if common.is_empty() {
                    continue;
                }
                let rules = rules.get_or_insert_with(|| DispatchRules::new(&key, peers, compiled));
                let is_new = !dispatch.classes.contains_key(&common);
                let class = self.class(&mut dispatch, &common, rules, options, edits);
                if is_new {
                    edits.set(self.verdict(&key.verdicts().into(), &class));
                }
                let name = name.get_or_insert_with(|| key.name().into());
                edits.set(self.element(name, *identity, &class));
                dispatch.by_identity.insert(*identity, class);
            }
            for (identity, _) in deleted {
                if dispatch.by_identity.remove(identity).is_some() {
                    let name = name.get_or_insert_with(|| key.name().into());
                    edits.retire(Arc::clone(name), Key::new().number(*identity));
                    has_deleted = true;
                }
            }
            if has_deleted {
                self.release_unused(&key, &mut dispatch, edits);
            }
            self.dispatches.insert(key, dispatch);
        }
    }

    /// Releases classes of a dispatch that no identity has any longer.
    fn release_unused(&mut self, key: &DispatchKey, dispatch: &mut Dispatch, edits: &mut TableEdits) {
        let used = dispatch.used();
        let is_unused =
            |(groups, class): &(&Vec<GroupIndex>, &Arc<str>)| !groups.is_empty() && !used.contains(*class);
        let unused: Vec<Vec<GroupIndex>> =
            dispatch.classes.iter().filter(is_unused).map(|(groups, _)| groups.clone()).collect();
        for groups in unused {
            if let Some(class) = dispatch.classes.remove(&groups) {
                edits.retire(key.verdicts().into(), Key::new().number(self.number(&class)));
                self.release_class(&class);
            }
        }
    }

    /// Removes the chains of classes that have become unused, after all other changes.
    pub(super) fn remove_unused(&mut self, edits: &mut TableEdits) {
        for class in std::mem::take(&mut self.unused) {
            if self.chains.get(&class).is_none_or(|used| used.count > 0) {
                continue;
            }
            let Some(UsedClass { number, parts, .. }) = self.chains.remove(&class) else { continue };
            self.numbers.release(number);
            edits.edits.push(TableEdit::RemoveChain(class));
            for part in parts {
                if let Some(count) = self.parts.get_mut(&part) {
                    *count -= 1;
                    if *count == 0 {
                        self.parts.remove(&part);
                        edits.edits.push(TableEdit::RemoveChain(part));
                    }
                }
            }
        }
    }

    /// Returns the class chain of peers in these groups, and adds it if it is new.
    fn class(
        &mut self,
        dispatch: &mut Dispatch,
        groups: &[GroupIndex],
        rules: &DispatchRules<'_>,
        options: &PolicyOptions,
        edits: &mut TableEdits,
    ) -> Arc<str> {
        if let Some(class) = dispatch.classes.get(groups) {
            return Arc::clone(class);
        }
        let rendered = rules.render(groups, options);
        let name = Arc::clone(rendered.name());
        dispatch.classes.insert(groups.to_vec(), Arc::clone(&name));
        if let Some(used) = self.chains.get_mut(&name) {
            used.count += 1;
            return name;
        }
        let hash = Sha256::digest(name.as_bytes());
        let number = self.numbers.take([hash[0], hash[1], hash[2], hash[3]]);
        let ClassChains(chains) = rendered;
        let parts: Vec<Arc<str>> = chains.iter().skip(1).map(|chain| Arc::clone(&chain.name)).collect();
        for (at, chain) in chains.into_iter().enumerate() {
            if at > 0 {
                let count = self.parts.entry(Arc::clone(&chain.name)).or_default();
                *count += 1;
                if *count > 1 {
                    continue;
                }
            }
            edits.edits.push(TableEdit::PutChain(chain));
        }
        self.chains.insert(Arc::clone(&name), UsedClass { number, count: 1, parts });
        name
    }

    fn release(&mut self, dispatch: Dispatch) {
        dispatch.classes.into_values().for_each(|class| self.release_class(&class));
    }

    fn release_class(&mut self, class: &Arc<str>) {
        let Some(used) = self.chains.get_mut(class) else { return };
        used.count -= 1;
        if used.count == 0 {
            self.unused.insert(Arc::clone(class));
        }
    }

    /// Returns the number of a class that is used.
    fn number(&self, class: &Arc<str>) -> u32 {
        self.chains.get(class).map_or(0, |used| used.number)
    }

    /// Returns the element of an identity in the map of classes.
    fn element(&self, map: &Arc<str>, identity: u32, class: &Arc<str>) -> SetEdit {
        let element = Some(Element::value(Key::new().number(self.number(class))));
        SetEdit::Element(ElementEdit { set: Arc::clone(map), key: Key::new().number(identity), element })
    }

    /// Returns the element of a class in the map of verdicts.
    fn verdict(&self, map: &Arc<str>, class: &Arc<str>) -> SetEdit {
        let key = Key::new().number(self.number(class));
        let element = Some(Element::verdict(Verdict::goto(&**class)));
        SetEdit::Element(ElementEdit { set: Arc::clone(map), key, element })
    }
}

fn removal(map: &Arc<str>, number: u32) -> ElementEdit {
    ElementEdit { set: Arc::clone(map), key: Key::new().number(number), element: None }
}

/// Returns the elements that two sorted lists have in common.
fn common(a: &[GroupIndex], b: &[GroupIndex]) -> Vec<GroupIndex> {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().copied().filter(|group| many.binary_search(group).is_ok()).collect()
}
