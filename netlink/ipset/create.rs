use super::entry::IPSET_ATTR_PORT;
use super::rejection::{About, NO_SUCH_TYPE};
use super::{IpSets, SetType, attributes, commands, named, request};
use crate::attribute::{Malformed, NETWORK_ORDER};
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::{EXCLUSIVE, Message};
use crate::netfilter;

/// How many entries a set may have unless it is told otherwise (`IPSET_DEFAULT_MAXELEM`).
pub const DEFAULT_MAXELEM: u32 = 65_536;
/// The buckets that a set begins with (`IPSET_DEFAULT_HASHSIZE`); it grows.
const HASHSIZE: u32 = 1024;

const IPSET_ATTR_PORT_TO: u16 = 5;
const IPSET_ATTR_HASHSIZE: u16 = 18;
pub(super) const IPSET_ATTR_MAXELEM: u16 = 19;
/// `IPSET_ATTR_REVISION_MIN`: in an answer about a type, its first revision beside its last.
const REVISION_MIN: u16 = 10;

/// What became of a set that was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now, and empty.
    Yes,
    /// It was there with this type and family, and keeps its entries and its limit.
    Existed,
    /// There is a set of that name with another type or family, which stays.
    Different,
}

impl IpSets {
    /// Makes sure that there is a set of this name, type and family, for at most `maxelem` entries
    /// ([`DEFAULT_MAXELEM`]). It is what `ipset create NAME TYPE family inet hashsize 1024 maxelem N` makes,
    /// and for ports `ipset create NAME bitmap:port range 0-65535`, where family and limit mean nothing.
    ///
    /// # Errors
    /// [`Error::Set`](crate::Error::Set) as a rule if the kernel lacks the type;
    /// [`Error::BadName`](crate::Error::BadName) for names outside 1 to 31 bytes.
    pub fn create(&mut self, name: &str, set_type: SetType, family: Family, maxelem: u32) -> Result<Created> {
        const ACTION: &str = "create an ipset";
        let revision = self.revision(set_type, family).about(name)?;
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
            Err(error) => Err(error).about(name),
        }
    }

    /// The last revision of a type that the kernel has and that is known here.
    fn revision(&mut self, set_type: SetType, family: Family) -> Result<u8> {
        const ACTION: &str = "look for a type of ipset";
        let mut question = request(ACTION, commands::TYPE, 0, |message| {
            message
                .text(attributes::TYPENAME, set_type.name())
                .u8(attributes::FAMILY, family_number(set_type, family));
        })?;
        let (first, last) =
            self.socket.query(ACTION, &mut question, |message| revisions(&message).during(ACTION))?;
        let wanted = last.min(set_type.last_revision());
        if wanted < first {
            // A kernel of the future that has forgotten all revisions of today.
            let (errno, text) = (NO_SUCH_TYPE, Some(format!("its first revision of {set_type} is {first}")));
            return Err(crate::Error::Rejected { action: ACTION, errno, text, offset: None });
        }
        Ok(wanted)
    }
}

/// `NFPROTO_UNSPEC` for a type without family.
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
