use std::net::IpAddr;

use ipnet::IpNet;

use super::link::LinkPeer;
use super::u32_at;
use crate::attribute::{Malformed, Writer};
use crate::family::Family;
use crate::message::Message;

/// Bytes of `struct ifaddrmsg`: u8 family, u8 prefix length, u8 flags, u8 scope, u32 index.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_TARGET_NETNSID: u16 = 10;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
    /// The address with the length of its network's prefix.
    pub address: IpNet,
    /// `RT_SCOPE_*`: 0 is global, 253 the link, 254 the host.
    pub scope: u8,
    /// `IFA_F_*`, among them secondary, tentative, deprecated.
    pub flags: u32,
}

/// An address as the kernel sends it, which knows its interface by number alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParsedAddress {
    pub(super) index: u32,
    pub(super) address: IpNet,
    scope: u8,
    flags: u32,
}

impl ParsedAddress {
    /// Reads an address message; `None` for one that is neither IPv4 nor IPv6.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        if !matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
            return Ok(None);
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let [family, prefix_length, flags, scope, ..] = *header;
        if Family::from_number(family).is_none() {
            return Ok(None);
        }
        let (mut local, mut address, mut flags) = (None, None, u32::from(flags));
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFA_LOCAL => local = Some(attribute.address()?),
                IFA_ADDRESS => address = Some(attribute.address()?),
                // The header's field has room for the first eight only.
                IFA_FLAGS => flags = attribute.u32()?,
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the peer, and ours is IFA_LOCAL.
        let address: IpAddr = local.or(address).ok_or(Malformed::Missing("IFA_ADDRESS"))?;
        let address = IpNet::new(address, prefix_length).map_err(|_| Malformed::Payload {
            kind: IFA_ADDRESS,
            expected: if address.is_ipv4() { 32 } else { 128 },
            present: usize::from(prefix_length),
        })?;
        Ok(Some(ParsedAddress { index: u32_at(header, 4), address, scope, flags }))
    }

    pub(super) fn named(self, interface: String) -> Address {
        let ParsedAddress { index, address, scope, flags } = self;
        Address { index, interface, address, scope, flags }
    }
}

/// The header of a request for a family's addresses.
pub(super) fn request(family: Family) -> [u8; HEADER] {
    request_of(family, 0)
}

/// The header of a request for a family's addresses on one link. Kernels before 4.20 send those of all links.
pub(super) fn request_of(family: Family, index: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family.number();
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

/// Writes a request for a family's addresses on a link of another network namespace. Since Linux 4.20.
pub(super) fn write_of_peer(message: &mut Writer<'_>, family: Family, peer: LinkPeer) {
    message.raw(&request_of(family, peer.index)).bytes(IFA_TARGET_NETNSID, &peer.netns.to_ne_bytes());
}

/// Writes a request about one address of a link.
pub(super) fn write(message: &mut Writer<'_>, index: u32, net: IpNet) {
    let family = Family::from_address(net.addr());
    let mut header = request_of(family, index);
    header[1] = net.prefix_len();
    // An address that others may use already must not be tried out first: ours is on every node.
    if family == Family::V6 {
        header[2] = libc::IFA_F_NODAD as u8;
    }
    message.raw(&header).address(IFA_LOCAL, net.addr()).address(IFA_ADDRESS, net.addr());
}
