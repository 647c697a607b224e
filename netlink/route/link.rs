use super::u32_at;
use crate::attribute::{Malformed, Writer};
use crate::message::Message;

/// Bytes of `struct ifinfomsg`: u8 family, pad, u16 hardware type, i32 index, u32 flags, u32 change.
const HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface's number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// What made it: "veth", "bridge", "dummy", …; `None` for hardware and the loopback.
    pub kind: Option<String>,
    /// The bridge or bond of which it is a port, by its number.
    pub controller: Option<u32>,
    /// The other end of a "veth", if it is in another network namespace.
    pub peer: Option<LinkPeer>,
}

/// The other end of a link, in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkPeer {
    /// The number by which the link's network namespace knows the other one.
    pub netns: i32,
    /// The other end's number there.
    pub index: u32,
}

impl Link {
    /// Whether it is set up (`IFF_UP`), which says nothing of the cable.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Whether it is the loopback.
    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }

    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        if message.kind != libc::RTM_NEWLINK {
            return Ok(None);
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let (mut name, mut kind, mut controller, mut other_end, mut netns) = (None, None, None, None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFLA_IFNAME => name = Some(attribute.text()),
                IFLA_LINK => other_end = Some(attribute.u32()?),
                IFLA_MASTER => controller = Some(attribute.u32()?),
                IFLA_LINK_NETNSID => netns = Some(attribute.u32()? as i32).filter(|number| *number >= 0),
                IFLA_LINKINFO => {
                    for info in attribute.nested() {
                        let info = info?;
                        if info.kind == IFLA_INFO_KIND {
                            kind = Some(info.text());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Some(Link {
            index: u32_at(header, 4),
            name: name.ok_or(Malformed::Missing("IFLA_IFNAME"))?,
            flags: u32_at(header, 8),
            kind,
            controller,
            peer: netns.zip(other_end).map(|(netns, index)| LinkPeer { netns, index }),
        }))
    }
}

/// The header of a request for all links.
pub(super) fn request() -> [u8; HEADER] {
    [0; HEADER]
}

/// The header of a request for one link.
pub(super) fn request_for(index: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// The longest name of a link, in bytes (`IFNAMSIZ` less the NUL).
pub(super) const NAME_MOST: usize = 15;

/// Writes a request about the link of this name.
pub(super) fn write_named(message: &mut Writer<'_>, name: &str) {
    message.raw(&request()).text(IFLA_IFNAME, name);
}

/// Writes what kind of link a new one is to be.
pub(super) fn write_kind(message: &mut Writer<'_>, kind: &str) {
    message.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, kind);
    });
}
