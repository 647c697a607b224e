//! Links: network interfaces.

mod add;
mod bridge;
mod change;
mod delete;
mod get;
mod list;
mod namespace_id;
mod veth;
mod vxlan;

pub use change::LinkChange;
pub use veth::VethEnd;
pub use vxlan::{ExistingVxlan, VxlanLink};

use std::fmt;

use netlink_packet_core::{DecodeError, NlasIterator, ParseableParametrized};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkHeader, LinkMessage};

use super::message::{attributes, text};
use crate::error::{Error, Result};
use crate::message::Message;

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;

/// The attributes that are parsed.
const NEEDED: [u16; 9] = [
    libc::IFLA_IFNAME,
    libc::IFLA_LINKINFO,
    libc::IFLA_LINK,
    libc::IFLA_MASTER,
    libc::IFLA_LINK_NETNSID,
    libc::IFLA_ADDRESS,
    libc::IFLA_MTU,
    libc::IFLA_IFALIAS,
    libc::IFLA_OPERSTATE,
];

/// `IF_OPER_UP`.
const OPERATIONAL: u8 = 6;

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
    /// Its Ethernet address; `None` for a link of another kind.
    pub mac: Option<MacAddress>,
    /// Its MTU.
    pub mtu: u32,
    /// Its alias, a text of up to 255 bytes.
    pub alias: Option<String>,
    /// Whether it transmits packets: it is up, has a carrier, and the kernel has activated its queues (`IF_OPER_UP`). Some kinds of
    /// links never report it.
    pub is_operational: bool,
    /// Whether it is a port of a bridge that sends packets back to the port that they came from.
    pub has_hairpin: bool,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Returns the address in an attribute; `None` if it has another length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(MacAddress)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
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
        let (mut name, mut controller, mut peer_index, mut netns) = (None, None, None, None);
        let (mut info, mut mac, mut mtu, mut alias) = (LinkInfo::default(), None, 0, None);
        let mut is_operational = false;
        for attribute in attributes(message, HEADER, &NEEDED) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_IFNAME => name = Some(text(attribute.value())),
                libc::IFLA_LINKINFO => info = LinkInfo::parse(attribute.value())?,
                libc::IFLA_ADDRESS => mac = MacAddress::from_bytes(attribute.value()),
                libc::IFLA_OPERSTATE => is_operational = attribute.value() == [OPERATIONAL],
                libc::IFLA_IFALIAS => alias = Some(text(attribute.value())),
                _ => match LinkAttribute::parse_with_param(&attribute, header.interface_family)? {
                    LinkAttribute::Link(index) => peer_index = Some(index),
                    LinkAttribute::Controller(index) => controller = Some(index),
                    LinkAttribute::Mtu(bytes) => mtu = bytes,
                    LinkAttribute::LinkNetNsId(id) => netns = Some(id).filter(|id| *id >= 0),
                    _ => {}
                },
            }
        }
        Ok(Some(Link {
            index: header.index,
            name: name.ok_or("IFLA_IFNAME is missing")?,
            flags: header.flags.bits(),
            kind: info.kind,
            controller,
            peer: netns.zip(peer_index).map(|(netns, index)| LinkPeer { netns, index }),
            mac,
            mtu,
            alias,
            is_operational,
            has_hairpin: info.has_hairpin,
        }))
    }
}

/// `IFLA_INFO_SLAVE_DATA`: settings that a bridge has for this port.
const INFO_PORT_DATA: u16 = 5;
/// `IFLA_BRPORT_MODE`: hairpin mode.
const PORT_HAIRPIN: u16 = 4;

/// What is needed of `IFLA_LINKINFO`.
#[derive(Debug, Default)]
struct LinkInfo {
    kind: Option<String>,
    has_hairpin: bool,
}

impl LinkInfo {
    /// Parses the attribute. The data of the kind is skipped.
    fn parse(link_info: &[u8]) -> Result<Self, DecodeError> {
        let mut parsed = LinkInfo::default();
        for info in NlasIterator::new(link_info) {
            let info = info?;
            match info.kind() {
                libc::IFLA_INFO_KIND => parsed.kind = Some(text(info.value())),
                INFO_PORT_DATA => parsed.has_hairpin = has_hairpin(info.value())?,
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// Returns true if settings of a port turn the hairpin mode on. Ports of other links have other settings of this number, none of
/// one byte.
fn has_hairpin(port_data: &[u8]) -> Result<bool, DecodeError> {
    for setting in NlasIterator::new(port_data) {
        let setting = setting?;
        if setting.kind() == PORT_HAIRPIN {
            return Ok(setting.value() == [1]);
        }
    }
    Ok(false)
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
