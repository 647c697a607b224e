//! Reading of tables from the kernel.

use std::collections::HashMap;
use std::sync::Arc;

use super::comment::{self, COMMENT, SET_COMMENT};
use super::constants::{OBJECT_COUNTER, attributes as a, messages as m};
use super::data::Data;
use super::element::{Element, ElementData, Key};
use super::expression::Expression;
use super::rule::Rule;
use super::set::{SetSpec, types_from_number};
use super::set_flags as flags;
use super::table::{BaseChain, Chain, ChainKind, Hook, Set, Table, TableFamily};
use super::transaction::INTERVAL_END;
use crate::attribute::{Attribute, Attributes, Malformed, Writer};
use crate::error::{During, Error, Result};
use crate::message::{Batch, Message};
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const ACTION: &str = "list an nf_tables table";

/// Flags of tables (`NFT_TABLE_F_*`), none of which we set: chains of a dormant table are inactive, and a table with an
/// owner belongs to another process.
const TABLE_FLAGS: [(u32, &str); 3] = [(1, "dormant"), (2, "owner"), (4, "persist")];

/// Flags of chains (`NFT_CHAIN_*`).
const CHAIN_HW_OFFLOAD: u32 = 2;
const CHAIN_BINDING: u32 = 4;

/// `NFT_SET_ELEM_CATCHALL`: the element without a key, which matches every key that has no element.
const CATCH_ALL: u32 = 2;

/// The number of attempts to read a table while other processes change the rule set.
const MAX_ATTEMPTS: usize = 10;

/// Descriptions of objects that a [`Table`] cannot express, which another process must have added: sets of unknown types,
/// chains with other policies or hooks, flow tables, flags of the table, and objects that cannot be decoded.
pub type UnknownObjects = Vec<String>;

/// Reads a table. Returns `None` if it does not exist. Additions of other processes never make a table unreadable: what is
/// unknown is listed in [`UnknownObjects`] or [`Set::unknown`], or becomes an [`Expression::Unknown`].
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN; [`Error::Interrupted`] if other processes keep
/// changing the rule set.
pub fn read(socket: &mut Socket, family: TableFamily, name: &str) -> Result<Option<(Table, UnknownObjects)>> {
    for _ in 1..MAX_ATTEMPTS {
        match read_once(socket, family, name) {
            Err(error) if error.is_transient() => {}
            done => return done,
        }
    }
    read_once(socket, family, name)
}

fn read_once(
    socket: &mut Socket,
    family: TableFamily,
    name: &str,
) -> Result<Option<(Table, UnknownObjects)>> {
    let mut table = Table::new(family, name);
    let mut unknown_objects = UnknownObjects::new();
    match one(
        socket,
        family,
        m::GETTABLE,
        |out| _ = out.text(a::TABLE_NAME, name),
        |found| {
            table.comment = comment(found, a::TABLE_USERDATA, COMMENT)?;
            let flags = number(found, a::TABLE_FLAGS)?.unwrap_or_default();
            let known = TABLE_FLAGS.iter().filter(|(flag, _)| flags & flag != 0);
            unknown_objects.extend(known.map(|(_, name)| format!("flag {name}")));
            if flags >= 8 {
                unknown_objects.push(format!("flags {flags:#x}"));
            }
            Ok(())
        },
    ) {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT)) => return Ok(None),
        done => done?,
    }
    let of_table = |attribute: u16| move |out: &mut Writer<'_>| _ = out.text(attribute, name);
    // Before Linux 5.x, dumps of chains and rules ignore the name of the table, so check it here.
    list(socket, family, m::GETCHAIN, of_table(a::CHAIN_TABLE), |found| {
        if text(found, a::CHAIN_TABLE)?.as_deref() == Some(name)
            && read_chain(found, &mut table, &mut unknown_objects).is_err()
        {
            unknown_objects.push(unreadable(found, "chain", a::CHAIN_NAME));
        }
        Ok(())
    })?;
    list(socket, family, m::GETRULE, of_table(a::RULE_TABLE), |found| {
        if text(found, a::RULE_TABLE)?.as_deref() == Some(name) && read_rule(found, &mut table).is_err() {
            unknown_objects.push(unreadable(found, "rule of chain", a::RULE_CHAIN));
        }
        Ok(())
    })?;
    list(socket, family, m::GETSET, of_table(a::SET_TABLE), |found| {
        if text(found, a::SET_TABLE)?.as_deref() == Some(name)
            && read_set(found, &mut table, &mut unknown_objects).is_err()
        {
            unknown_objects.push(unreadable(found, "set", a::SET_NAME));
        }
        Ok(())
    })?;
    list(socket, family, m::GETOBJ, of_table(a::OBJ_TABLE), |found| {
        if text(found, a::OBJ_TABLE)?.as_deref() == Some(name) {
            let object: Arc<str> = text(found, a::OBJ_NAME)?.unwrap_or_default().into();
            match number(found, a::OBJ_TYPE)? {
                Some(OBJECT_COUNTER) => {
                    table.counters.insert(object, comment(found, a::OBJ_USERDATA, COMMENT)?);
                }
                _ => unknown_objects.push(format!("object {object}")),
            }
        }
        Ok(())
    })?;
    unknown_objects.extend(flow_tables(socket, family, name)?);
    for (set, content) in &mut table.sets {
        let (elements, unknown) = read_all_elements(socket, family, name, set, &content.spec)?;
        content.unknown = unknown;
        // Rules add the elements of dynamic sets.
        if !content.spec.dynamic {
            content.elements = elements;
        }
    }
    Ok(Some((table, unknown_objects)))
}

/// Lists the flow tables of a table.
fn flow_tables(socket: &mut Socket, family: TableFamily, name: &str) -> Result<UnknownObjects> {
    let mut flow_tables = UnknownObjects::new();
    let of_table = |out: &mut Writer<'_>| _ = out.text(a::FLOWTABLE_TABLE, name);
    let listed = list(socket, family, m::GETFLOWTABLE, of_table, |found| {
        if text(found, a::FLOWTABLE_TABLE)?.as_deref() == Some(name) {
            let flow_table = text(found, a::FLOWTABLE_NAME)?.unwrap_or_default();
            flow_tables.push(format!("flowtable {flow_table}"));
        }
        Ok(())
    });
    match listed {
        // The kernel does not support flow tables.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(flow_tables),
        listed => listed.map(|()| flow_tables),
    }
}

/// Describes an object that cannot be decoded by its kind and, if possible, its name.
fn unreadable(found: &Attributes<'_>, kind: &str, name: u16) -> String {
    format!("{kind} {} (unreadable)", text(found, name).ok().flatten().unwrap_or_default())
}

/// Reads the elements of a set, except those that [`Element`] cannot express.
///
/// # Errors
/// As [`read`]; [`Error::Rejected`] with `ENOENT` if the set does not exist.
pub fn read_elements(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    set: &str,
    spec: &SetSpec,
) -> Result<HashMap<Key, Element>> {
    read_all_elements(socket, family, table, set, spec).map(|(elements, _)| elements)
}

/// Reads the elements of a set, and the keys of those that [`Element`] cannot express, as `nft` would print them.
fn read_all_elements(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    set: &str,
    spec: &SetSpec,
) -> Result<(HashMap<Key, Element>, Vec<String>)> {
    let (mut elements, mut unknown) = (Vec::new(), Vec::new());
    let wanted = |out: &mut Writer<'_>| _ = out.text(a::ELEMENTS_TABLE, table).text(a::ELEMENTS_SET, set);
    list(socket, family, m::GETSETELEM, wanted, |found| {
        let Some(all) = find(found, a::ELEMENTS)? else { return Ok(()) };
        for element in all.nested() {
            let element = element?;
            match read_element(&element, spec) {
                Ok(read) => elements.push(read),
                Err(_) => unknown.push(unknown_element(&element)),
            }
        }
        Ok(())
    })?;
    unknown.sort();
    if spec.interval && !spec.has_range_elements() {
        return Ok((ranges(elements, spec), unknown));
    }
    Ok((elements.into_iter().map(|(key, element, _)| (key, element)).collect(), unknown))
}

/// Reads the packets and bytes of all named counters of a table, by name.
///
/// # Errors
/// As [`read`].
pub fn read_counters(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
) -> Result<HashMap<String, (u64, u64)>> {
    let mut counters = HashMap::new();
    let wanted = |out: &mut Writer<'_>| _ = out.text(a::OBJ_TABLE, table).u32_be(a::OBJ_TYPE, OBJECT_COUNTER);
    list(socket, family, m::GETOBJ, wanted, |found| {
        if text(found, a::OBJ_TABLE)?.as_deref() != Some(table)
            || number(found, a::OBJ_TYPE)? != Some(OBJECT_COUNTER)
        {
            return Ok(());
        }
        let (mut packets, mut bytes) = (0, 0);
        if let Some(data) = find(found, a::OBJ_DATA)? {
            for attribute in data.nested() {
                let attribute = attribute?;
                match attribute.kind {
                    a::COUNTER_PACKETS => packets = attribute.u64_be()?,
                    a::COUNTER_BYTES => bytes = attribute.u64_be()?,
                    _ => {}
                }
            }
        }
        counters.insert(text(found, a::OBJ_NAME)?.unwrap_or_default(), (packets, bytes));
        Ok(())
    })?;
    Ok(counters)
}

fn read_chain(
    found: &Attributes<'_>,
    table: &mut Table,
    unknown_objects: &mut UnknownObjects,
) -> Result<(), Malformed> {
    let name: Arc<str> = text(found, a::CHAIN_NAME)?.unwrap_or_default().into();
    let flags = number(found, a::CHAIN_FLAGS)?.unwrap_or_default();
    if flags & CHAIN_BINDING != 0 {
        // An anonymous chain is deleted with the rule that contains it, which another process added too.
        return Ok(());
    }
    if flags & CHAIN_HW_OFFLOAD != 0 {
        unknown_objects.push(format!("chain {name}"));
        return Ok(());
    }
    let mut base = None;
    if let Some(hook) = find(found, a::CHAIN_HOOK)? {
        let hook = hook.nested();
        let kind = match text(found, a::CHAIN_TYPE)?.as_deref() {
            Some("filter") => Some(ChainKind::Filter),
            Some("nat") => Some(ChainKind::Nat),
            _ => None,
        };
        let accepts = number(found, a::CHAIN_POLICY)? == Some(libc::NF_ACCEPT as u32);
        let place = number(&hook, a::HOOK_NUMBER)?.and_then(Hook::from_number);
        let (Some(kind), Some(place), true) = (kind, place, accepts) else {
            unknown_objects.push(format!("chain {name}"));
            return Ok(());
        };
        let priority = number(&hook, a::HOOK_PRIORITY)?.unwrap_or_default() as i32;
        base = Some(BaseChain { kind, hook: place, priority });
    }
    let comment = comment(found, a::CHAIN_USERDATA, COMMENT)?;
    table.chains.insert(name, Chain { base, rules: Vec::new(), comment });
    Ok(())
}

fn read_rule(found: &Attributes<'_>, table: &mut Table) -> Result<(), Malformed> {
    let name = text(found, a::RULE_CHAIN)?.unwrap_or_default();
    let mut expressions = Vec::new();
    if let Some(list) = find(found, a::RULE_EXPRESSIONS)? {
        for element in list.nested() {
            expressions.push(Expression::read(&element?));
        }
    }
    let comment = comment(found, a::RULE_USERDATA, COMMENT)?;
    if let Some(chain) = table.chains.get_mut(name.as_str()) {
        chain.rules.push(Rule::from_parts(expressions, comment));
    }
    Ok(())
}

fn read_set(
    found: &Attributes<'_>,
    table: &mut Table,
    unknown_objects: &mut UnknownObjects,
) -> Result<(), Malformed> {
    let name: Arc<str> = text(found, a::SET_NAME)?.unwrap_or_default().into();
    let flag_bits = number(found, a::SET_FLAGS)?.unwrap_or_default();
    let known = flags::INTERVAL | flags::MAP | flags::TIMEOUT | flags::EVAL | flags::CONCAT;
    let key = number(found, a::SET_KEY_TYPE)?.and_then(types_from_number).filter(|key| !key.is_empty());
    let data_type = number(found, a::SET_DATA_TYPE)?.unwrap_or_default();
    let data = if flag_bits & flags::MAP == 0 { Some(Vec::new()) } else { types_from_number(data_type) };
    let has_expressions = find(found, a::SET_EXPR)?.is_some() || find(found, a::SET_EXPRESSIONS)?.is_some();
    let (Some(key), Some(data), true) = (key, data, flag_bits & !known == 0 && !has_expressions) else {
        // An anonymous set is deleted with the rule that uses it, which another process added too.
        if flag_bits & flags::ANONYMOUS == 0 {
            unknown_objects.push(format!("set {name}"));
        }
        return Ok(());
    };
    let timeout = find(found, a::SET_TIMEOUT)?.map(|attribute| attribute.u64_be()).transpose()?;
    let size = match find(found, a::SET_DESC)? {
        Some(description) => number(&description.nested(), a::SET_DESC_SIZE)?,
        None => None,
    };
    let spec = SetSpec {
        key: key.into(),
        data: data.into(),
        interval: flag_bits & flags::INTERVAL != 0,
        dynamic: flag_bits & flags::EVAL != 0,
        timeout: (flag_bits & flags::TIMEOUT != 0).then_some(timeout.unwrap_or(0)),
        size,
        comment: comment(found, a::SET_USERDATA, SET_COMMENT)?,
    };
    table.sets.insert(name, Set::new(spec));
    Ok(())
}

/// Decodes an element. The boolean is true for the end of a range.
fn read_element(found: &Attribute<'_>, spec: &SetSpec) -> Result<(Key, Element, bool), Malformed> {
    let (mut key, mut element, mut ends) = (None, Element::new(), false);
    let read_key = |attribute: &Attribute<'_>| {
        let (bytes, expected) = (Data::read(attribute)?.bytes()?, spec.key_length());
        match bytes.len() {
            length if length == expected => Ok(Key::from_kernel(bytes)),
            present => Err(Malformed::Payload { kind: attribute.kind, expected, present }),
        }
    };
    for attribute in found.nested() {
        let attribute = attribute?;
        match attribute.kind {
            a::ELEMENT_KEY => key = Some(read_key(&attribute)?),
            a::ELEMENT_KEY_END => element.last = Some(read_key(&attribute)?),
            a::ELEMENT_DATA => {
                element.data = Some(match Data::read(&attribute)? {
                    Data::Bytes(bytes) => ElementData::Value(Key::from_kernel(bytes)),
                    Data::Verdict(verdict) => ElementData::Verdict(verdict),
                });
            }
            a::ELEMENT_FLAGS => {
                let flags = attribute.u32_be()?;
                if flags & !INTERVAL_END != 0 {
                    return Err(Malformed::Missing("an element without unknown flags"));
                }
                ends = flags & INTERVAL_END != 0;
            }
            a::ELEMENT_EXPR | a::ELEMENT_EXPRESSIONS | a::ELEMENT_OBJREF => {
                return Err(Malformed::Missing("an element without expressions"));
            }
            a::ELEMENT_TIMEOUT => {
                element.timeout = Some(attribute.u64_be()?).filter(|timeout| spec.timeout != Some(*timeout));
            }
            _ => {}
        }
    }
    Ok((key.ok_or(Malformed::Missing("NFTA_SET_ELEM_KEY"))?, element, ends))
}

/// Returns the key of an element that [`Element`] cannot express: `*` for a catch-all element, else its bytes.
fn unknown_element(found: &Attribute<'_>) -> String {
    let attributes = || found.nested().flatten();
    let flags = attributes().find(|attribute| attribute.kind == a::ELEMENT_FLAGS);
    if flags.is_some_and(|flags| flags.u32_be().is_ok_and(|flags| flags & CATCH_ALL != 0)) {
        return "*".to_owned();
    }
    let key = attributes().find(|attribute| attribute.kind == a::ELEMENT_KEY);
    let bytes = key.as_ref().and_then(|key| Data::read(key).ok()?.bytes().ok()).unwrap_or_default();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{hex} (an element of an unknown kind)")
}

/// Joins the starts and ends of ranges.
fn ranges(mut elements: Vec<(Key, Element, bool)>, spec: &SetSpec) -> HashMap<Key, Element> {
    // If one range ends where the next begins, the end comes first.
    elements.sort_by(|a, b| (&a.0, !a.2).cmp(&(&b.0, !b.2)));
    let mut ranges = HashMap::new();
    let mut open: Option<(Key, Element)> = None;
    for (key, element, ends) in elements {
        if let Some((first, mut range)) = open.take() {
            range.last = key.predecessor(spec.key_length());
            ranges.insert(first, range);
        }
        if !ends {
            open = Some((key, element));
        }
    }
    if let Some((first, mut range)) = open {
        range.last = Some(Key::new().part(&vec![255; spec.key_length()]));
        ranges.insert(first, range);
    }
    ranges
}

fn request(family: TableFamily, message: u8, fill: impl FnOnce(&mut Writer<'_>)) -> Result<Batch> {
    Batch::with_message(ACTION, netfilter::kind(Subsystem::NfTables, message), 0, |out| {
        out.netfilter_resource(family as u8, 0);
        fill(out);
    })
}

fn one(
    socket: &mut Socket,
    family: TableFamily,
    message: u8,
    fill: impl FnOnce(&mut Writer<'_>),
    mut read: impl FnMut(&Attributes<'_>) -> Result<(), Malformed>,
) -> Result<()> {
    socket.query(ACTION, &mut request(family, message, fill)?, |message| each(message, &mut read))
}

fn list(
    socket: &mut Socket,
    family: TableFamily,
    message: u8,
    fill: impl FnOnce(&mut Writer<'_>),
    mut read: impl FnMut(&Attributes<'_>) -> Result<(), Malformed>,
) -> Result<()> {
    let dumped =
        socket.dump(ACTION, &mut request(family, message, fill)?, |message| each(message, &mut read));
    match dumped {
        // The table was deleted between two dumps.
        Err(error) if error.errno() == Some(libc::ENOENT) => Err(Error::Interrupted { action: ACTION }),
        done => done,
    }
}

fn each(message: Message<'_>, read: &mut impl FnMut(&Attributes<'_>) -> Result<(), Malformed>) -> Result<()> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
    read(&attributes).during(ACTION)
}

fn find<'a>(attributes: &Attributes<'a>, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
    for attribute in attributes.clone() {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

fn text(attributes: &Attributes<'_>, kind: u16) -> Result<Option<String>, Malformed> {
    Ok(find(attributes, kind)?.map(|attribute| attribute.text()))
}

fn number(attributes: &Attributes<'_>, kind: u16) -> Result<Option<u32>, Malformed> {
    find(attributes, kind)?.map(|attribute| attribute.u32_be()).transpose()
}

fn comment(attributes: &Attributes<'_>, kind: u16, of: u8) -> Result<Option<Arc<str>>, Malformed> {
    let user_data = find(attributes, kind)?;
    Ok(user_data.and_then(|user_data| comment::read(user_data.payload, of)).map(Arc::from))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::nf_tables::data_type::DataType;

    proptest! {
        /// Random, truncated or unexpected messages are decoded or rejected without panicking.
        #[test]
        fn any_message_is_decoded_or_malformed(
            attributes in vec((0u16..20, vec(0u8.., 0..40)), 0..10),
            interval: bool,
        ) {
            let batch = Batch::with_message("test", 1, 0, |out| {
                for (kind, payload) in &attributes {
                    out.bytes(*kind, payload);
                }
            });
            let batch = batch.expect("a short message");
            let found = Attributes::new(&batch.bytes()[crate::message::HEADER..]);
            let (mut table, mut unknown_objects) = (Table::new(TableFamily::Inet, "test"), UnknownObjects::new());
            let _ = read_chain(&found, &mut table, &mut unknown_objects);
            let _ = read_rule(&found, &mut table);
            let _ = read_set(&found, &mut table, &mut unknown_objects);
            let _ = table.to_string();
            let spec = SetSpec { interval, ..SetSpec::new(&[DataType::Ipv4Addr]) };
            let elements = found.flatten().filter_map(|element| read_element(&element, &spec).ok());
            let set = Set::with_elements(spec.clone(), ranges(elements.collect(), &spec));
            let _ = set.to_string();
        }
    }
}
