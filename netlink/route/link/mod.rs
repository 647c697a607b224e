//! Links: network interfaces.

mod add;
mod delete;
mod get;
mod list;
mod namespace_id;

use netlink_packet_core::{DecodeError, NlasIterator, ParseableParametrized};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkHeader, LinkMessage};

use super::message::{attributes, text};
use crate::error::{Error, Result};
use crate::message::Message;

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;

/// The attributes that are parsed.
const NEEDED: [u16; 5] =
    [libc::IFLA_IFNAME, libc::IFLA_LINKINFO, libc::IFLA_LINK, libc::IFLA_MASTER, libc::IFLA_LINK_NETNSID];

/// Maximum length of a link's name in bytes (`IFNAMSIZ` without the NUL).
const MAX_NAME: usize = 15;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// Its kind: "veth", "bridge", "dummy", …; `None` for hardware and the loopback.
    pub kind: Option<String>,
    /// The index of the bridge or bond of which it is a port.
    pub controller: Option<u32>,
    /// The other end of a veth pair, if it is in another network namespace.
    pub peer: Option<LinkPeer>,
}

/// The other end of a veth pair, in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkPeer {
    /// The id of the peer's network namespace in the link's network namespace.
    pub netns: i32,
    /// The peer's index in its network namespace.
    pub index: u32,
}

impl Link {
    /// Returns true if the link is set up (`IFF_UP`), whatever its carrier.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Returns true if the link is the loopback.
    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }

    /// Parses a `RTM_NEWLINK` message; `None` for any other.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if message.kind != libc::RTM_NEWLINK {
            return Ok(None);
        }
        let header = LinkHeader::parse(message.payload)?;
        let (mut name, mut kind, mut controller, mut peer_index, mut netns) = (None, None, None, None, None);
        for attribute in attributes(message, HEADER, &NEEDED) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_IFNAME => name = Some(text(attribute.value())),
                libc::IFLA_LINKINFO => kind = parse_kind(attribute.value())?,
                _ => match LinkAttribute::parse_with_param(&attribute, header.interface_family)? {
                    LinkAttribute::Link(index) => peer_index = Some(index),
                    LinkAttribute::Controller(index) => controller = Some(index),
                    LinkAttribute::LinkNetNsId(id) => netns = Some(id).filter(|id| *id >= 0),
                    _ => {}
                },
            }
        }
        Ok(Some(Link {
            index: header.index,
            name: name.ok_or("IFLA_IFNAME is missing")?,
            flags: header.flags.bits(),
            kind,
            controller,
            peer: netns.zip(peer_index).map(|(netns, index)| LinkPeer { netns, index }),
        }))
    }
}

/// Returns the kind in `IFLA_LINKINFO`. The data of the kind is not parsed.
fn parse_kind(link_info: &[u8]) -> Result<Option<String>, DecodeError> {
    for info in NlasIterator::new(link_info) {
        let info = info?;
        if info.kind() == libc::IFLA_INFO_KIND {
            return Ok(Some(text(info.value())));
        }
    }
    Ok(None)
}

/// Returns a message about the link with this name.
fn named(action: &'static str, name: &str) -> Result<LinkMessage> {
    Error::check_name(action, name, MAX_NAME)?;
    let mut message = unspecified();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(message)
}

/// Returns a message with an empty header.
fn unspecified() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    message
}
