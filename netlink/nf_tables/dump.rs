//! Reading of tables from the kernel.

use std::collections::HashMap;
use std::sync::Arc;

use super::comment::COMMENT;
use super::constants::{OBJECT_COUNTER, attributes as a, messages as m};
use super::decode_object::{
    comment, counts, decode_chain, decode_element, decode_rule, decode_set, element_counts, find,
    join_ranges, number, text, undecodable, unknown_element,
};
use super::element::Key;
use super::elements::Elements;
use super::set::SetSpec;
use super::table::{Table, TableFamily};
use crate::attribute::{Attributes, Malformed, Writer};
use crate::error::{During, Error, Result};
use crate::message::{Batch, Message};
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const ACTION: &str = "list an nf_tables table";

/// Flags of tables (`NFT_TABLE_F_*`), none of which we set: chains of a dormant table are inactive, and a table with an
/// owner belongs to another process.
const TABLE_FLAGS: [(u32, &str); 3] = [(1, "dormant"), (2, "owner"), (4, "persist")];

/// The number of attempts to read a table while other processes change the rule set.
const MAX_ATTEMPTS: usize = 10;

/// Descriptions of objects that a [`Table`] cannot express, which another process must have added: sets of unknown types,
/// chains with other policies or hooks, flow tables, flags of the table, and objects that cannot be decoded.
pub type UnknownObjects = Vec<String>;

/// Reads a table. Returns `None` if it does not exist. Additions of other processes never make a table unreadable: an
/// unknown object is listed in [`UnknownObjects`] or [`Set::unknown`], and an unknown expression becomes an
/// [`Expression::Unknown`].
///
/// [`Set::unknown`]: super::Set::unknown
/// [`Expression::Unknown`]: super::Expression::Unknown
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN; [`Error::Interrupted`] if other processes keep
/// changing the rule set.
pub fn read(socket: &mut Socket, family: TableFamily, name: &str) -> Result<Option<(Table, UnknownObjects)>> {
    for attempt in 1..MAX_ATTEMPTS {
        match read_once(socket, family, name) {
            Err(error) if error.is_transient() => {}
            // Repeated once: a damaged response is not the table's fault, and a malformed object would be read again.
            Err(Error::Malformed { .. }) if attempt == 1 => {}
            done => return done,
        }
    }
    read_once(socket, family, name)
}

/// Returns true if a table exists. A kernel without its family has none.
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN.
pub fn has_table(socket: &mut Socket, family: TableFamily, name: &str) -> Result<bool> {
    match one(socket, family, m::GETTABLE, |out| _ = out.text(a::TABLE_NAME, name), |_| Ok(())) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
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
            && decode_chain(found, &mut table, &mut unknown_objects).is_err()
        {
            unknown_objects.push(undecodable(found, "chain", a::CHAIN_NAME));
        }
        Ok(())
    })?;
    list(socket, family, m::GETRULE, of_table(a::RULE_TABLE), |found| {
        if text(found, a::RULE_TABLE)?.as_deref() == Some(name) && decode_rule(found, &mut table).is_err() {
            unknown_objects.push(undecodable(found, "rule of chain", a::RULE_CHAIN));
        }
        Ok(())
    })?;
    list(socket, family, m::GETSET, of_table(a::SET_TABLE), |found| {
        if text(found, a::SET_TABLE)?.as_deref() == Some(name)
            && decode_set(found, &mut table, &mut unknown_objects).is_err()
        {
            unknown_objects.push(undecodable(found, "set", a::SET_NAME));
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

/// Reads the elements of a set, except those that [`Element`](super::Element) cannot express.
///
/// # Errors
/// As [`read`]; [`Error::Rejected`] with `ENOENT` if the set does not exist.
pub fn read_elements(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    set: &str,
    spec: &SetSpec,
) -> Result<Elements> {
    read_all_elements(socket, family, table, set, spec).map(|(elements, _)| elements)
}

/// Reads the elements of a set, and the keys of those that [`Element`](super::Element) cannot express, as `nft` would print them.
fn read_all_elements(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    set: &str,
    spec: &SetSpec,
) -> Result<(Elements, Vec<String>)> {
    let joins_ranges = spec.interval && !spec.has_range_elements();
    let (mut elements, mut ends, mut unknown) = (Elements::new(), Vec::new(), Vec::new());
    let wanted = |out: &mut Writer<'_>| _ = out.text(a::ELEMENTS_TABLE, table).text(a::ELEMENTS_SET, set);
    list(socket, family, m::GETSETELEM, wanted, |found| {
        let Some(all) = find(found, a::ELEMENTS)? else { return Ok(()) };
        for element in all.nested() {
            let element = element?;
            match decode_element(&element, spec) {
                Ok(read) if joins_ranges => ends.push(read),
                Ok((key, element, _)) => _ = elements.insert(key, element),
                Err(_) => unknown.push(unknown_element(&element)),
            }
        }
        Ok(())
    })?;
    unknown.sort();
    if joins_ranges {
        elements = join_ranges(ends, spec);
    }
    Ok((elements, unknown))
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
        let counted = find(found, a::OBJ_DATA)?.map(|data| counts(&data)).transpose()?.unwrap_or_default();
        counters.insert(text(found, a::OBJ_NAME)?.unwrap_or_default(), counted);
        Ok(())
    })?;
    Ok(counters)
}

/// Reads the packets and bytes that the elements of a set counted, by key. `spec` is that of the set.
///
/// # Errors
/// As [`read_elements`].
pub fn read_element_counters(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    set: &str,
    spec: &SetSpec,
) -> Result<HashMap<Key, (u64, u64)>> {
    let mut counters = HashMap::new();
    let wanted = |out: &mut Writer<'_>| _ = out.text(a::ELEMENTS_TABLE, table).text(a::ELEMENTS_SET, set);
    list(socket, family, m::GETSETELEM, wanted, |found| {
        let Some(all) = find(found, a::ELEMENTS)? else { return Ok(()) };
        for element in all.nested() {
            let element = element?;
            if let (Ok((key, _, _)), Some(counted)) =
                (decode_element(&element, spec), element_counts(&element)?)
            {
                counters.insert(key, counted);
            }
        }
        Ok(())
    })?;
    Ok(counters)
}

fn request(family: TableFamily, message: u8, fill: impl FnOnce(&mut Writer<'_>)) -> Result<Batch> {
    Batch::with_message(ACTION, netfilter::kind(Subsystem::NfTables, message), 0, |out| {
        out.netfilter_resource(family as u8, 0);
        fill(out);
    })
}

pub(super) fn one(
    socket: &mut Socket,
    family: TableFamily,
    message: u8,
    fill: impl FnOnce(&mut Writer<'_>),
    mut read: impl FnMut(&Attributes<'_>) -> Result<(), Malformed>,
) -> Result<()> {
    socket.query(ACTION, &mut request(family, message, fill)?, |message| each(message, &mut read))
}

pub(super) fn list(
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
