//! Addresses of links.

mod change;
mod list;

pub use change::AddressBatch;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, Parseable};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};

use super::link::LinkPeer;
use super::message::attributes;
use crate::family::Family;
use crate::message::Message;

/// Length of `struct ifaddrmsg`.
const HEADER: usize = 8;

/// The attributes that are parsed.
const NEEDED: [u16; 3] = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_FLAGS];

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub index: u32,
    /// The link's name.
    pub interface: String,
    /// The address with its prefix length.
    pub address: IpNet,
    /// `RT_SCOPE_*`: 0 is global, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_*`, such as secondary, tentative and deprecated.
    pub flags: u32,
}

/// An address message, which has the link's index only.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParsedAddress {
    pub(super) index: u32,
    pub(super) address: IpNet,
    scope: u8,
    flags: u32,
}

impl ParsedAddress {
    /// Parses a `RTM_NEWADDR` or `RTM_DELADDR` message of IPv4 or IPv6; `None` for any other.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if !matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
            return Ok(None);
        }
        let header = AddressHeader::parse(message.payload)?;
        if Family::from_number(header.family.into()).is_none() {
            return Ok(None);
        }
        let (mut local, mut address, mut flags) = (None, None, u32::from(header.flags.bits()));
        for attribute in attributes(message, HEADER, &NEEDED) {
            match AddressAttribute::parse(&attribute?)? {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                // The header has room for the first eight flags only.
                AddressAttribute::Flags(all) => flags = all.bits(),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the peer's address, and IFA_LOCAL the link's.
        let address: IpAddr = local.or(address).ok_or("IFA_ADDRESS is missing")?;
        let address = IpNet::new(address, header.prefix_len)
            .map_err(|_| format!("{address} has a prefix length of {}", header.prefix_len))?;
        Ok(Some(ParsedAddress { index: header.index, address, scope: header.scope.into(), flags }))
    }

    /// Adds the link's name.
    fn with_name(self, interface: String) -> Address {
        let ParsedAddress { index, address, scope, flags } = self;
        Address { index, interface, address, scope, flags }
    }
}

/// Returns a request for all addresses of a family.
fn all_of_family(family: Family) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family.into();
    message
}

/// Returns a request for a family's addresses on one link. Kernels before 4.20 return those of all links.
fn all_of_link(family: Family, index: u32) -> AddressMessage {
    let mut message = all_of_family(family);
    message.header.index = index;
    message
}

/// Returns a request for a family's addresses on a link of another network namespace. Since Linux 4.20.
fn all_of_peer(family: Family, peer: LinkPeer) -> AddressMessage {
    let mut message = all_of_link(family, peer.index);
    message.attributes.push(AddressAttribute::TargetNetNsId(peer.netns));
    message
}

/// Returns a message about one address of a link.
fn one(index: u32, net: IpNet) -> AddressMessage {
    let family = Family::from_address(net.addr());
    let mut message = all_of_link(family, index);
    message.header.prefix_len = net.prefix_len();
    // Without duplicate address detection: the address is on every node.
    if family == Family::V6 {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}
