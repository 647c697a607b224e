//! The classes of a dispatch.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::chains::ClassChains;
use super::dispatch_key::DispatchKey;
use super::dispatch_rules::DispatchRules;
use crate::compile::suffix;
use crate::table::edit::ChainWithSets;
use crate::table::layouts::LayoutContext;
use crate::table::peers::{GroupIndex, IdentityChanges};

/// A profile with more classes than this is evaluated rule by rule. Each class is a chain, and labels and policies that tenants
/// create can multiply classes.
const MAX_CLASSES: usize = 1024;

/// The same for combinations of groups, each of which is compared with the others.
const MAX_COMBINATIONS: usize = 8192;

/// A class of peers.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// The name of its chain.
    pub(super) chain: Arc<str>,
    /// Its chain and those to which it jumps, until the table has them.
    pub(super) rendered: Vec<ChainWithSets>,
    /// The names of the chains to which it jumps.
    pub(super) parts: Vec<Arc<str>>,
    /// The class of all peers that are in no group; its identities need no elements.
    pub(super) is_default: bool,
    /// The least of its combinations of groups, by their digests, after which it is named.
    first: [u8; 16],
}

/// The classes of a dispatch.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    /// The groups that rules match, sorted.
    groups: Vec<GroupIndex>,
    /// Classes by the content of their rules.
    pub(super) classes: BTreeMap<Arc<str>, Class>,
    /// Combinations of these groups: the content of the class, and the number of identities.
    combinations: BTreeMap<Vec<GroupIndex>, (Arc<str>, usize)>,
    /// The content of the class of each identity in any of the groups.
    identities: BTreeMap<u32, Arc<str>>,
}

/// The effects of changed identities on a dispatch.
#[derive(Debug, Default)]
pub(super) struct DispatchChange {
    /// The classes must be determined again.
    pub(super) needs_rebuild: bool,
    /// New classes.
    pub(super) added: Vec<Class>,
    /// Identities with the chain of their class.
    pub(super) joined: Vec<(u32, Arc<str>)>,
    /// Identities that had a class.
    pub(super) left: Vec<u32>,
}

impl Dispatch {
    /// Determines the classes of all identities; `None` if there are too many.
    pub(super) fn new(key: &DispatchKey, context: &LayoutContext<'_>) -> Option<Self> {
        let rules = DispatchRules::new(key, context.peers, context.compiled);
        let mut dispatch = Dispatch { groups: rules.groups(), ..Dispatch::default() };
        dispatch.add_class(key, &rules, &[], context);
        for (identity, groups) in context.peers.identities() {
            let common = common(&dispatch.groups, groups);
            if common.is_empty() {
                continue;
            }
            let content = match dispatch.combinations.get_mut(&common) {
                Some((content, count)) => {
                    *count += 1;
                    Arc::clone(content)
                }
                None => dispatch.add_class(key, &rules, &common, context),
            };
            dispatch.identities.insert(identity, content);
            if dispatch.exceeds_limit() {
                return None;
            }
        }
        for class in dispatch.classes.values_mut().filter(|class| !class.is_default) {
            class.rename(key, class.first);
        }
        Some(dispatch)
    }

    pub(super) fn exceeds_limit(&self) -> bool {
        self.classes.len() > MAX_CLASSES || self.combinations.len() > MAX_COMBINATIONS
    }

    /// Frees the rendered chains, which the table has.
    pub(super) fn forget_rendered(&mut self) {
        self.classes.values_mut().for_each(|class| class.rendered = Vec::new());
    }

    /// Returns the chain of all other peers.
    pub(super) fn default_chain(&self) -> Arc<str> {
        let default = self.classes.values().find(|class| class.is_default);
        default.map_or_else(|| "".into(), |class| Arc::clone(&class.chain))
    }

    /// Returns the number of the class of each identity that needs an element.
    pub(super) fn numbers(&self, by_chain: &BTreeMap<Arc<str>, u32>) -> BTreeMap<u32, u32> {
        let numbers: BTreeMap<&Arc<str>, u32> = self
            .classes
            .iter()
            .filter(|(_, class)| !class.is_default)
            .filter_map(|(content, class)| Some((content, *by_chain.get(&class.chain)?)))
            .collect();
        let identities = self.identities.iter();
        identities.filter_map(|(identity, content)| Some((*identity, *numbers.get(content)?))).collect()
    }

    /// Adds a combination of groups, and a class if its rules are new. Returns the content of the class.
    fn add_class(
        &mut self,
        key: &DispatchKey,
        rules: &DispatchRules<'_>,
        groups: &[GroupIndex],
        context: &LayoutContext<'_>,
    ) -> Arc<str> {
        let ClassChains(rendered) = rules.render(groups, context.options);
        let content = Arc::clone(&rendered[0].name);
        let digest = context.peers.digest(groups);
        match self.classes.get_mut(&content) {
            Some(class) => class.first = class.first.min(digest),
            None => {
                let parts = rendered.iter().skip(1).map(|chain| Arc::clone(&chain.name)).collect();
                let is_default = groups.is_empty();
                let chain = Arc::clone(&content);
                let mut class = Class { chain, rendered, parts, is_default, first: digest };
                class.rename(key, digest);
                self.classes.insert(Arc::clone(&content), class);
            }
        }
        if !groups.is_empty() {
            self.combinations.insert(groups.to_vec(), (Arc::clone(&content), 1));
        }
        content
    }

    /// Adds and removes identities.
    pub(super) fn change_identities(
        &mut self,
        key: &DispatchKey,
        changes: &IdentityChanges,
        context: &LayoutContext<'_>,
    ) -> DispatchChange {
        let mut change = DispatchChange::default();
        let mut rules = None;
        for (identity, groups) in &changes.created {
            // A dispatch that was put after the identity was created has it.
            if self.identities.contains_key(identity) {
                continue;
            }
            let common = common(&self.groups, groups);
            if common.is_empty() {
                continue;
            }
            let content = match self.combinations.get_mut(&common) {
                Some((content, count)) => {
                    *count += 1;
                    Arc::clone(content)
                }
                None => {
                    let rules =
                        rules.get_or_insert_with(|| DispatchRules::new(key, context.peers, context.compiled));
                    let (classes, digest) = (self.classes.len(), context.peers.digest(&common));
                    let content = self.add_class(key, rules, &common, context);
                    let class = &self.classes[&content];
                    if self.classes.len() > classes {
                        change.added.push(class.clone());
                        self.forget_rendered();
                    } else {
                        // The class is named after this combination now.
                        change.needs_rebuild |= class.first == digest && !class.is_default;
                    }
                    content
                }
            };
            let class = &self.classes[&content];
            if !class.is_default {
                change.joined.push((*identity, Arc::clone(&class.chain)));
            }
            self.identities.insert(*identity, content);
        }
        for (identity, groups) in &changes.deleted {
            let Some(content) = self.identities.remove(identity) else { continue };
            let class = &self.classes[&content];
            if !class.is_default {
                change.left.push(*identity);
            }
            let common = common(&self.groups, groups);
            if let Some((_, count)) = self.combinations.get_mut(&common) {
                *count -= 1;
                if *count == 0 {
                    self.combinations.remove(&common);
                    change.needs_rebuild |= class.first == context.peers.digest(&common) && !class.is_default;
                }
            }
        }
        change
    }
}

impl Class {
    /// Names the class after a combination of groups.
    fn rename(&mut self, key: &DispatchKey, digest: [u8; 16]) {
        let mut hash = Sha256::new();
        hash.update(key.name());
        hash.update(if self.is_default { [0; 16] } else { digest });
        let hash = suffix(&hash.finalize());
        self.chain = format!("class-{}-{hash}", key.profile.direction).into();
        if let Some(own) = self.rendered.first_mut() {
            own.name = Arc::clone(&self.chain);
        }
    }
}

/// Returns the elements that two sorted lists have in common.
fn common(a: &[GroupIndex], b: &[GroupIndex]) -> Vec<GroupIndex> {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().copied().filter(|group| many.binary_search(group).is_ok()).collect()
}
