//! The rule set, and the changes of a transaction with the kernel's checks.

use std::collections::BTreeMap;

use super::objects::{RawObject, RawSet, RawTable, Reference, a, element_key, get, read, references, target};

/// Messages (`NFT_MSG_*`).
pub(super) mod m {
    pub(in super::super) const NEWTABLE: u8 = 0;
    pub(in super::super) const GETTABLE: u8 = 1;
    pub(in super::super) const DELTABLE: u8 = 2;
    pub(in super::super) const NEWCHAIN: u8 = 3;
    pub(in super::super) const GETCHAIN: u8 = 4;
    pub(in super::super) const DELCHAIN: u8 = 5;
    pub(in super::super) const NEWRULE: u8 = 6;
    pub(in super::super) const GETRULE: u8 = 7;
    pub(in super::super) const DELRULE: u8 = 8;
    pub(in super::super) const NEWSET: u8 = 9;
    pub(in super::super) const GETSET: u8 = 10;
    pub(in super::super) const DELSET: u8 = 11;
    pub(in super::super) const NEWSETELEM: u8 = 12;
    pub(in super::super) const GETSETELEM: u8 = 13;
    pub(in super::super) const DELSETELEM: u8 = 14;
    pub(in super::super) const GETGEN: u8 = 16;
    pub(in super::super) const NEWGEN: u8 = 15;
    pub(in super::super) const NEWOBJ: u8 = 18;
    pub(in super::super) const GETOBJ: u8 = 19;
    pub(in super::super) const DELOBJ: u8 = 20;
    pub(in super::super) const GETFLOWTABLE: u8 = 23;
}

/// Error numbers.
pub(super) const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

/// The attribute that names the table, in all messages.
const TABLE: u16 = 1;
/// The attribute that names the object, by message.
pub(super) fn name_attribute(message: u8) -> u16 {
    match message {
        m::NEWTABLE..=m::DELTABLE => 1,
        m::NEWCHAIN..=m::DELCHAIN => 3,
        _ => 2,
    }
}

/// All tables by family and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    pub(super) tables: BTreeMap<(u8, Vec<u8>), RawTable>,
    pub(super) generation: u32,
    pub(super) requests: usize,
}

impl Ruleset {
    /// Applies one change.
    pub(super) fn apply(&mut self, message: u8, family: u8, attributes: &[u8]) -> Result<(), i32> {
        let attributes = read(attributes);
        let key = (family, get(&attributes, TABLE).to_vec());
        match message {
            m::NEWTABLE => {
                self.tables.entry(key).or_insert_with(|| RawTable { attributes, ..RawTable::default() });
                return Ok(());
            }
            m::DELTABLE => return self.tables.remove(&key).map(|_| ()).ok_or(ENOENT),
            _ => {}
        }
        let table = self.tables.get_mut(&key).ok_or(ENOENT)?;
        let name = get(&attributes, name_attribute(message)).to_vec();
        let object = RawObject { name, attributes };
        match message {
            m::NEWCHAIN => table.add_chain(object),
            m::DELCHAIN => table.delete_chain(&object.name),
            m::NEWRULE => table.add_rule(object),
            m::DELRULE if !table.has_chain(&object.name) => Err(ENOENT),
            m::DELRULE => {
                table.rules.retain(|rule| rule.name != object.name);
                Ok(())
            }
            m::NEWSET => table.add_set(object),
            m::DELSET if table.uses(Reference::Set, &object.name) => Err(EBUSY),
            m::DELSET => remove(&mut table.sets, |set| set.set.name == object.name),
            m::NEWSETELEM => table.add_elements(&object),
            m::DELSETELEM => table.delete_elements(&object),
            m::NEWOBJ => {
                if !table.objects.iter().any(|existing| existing.name == object.name) {
                    table.objects.push(object);
                }
                Ok(())
            }
            m::DELOBJ if table.uses(Reference::Object, &object.name) => Err(EBUSY),
            m::DELOBJ => remove(&mut table.objects, |existing| existing.name == object.name),
            _ => Err(EINVAL),
        }
    }
}

fn remove<T>(objects: &mut Vec<T>, is_it: impl Fn(&T) -> bool) -> Result<(), i32> {
    let at = objects.iter().position(is_it).ok_or(ENOENT)?;
    objects.remove(at);
    Ok(())
}

impl RawTable {
    fn add_chain(&mut self, chain: RawObject) -> Result<(), i32> {
        match self.chains.iter().find(|existing| existing.name == chain.name) {
            Some(existing)
                if get(&existing.attributes, a::CHAIN_HOOK) != get(&chain.attributes, a::CHAIN_HOOK) =>
            {
                Err(EEXIST)
            }
            Some(_) => Ok(()),
            None => {
                self.chains.push(chain);
                Ok(())
            }
        }
    }

    /// Deletes a chain with its rules.
    fn delete_chain(&mut self, name: &[u8]) -> Result<(), i32> {
        if !self.has_chain(name) {
            return Err(ENOENT);
        }
        self.rules.retain(|rule| rule.name != name);
        if self.jumps_to(name) {
            return Err(EBUSY);
        }
        remove(&mut self.chains, |chain| chain.name == name)
    }

    fn add_rule(&mut self, rule: RawObject) -> Result<(), i32> {
        let exists = |(kind, name): &(Reference, Vec<u8>)| match kind {
            Reference::Chain => self.has_chain(name),
            Reference::Set => self.sets.iter().any(|set| set.set.name == *name),
            Reference::Object => self.objects.iter().any(|object| object.name == *name),
        };
        if !self.has_chain(&rule.name) || !references(&rule.attributes).iter().all(exists) {
            return Err(ENOENT);
        }
        self.rules.push(rule);
        Ok(())
    }

    fn add_set(&mut self, set: RawObject) -> Result<(), i32> {
        let spec = |set: &RawObject| {
            [a::SET_FLAGS, a::SET_KEY_TYPE, a::SET_DATA_TYPE].map(|kind| get(&set.attributes, kind).to_vec())
        };
        match self.sets.iter().find(|existing| existing.set.name == set.name) {
            Some(existing) if spec(&existing.set) != spec(&set) => Err(EEXIST),
            Some(_) => Ok(()),
            None => {
                self.sets.push(RawSet { set, elements: BTreeMap::new() });
                Ok(())
            }
        }
    }

    fn add_elements(&mut self, object: &RawObject) -> Result<(), i32> {
        for (_, element) in read(get(&object.attributes, a::SET_ELEM_LIST)) {
            if target(&element).is_some_and(|chain| !self.has_chain(&chain)) {
                return Err(ENOENT);
            }
            let set = self.set_mut(&object.name).ok_or(ENOENT)?;
            match set.elements.get(&element_key(&element)) {
                Some(existing)
                    if get(&read(existing), a::ELEM_DATA) != get(&read(&element), a::ELEM_DATA) =>
                {
                    return Err(EEXIST);
                }
                Some(_) => {}
                None => _ = set.elements.insert(element_key(&element), element),
            }
        }
        self.set_mut(&object.name).map(|_| ()).ok_or(ENOENT)
    }

    /// Deletes elements; all of them if none are listed.
    fn delete_elements(&mut self, object: &RawObject) -> Result<(), i32> {
        let set = self.set_mut(&object.name).ok_or(ENOENT)?;
        if !object.attributes.iter().any(|(kind, _)| *kind == a::SET_ELEM_LIST) {
            set.elements.clear();
            return Ok(());
        }
        for (_, element) in read(get(&object.attributes, a::SET_ELEM_LIST)) {
            set.elements.remove(&element_key(&element)).ok_or(ENOENT)?;
        }
        Ok(())
    }
}
