//! Decoding of chains, rules, sets and elements from netlink attributes.

use std::sync::Arc;

use super::comment::{self, COMMENT, SET_COMMENT};
use super::constants::attributes as a;
use super::data::Data;
use super::dump::UnknownObjects;
use super::element::{Element, ElementData, Key};
use super::elements::Elements;
use super::expression::Expression;
use super::rule::Rule;
use super::set::{SetSpec, types_from_number};
use super::set_flags as flags;
use super::table::{BaseChain, Chain, ChainKind, Hook, Set, Table};
use super::transaction::INTERVAL_END;
use crate::attribute::{Attribute, Attributes, Malformed};

/// Flags of chains (`NFT_CHAIN_*`).
const CHAIN_HW_OFFLOAD: u32 = 2;
const CHAIN_BINDING: u32 = 4;

/// `NFT_SET_ELEM_CATCHALL`: the element without a key, which matches every key that has no element.
const CATCH_ALL: u32 = 2;

pub(super) fn decode_chain(
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
        let hook_number = number(&hook, a::HOOK_NUMBER)?.and_then(Hook::from_number);
        let (Some(kind), Some(hook_number), true) = (kind, hook_number, accepts) else {
            unknown_objects.push(format!("chain {name}"));
            return Ok(());
        };
        let priority = number(&hook, a::HOOK_PRIORITY)?.unwrap_or_default() as i32;
        base = Some(BaseChain { kind, hook: hook_number, priority });
    }
    let comment = comment(found, a::CHAIN_USERDATA, COMMENT)?;
    table.chains.insert(name, Chain { base, rules: Vec::new(), comment });
    Ok(())
}

pub(super) fn decode_rule(found: &Attributes<'_>, table: &mut Table) -> Result<(), Malformed> {
    let name = text(found, a::RULE_CHAIN)?.unwrap_or_default();
    let rule = decode_rule_body(found)?;
    if let Some(chain) = table.chains.get_mut(name.as_str()) {
        chain.rules.push(rule);
    }
    Ok(())
}

pub(super) fn decode_rule_body(found: &Attributes<'_>) -> Result<Rule, Malformed> {
    let mut expressions = Vec::new();
    if let Some(list) = find(found, a::RULE_EXPRESSIONS)? {
        for element in list.nested() {
            expressions.push(Expression::read(&element?));
        }
    }
    Ok(Rule::from_parts(expressions, comment(found, a::RULE_USERDATA, COMMENT)?))
}

pub(super) fn decode_set(
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
    let expression = find(found, a::SET_EXPR)?;
    let counter = expression.as_ref().is_some_and(is_counter);
    let has_expressions = (expression.is_some() && !counter) || find(found, a::SET_EXPRESSIONS)?.is_some();
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
        counter,
        comment: comment(found, a::SET_USERDATA, SET_COMMENT)?,
    };
    table.sets.insert(name, Set::new(spec));
    Ok(())
}

/// Decodes an element. The boolean is true for the end of a range.
pub(super) fn decode_element(
    found: &Attribute<'_>,
    spec: &SetSpec,
) -> Result<(Key, Element, bool), Malformed> {
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
                    Data::Bytes(bytes) if bytes.len() == spec.data_length() => {
                        ElementData::Value(Key::from_kernel(bytes))
                    }
                    Data::Bytes(bytes) => {
                        let (kind, expected, present) = (attribute.kind, spec.data_length(), bytes.len());
                        return Err(Malformed::Payload { kind, expected, present });
                    }
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
            a::ELEMENT_EXPR if spec.counter && is_counter(&attribute) => {}
            a::ELEMENT_EXPR | a::ELEMENT_EXPRESSIONS | a::ELEMENT_OBJREF => {
                return Err(Malformed::Missing("an element without expressions"));
            }
            // Other user data are flags by which `nft` prints ranges.
            a::ELEMENT_USERDATA if comment::read(attribute.payload, COMMENT).is_some() => {
                return Err(Malformed::Missing("an element without a comment"));
            }
            a::ELEMENT_TIMEOUT => {
                element.timeout = Some(attribute.u64_be()?).filter(|timeout| spec.timeout != Some(*timeout));
            }
            _ => {}
        }
    }
    Ok((key.ok_or(Malformed::Missing("NFTA_SET_ELEM_KEY"))?, element, ends))
}

/// Returns true for a counter of a set, or of one of its elements.
fn is_counter(expression: &Attribute<'_>) -> bool {
    Expression::read(expression) == Expression::Counter
}

/// Returns the packets and bytes that an element counted; `None` without a counter.
pub(super) fn element_counts(found: &Attribute<'_>) -> Result<Option<(u64, u64)>, Malformed> {
    let Some(expression) = find(&found.nested(), a::ELEMENT_EXPR)?.filter(is_counter) else {
        return Ok(None);
    };
    find(&expression.nested(), a::EXPR_DATA)?.map(|data| counts(&data)).transpose()
}

/// Returns the packets and bytes of a counter.
pub(super) fn counts(data: &Attribute<'_>) -> Result<(u64, u64), Malformed> {
    let (mut packets, mut bytes) = (0, 0);
    for attribute in data.nested() {
        let attribute = attribute?;
        match attribute.kind {
            a::COUNTER_PACKETS => packets = attribute.u64_be()?,
            a::COUNTER_BYTES => bytes = attribute.u64_be()?,
            _ => {}
        }
    }
    Ok((packets, bytes))
}

/// Returns the key of an element that [`Element`] cannot express: `*` for a catch-all element, else its bytes.
pub(super) fn unknown_element(found: &Attribute<'_>) -> String {
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
pub(super) fn join_ranges(mut elements: Vec<(Key, Element, bool)>, spec: &SetSpec) -> Elements {
    // If one range ends where the next begins, the end comes first.
    elements.sort_by(|a, b| (&a.0, !a.2).cmp(&(&b.0, !b.2)));
    let mut ranges = Elements::new();
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

/// Describes an object that cannot be decoded by its kind and, if possible, its name.
pub(super) fn undecodable(found: &Attributes<'_>, kind: &str, name: u16) -> String {
    format!("{kind} {} (unreadable)", text(found, name).ok().flatten().unwrap_or_default())
}

pub(super) fn find<'a>(attributes: &Attributes<'a>, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
    for attribute in attributes.clone() {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

pub(super) fn text(attributes: &Attributes<'_>, kind: u16) -> Result<Option<String>, Malformed> {
    Ok(find(attributes, kind)?.map(|attribute| attribute.text()))
}

pub(super) fn number(attributes: &Attributes<'_>, kind: u16) -> Result<Option<u32>, Malformed> {
    find(attributes, kind)?.map(|attribute| attribute.u32_be()).transpose()
}

pub(super) fn comment(attributes: &Attributes<'_>, kind: u16, of: u8) -> Result<Option<Arc<str>>, Malformed> {
    let user_data = find(attributes, kind)?;
    Ok(user_data.and_then(|user_data| comment::read(user_data.payload, of)).map(Arc::from))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Batch;
    use crate::nf_tables::TableFamily;
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
            let _ = decode_chain(&found, &mut table, &mut unknown_objects);
            let _ = decode_rule(&found, &mut table);
            let _ = decode_set(&found, &mut table, &mut unknown_objects);
            let _ = table.to_string();
            let spec = SetSpec { interval, ..SetSpec::new(&[DataType::Ipv4Addr]) };
            let elements = found.flatten().filter_map(|element| decode_element(&element, &spec).ok());
            let set = Set::with_elements(spec.clone(), &join_ranges(elements.collect(), &spec));
            let _ = set.to_string();
        }
    }
}
