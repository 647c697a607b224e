//! Creates sets.

use super::entry::IPSET_ATTR_PORT;
use super::rejection::{ForSet, NO_SUCH_TYPE};
use super::{IpSets, SetType, attributes, commands, named, request};
use crate::attribute::{Malformed, NETWORK_ORDER};
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::{EXCLUSIVE, Message};
use crate::netfilter;

/// The default maximum number of entries of a set (`IPSET_DEFAULT_MAXELEM`).
pub const DEFAULT_MAXELEM: u32 = 65_536;
/// The initial number of buckets of a set (`IPSET_DEFAULT_HASHSIZE`); it grows.
const HASHSIZE: u32 = 1024;

const IPSET_ATTR_PORT_TO: u16 = 5;
const IPSET_ATTR_HASHSIZE: u16 = 18;
pub(super) const IPSET_ATTR_MAXELEM: u16 = 19;
/// `IPSET_ATTR_REVISION_MIN`: the first revision in a response about a type.
const REVISION_MIN: u16 = 10;

/// The result of [`IpSets::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The set was created, and is empty.
    Yes,
    /// The set exists with this type and family, and keeps its entries and limit.
    Existed,
    /// A set of this name exists with another type or family, and stays.
    Different,
}

impl IpSets {
    /// Creates a set of this name, type and family, for at most `maxelem` entries ([`DEFAULT_MAXELEM`]), unless it exists.
    /// Equals `ipset create NAME TYPE family inet hashsize 1024 maxelem N`; for ports `ipset create NAME bitmap:port range
    /// 0-65535`, where family and limit have no meaning.
    ///
    /// # Errors
    /// [`Error::Set`](crate::Error::Set) if the kernel lacks the type;
    /// [`Error::BadName`](crate::Error::BadName) for names outside 1 to 31 bytes.
    pub fn create(&mut self, name: &str, set_type: SetType, family: Family, maxelem: u32) -> Result<Created> {
        const ACTION: &str = "create an ipset";
        let revision = self.revision(set_type, family).for_set(name)?;
        let mut request = named(ACTION, commands::CREATE, EXCLUSIVE, name, |message| {
            message
                .text(attributes::TYPENAME, set_type.name())
                .u8(attributes::REVISION, revision)
                .u8(attributes::FAMILY, family_number(set_type, family))
                .nested(attributes::DATA, |data| {
                    match set_type {
                        SetType::BitmapPort => data
                            .u16_be(NETWORK_ORDER | IPSET_ATTR_PORT, 0)
                            .u16_be(NETWORK_ORDER | IPSET_ATTR_PORT_TO, u16::MAX),
                        _ => data
                            .u32_be(NETWORK_ORDER | IPSET_ATTR_HASHSIZE, HASHSIZE)
                            .u32_be(NETWORK_ORDER | IPSET_ATTR_MAXELEM, maxelem),
                    };
                });
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(Created::Yes),
            Err(error) if error.errno() == Some(libc::EEXIST) => match self.header(name)? {
                Some(header) if header.is(set_type, family) => Ok(Created::Existed),
                _ => Ok(Created::Different),
            },
            Err(error) => Err(error).for_set(name),
        }
    }

    /// Returns the last revision of a type that the kernel supports and this crate knows.
    fn revision(&mut self, set_type: SetType, family: Family) -> Result<u8> {
        const ACTION: &str = "look for a type of ipset";
        let mut query = request(ACTION, commands::TYPE, 0, |message| {
            message
                .text(attributes::TYPENAME, set_type.name())
                .u8(attributes::FAMILY, family_number(set_type, family));
        })?;
        let (first, last) =
            self.socket.query(ACTION, &mut query, |message| revisions(&message).during(ACTION))?;
        let wanted = last.min(set_type.last_revision());
        if wanted < first {
            // A future kernel that no longer supports any revision of today.
            let (errno, text) = (NO_SUCH_TYPE, Some(format!("its first revision of {set_type} is {first}")));
            return Err(crate::Error::Rejected { action: ACTION, errno, text, offset: None });
        }
        Ok(wanted)
    }
}

/// Returns the number of a family; `NFPROTO_UNSPEC` for a type without family.
fn family_number(set_type: SetType, family: Family) -> u8 {
    if set_type.has_family() { family.number() } else { libc::AF_UNSPEC as u8 }
}

fn revisions(message: &Message<'_>) -> Result<(u8, u8), Malformed> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
    let (mut first, mut last) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            attributes::REVISION => last = Some(attribute.u8()?),
            REVISION_MIN => first = Some(attribute.u8()?),
            _ => {}
        }
    }
    Ok((first.unwrap_or_default(), last.ok_or(Malformed::Missing("IPSET_ATTR_REVISION"))?))
}
