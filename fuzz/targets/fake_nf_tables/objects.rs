//! Objects as lists of attributes.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_netlink::attribute;

/// The attributes of an object with their numbers, in order.
pub(in super::super) type Attributes = Vec<(u16, Vec<u8>)>;

/// Numbers of attributes (`NFTA_*`).
pub(super) mod a {
    pub(in super::super) const LIST_ELEM: u16 = 1;
    pub(in super::super) const EXPR_NAME: u16 = 1;
    pub(in super::super) const EXPR_DATA: u16 = 2;
    pub(in super::super) const RULE_EXPRESSIONS: u16 = 4;
    pub(in super::super) const CHAIN_HOOK: u16 = 4;
    pub(in super::super) const SET_FLAGS: u16 = 3;
    pub(in super::super) const SET_KEY_TYPE: u16 = 4;
    pub(in super::super) const SET_DATA_TYPE: u16 = 6;
    pub(in super::super) const SET_ELEM_LIST: u16 = 3;
    pub(in super::super) const ELEM_KEY: u16 = 1;
    pub(in super::super) const ELEM_DATA: u16 = 2;
    pub(in super::super) const ELEM_FLAGS: u16 = 3;
    pub(in super::super) const ELEM_KEY_END: u16 = 10;
    pub(in super::super) const LOOKUP_SET: u16 = 1;
    pub(in super::super) const DYNSET_SET: u16 = 1;
    pub(in super::super) const OBJREF_NAME: u16 = 2;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;
    pub(in super::super) const DATA_VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
}

/// A chain, rule, object or flow table. The name of a rule is that of its chain.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RawObject {
    pub(in super::super) name: Vec<u8>,
    pub(in super::super) attributes: Attributes,
}

/// A set with its elements by key.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RawSet {
    pub(in super::super) set: RawObject,
    pub(in super::super) elements: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RawTable {
    pub(in super::super) attributes: Attributes,
    pub(in super::super) chains: Vec<RawObject>,
    pub(in super::super) rules: Vec<RawObject>,
    pub(in super::super) sets: Vec<RawSet>,
    pub(in super::super) objects: Vec<RawObject>,
    pub(in super::super) flow_tables: Vec<RawObject>,
}

impl RawTable {
    pub(super) fn has_chain(&self, name: &[u8]) -> bool {
        self.chains.iter().any(|chain| chain.name == name)
    }

    pub(super) fn set_mut(&mut self, name: &[u8]) -> Option<&mut RawSet> {
        self.sets.iter_mut().find(|set| set.set.name == name)
    }

    /// Returns true if a rule or an element jumps to the chain.
    pub(super) fn jumps_to(&self, chain: &[u8]) -> bool {
        let by_rule = self.references().any(|(kind, name)| kind == Reference::Chain && name == chain);
        by_rule
            || self.sets.iter().any(|set| set.elements.values().any(|e| target(e).as_deref() == Some(chain)))
    }

    /// Returns true if a rule uses the set or object.
    pub(super) fn uses(&self, kind: Reference, name: &[u8]) -> bool {
        self.references().any(|found| found == (kind, name.to_vec()))
    }

    fn references(&self) -> impl Iterator<Item = (Reference, Vec<u8>)> + '_ {
        self.rules.iter().flat_map(|rule| references(&rule.attributes))
    }
}

/// The kind of object that a rule refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Chain,
    Set,
    Object,
}

/// Returns the objects that a rule refers to.
pub(super) fn references(rule: &Attributes) -> Vec<(Reference, Vec<u8>)> {
    let mut found = Vec::new();
    for expression in read(get(rule, a::RULE_EXPRESSIONS)).iter().filter(|(kind, _)| *kind == a::LIST_ELEM) {
        let expression = read(&expression.1);
        let data = read(get(&expression, a::EXPR_DATA));
        let reference = match get(&expression, a::EXPR_NAME) {
            b"lookup\0" => (Reference::Set, get(&data, a::LOOKUP_SET).to_vec()),
            b"dynset\0" => (Reference::Set, get(&data, a::DYNSET_SET).to_vec()),
            b"objref\0" => (Reference::Object, get(&data, a::OBJREF_NAME).to_vec()),
            b"immediate\0" => {
                let verdict = read(get(&read(get(&data, a::IMMEDIATE_DATA)), a::DATA_VERDICT));
                (Reference::Chain, get(&verdict, a::VERDICT_CHAIN).to_vec())
            }
            _ => continue,
        };
        found.push(reference);
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Returns the chain to which the verdict of an element jumps.
pub(super) fn target(element: &[u8]) -> Option<Vec<u8>> {
    let data = read(get(&read(element), a::ELEM_DATA));
    let chain = get(&read(get(&data, a::DATA_VERDICT)), a::VERDICT_CHAIN).to_vec();
    (!chain.is_empty()).then_some(chain)
}

/// Returns the part of an element by which the kernel finds it.
pub(super) fn element_key(element: &[u8]) -> Vec<u8> {
    let attributes = read(element);
    let parts = [a::ELEM_KEY, a::ELEM_KEY_END, a::ELEM_FLAGS];
    let mut key = Vec::new();
    for part in parts {
        let part = get(&attributes, part);
        key.extend_from_slice(&(part.len() as u32).to_be_bytes());
        key.extend_from_slice(part);
    }
    key
}

/// Reads attributes up to the first malformed one.
pub(super) fn read(bytes: &[u8]) -> Attributes {
    let attributes = attribute::Attributes::new(bytes).flatten();
    attributes.map(|attribute| (attribute.kind, attribute.payload.to_vec())).collect()
}

/// Returns the payload of an attribute; empty if it is missing.
pub(super) fn get(attributes: &[(u16, Vec<u8>)], kind: u16) -> &[u8] {
    attributes
        .iter()
        .find(|(number, _)| *number == kind)
        .map(|(_, payload)| payload.as_slice())
        .unwrap_or_default()
}

/// Returns a name as attributes have it.
pub(super) fn c_string(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

impl RawObject {
    /// Returns true if all objects exist to which the rule refers.
    pub(in super::super) fn refers_to(
        &self,
        chains: &BTreeSet<Vec<u8>>,
        sets: &BTreeSet<Vec<u8>>,
        objects: &BTreeSet<Vec<u8>>,
    ) -> bool {
        references(&self.attributes).iter().all(|(kind, name)| match kind {
            Reference::Chain => chains.contains(name),
            Reference::Set => sets.contains(name),
            Reference::Object => objects.contains(name),
        })
    }
}

impl RawSet {
    /// Returns true if the chain exists to which an element jumps.
    pub(in super::super) fn refers_to(element: &[u8], chains: &BTreeSet<Vec<u8>>) -> bool {
        target(element).is_none_or(|chain| chains.contains(&chain))
    }
}
