//! Lists sets and their entries.

use super::create::IPSET_ATTR_MAXELEM;
use super::entry::{IPSET_ATTR_PORT, SetEntry};
use super::rejection::ForSet;
use super::{IpSets, SetType, attributes, commands, named, request};
use crate::attribute::{Attribute, Malformed, NETWORK_ORDER};
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::Message;
use crate::netfilter;

/// `IPSET_FLAG_LIST_SETNAME`: names only.
const NAMES: u32 = 1 << 1;
/// `IPSET_FLAG_LIST_HEADER`: no entries.
const HEADERS: u32 = 1 << 2;

const IPSET_ATTR_ELEMENTS: u16 = 24;
const IPSET_ATTR_REFERENCES: u16 = 25;

/// The properties of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetHeader {
    /// The kernel's name for the type; see [`SetType::from_name`].
    pub type_name: String,
    /// The revision of the type.
    pub revision: u8,
    /// `None` for a type without family.
    pub family: Option<Family>,
    /// The number of rules and sets that refer to it, including rules of the nft flavour of iptables.
    pub references: u32,
    /// The number of entries; `None` before Linux 4.10.
    pub elements: Option<u32>,
    /// The maximum number of entries; `None` for a bitmap.
    pub maxelem: Option<u32>,
}

impl SetHeader {
    /// Returns true if the set has this type, and this family unless the type has none.
    pub fn is(&self, set_type: SetType, family: Family) -> bool {
        self.type_name == set_type.name() && (!set_type.has_family() || self.family == Some(family))
    }
}

impl IpSets {
    /// Returns the names of all sets, in the kernel's order (usually by age).
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected), usually without CAP_NET_ADMIN.
    pub fn names(&mut self) -> Result<Vec<String>> {
        const ACTION: &str = "list the ipsets";
        let mut names = Vec::new();
        let mut query = request(ACTION, commands::LIST, 0, |message| {
            message.u32_be(NETWORK_ORDER | attributes::FLAGS, NAMES);
        })?;
        self.socket.dump(ACTION, &mut query, |message| {
            let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
            for name in inside(attributes, attributes::SETNAME) {
                names.push(name.during(ACTION)?.text());
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Returns the properties of a set; `None` if it is missing.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName), or a rejection other than "no such set".
    pub fn header(&mut self, name: &str) -> Result<Option<SetHeader>> {
        const ACTION: &str = "read an ipset";
        let mut header = None;
        let mut query = named(ACTION, commands::LIST, 0, name, |message| {
            message.u32_be(NETWORK_ORDER | attributes::FLAGS, HEADERS);
        })?;
        let listed = self.socket.dump(ACTION, &mut query, |message| {
            header = Some(parse_header(&message).during(ACTION)?);
            Ok(())
        });
        match listed {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            listed => listed.for_set(name).map(|()| header),
        }
    }

    /// Calls `each` for every entry of a set, while the kernel sends them. Skips entries of types other than [`SetType`]'s.
    /// Returns false if the set is missing.
    ///
    /// # Errors
    /// The error of `each`; [`Error::BadName`](crate::Error::BadName), or a rejection other than "no such set".
    pub fn entries(&mut self, name: &str, mut each: impl FnMut(SetEntry) -> Result<()>) -> Result<bool> {
        self.elements("list an ipset", name, &mut |data| match SetEntry::parse(data)
            .during("list an ipset")?
        {
            Some((entry, _)) => each(entry),
            None => Ok(()),
        })
    }

    /// Returns the ports in a set of ports, or of addresses and ports; none if the set is missing.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName), or a rejection other than "no such set".
    pub fn ports(&mut self, name: &str) -> Result<Vec<u16>> {
        const ACTION: &str = "list an ipset";
        let mut ports = Vec::new();
        self.elements(ACTION, name, &mut |data| {
            for port in inside(data.nested(), IPSET_ATTR_PORT) {
                ports.push(port.and_then(|port| port.u16_be()).during(ACTION)?);
            }
            Ok(())
        })?;
        Ok(ports)
    }

    /// Calls `each` for the elements of a set. Returns false if the set is missing.
    fn elements(
        &mut self,
        action: &'static str,
        name: &str,
        each: &mut dyn FnMut(&Attribute<'_>) -> Result<()>,
    ) -> Result<bool> {
        let mut query = named(action, commands::LIST, 0, name, |_| {})?;
        let listed = self.socket.dump(action, &mut query, |message| {
            let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(action)?;
            for elements in inside(attributes, attributes::ADT) {
                for element in inside(elements.during(action)?.nested(), attributes::DATA) {
                    each(&element.during(action)?)?;
                }
            }
            Ok(())
        });
        match listed {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            listed => listed.for_set(name).map(|()| true),
        }
    }
}

fn parse_header(message: &Message<'_>) -> Result<SetHeader, Malformed> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
    let (mut type_name, mut revision, mut family) = (None, None, None);
    let (mut references, mut elements, mut maxelem) = (0, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            attributes::TYPENAME => type_name = Some(attribute.text()),
            attributes::REVISION => revision = Some(attribute.u8()?),
            attributes::FAMILY => family = Family::from_number(attribute.u8()?),
            attributes::DATA => {
                for data in attribute.nested() {
                    let data = data?;
                    match data.kind {
                        IPSET_ATTR_MAXELEM => maxelem = Some(data.u32_be()?),
                        IPSET_ATTR_ELEMENTS => elements = Some(data.u32_be()?),
                        IPSET_ATTR_REFERENCES => references = data.u32_be()?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(SetHeader {
        type_name: type_name.ok_or(Malformed::Missing("IPSET_ATTR_TYPENAME"))?,
        revision: revision.ok_or(Malformed::Missing("IPSET_ATTR_REVISION"))?,
        family,
        references,
        elements,
        maxelem,
    })
}

pub(super) fn inside<'a>(
    attributes: impl Iterator<Item = Result<Attribute<'a>, Malformed>>,
    kind: u16,
) -> impl Iterator<Item = Result<Attribute<'a>, Malformed>> {
    attributes.filter(move |attribute| attribute.as_ref().map_or(true, |a| a.kind == kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let message = Message { kind: 0x0607, flags: 0, sequence: 1, payload: &payload };
            let _ = parse_header(&message);
        }
    }
}
