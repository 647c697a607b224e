//! The nf_tables object that the kernel rejected, from the message that it rejected.

use std::net::IpAddr;

use super::constants::{attributes as a, messages as m};
use super::data::Data;
use crate::attribute::{Attribute, Attributes, align};
use crate::error::Error;
use crate::message::{HEADER, Message};
use crate::netfilter;

/// Adds the object of the rejected message to an error; for elements, the one at the offset that the kernel returned.
pub(super) fn name_object(message: Message<'_>, error: Error) -> Error {
    let Ok((_, attributes)) = message.split::<{ netfilter::HEADER }>() else { return error };
    let texts = |kind: u16| {
        let found = attributes.clone().flatten().find(|attribute| attribute.kind == kind);
        found.map(|attribute| attribute.text()).unwrap_or_default()
    };
    let verb = |new: u8| if message.kind & 0xff == u16::from(new) { "" } else { "removal of " };
    let object = match (message.kind & 0xff) as u8 {
        m::NEWTABLE | m::DELTABLE => format!("{}table {}", verb(m::NEWTABLE), texts(a::TABLE_NAME)),
        m::NEWCHAIN | m::DELCHAIN => format!("{}chain {}", verb(m::NEWCHAIN), texts(a::CHAIN_NAME)),
        m::NEWRULE | m::DELRULE => {
            let comment = attributes.clone().flatten().find(|attribute| attribute.kind == a::RULE_USERDATA);
            let comment = comment.and_then(|c| super::comment::read(c.payload, super::comment::COMMENT));
            let comment = comment.map(|comment| format!(" ({comment})")).unwrap_or_default();
            format!("{}a rule of chain {}{comment}", verb(m::NEWRULE), texts(a::RULE_CHAIN))
        }
        m::NEWSET | m::DELSET => format!("{}set {}", verb(m::NEWSET), texts(a::SET_NAME)),
        m::NEWOBJ | m::DELOBJ => format!("{}counter {}", verb(m::NEWOBJ), texts(a::OBJ_NAME)),
        m::NEWSETELEM | m::DELSETELEM => {
            let offset = match &error {
                Error::Rejected { offset, .. } => *offset,
                _ => None,
            };
            let key = offset.and_then(|offset| key_at(message, offset as usize));
            let key = key.map_or_else(String::new, |key| format!(" {key}"));
            format!("{}element{key} of set {}", verb(m::NEWSETELEM), texts(a::ELEMENTS_SET))
        }
        other => format!("message {other}"),
    };
    error.with_object(object)
}

/// Returns the key of the element at an offset in the message.
fn key_at(message: Message<'_>, offset: usize) -> Option<String> {
    let mut at = HEADER + netfilter::HEADER;
    for attribute in Attributes::new(message.payload.get(netfilter::HEADER..)?).flatten() {
        let end = at + align(crate::attribute::HEADER + attribute.payload.len());
        if attribute.kind == a::ELEMENTS {
            let mut element_at = at + crate::attribute::HEADER;
            for element in attribute.nested().flatten() {
                let element_end = element_at + align(crate::attribute::HEADER + element.payload.len());
                if (element_at..element_end).contains(&offset) {
                    return print_key(&element);
                }
                element_at = element_end;
            }
        }
        at = end;
    }
    None
}

fn print_key(element: &Attribute<'_>) -> Option<String> {
    let key = element.nested().flatten().find(|attribute| attribute.kind == a::ELEMENT_KEY)?;
    let Ok(Data::Bytes(bytes)) = Data::read(&key) else { return None };
    // The message does not contain the types of the parts. Most short keys are addresses.
    Some(match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}
