//! Permanent neighbours and FDB entries: encoding and listing.

use std::net::IpAddr;

use crate::attribute::{Malformed, Writer};
use crate::error::{During, Result};
use crate::family::Family;
use crate::message::{Batch, Message};
use crate::route::{MacAddress, Rtnetlink};

/// Length of `struct ndmsg`.
const HEADER: usize = 12;
/// `NTF_SELF`: the FDB of the link itself, not of its bridge.
const SELF: u8 = 2;
/// `NUD_PERMANENT`: added by a program, never resolved and never expired.
const PERMANENT: u16 = 0x80;
/// `NDA_DST`, `NDA_LLADDR`, `NDA_IFINDEX`.
const DESTINATION: u16 = 1;
const MAC: u16 = 2;
const LINK: u16 = 8;

/// A permanent neighbour: the MAC address of a host on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The index of the link.
    pub link: u32,
    /// The IP address of the host.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddress,
}

/// A permanent entry of the FDB of a VXLAN link: the host to which frames for a MAC address are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The index of the link.
    pub link: u32,
    /// The MAC address of the remote VTEP.
    pub mac: MacAddress,
    /// The IP address of the remote host.
    pub remote: IpAddr,
}

fn header(family: u8, link: u32, flags: u8) -> [u8; HEADER] {
    let [a, b, c, d] = link.to_ne_bytes();
    let [e, f] = PERMANENT.to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d, e, f, flags, 0]
}

impl Neighbour {
    /// Writes the message that sets or deletes the neighbour.
    pub(in crate::route) fn write(&self, message: &mut Writer<'_>) {
        message.raw(&header(Family::from_address(self.address).number(), self.link, 0));
        message.address(DESTINATION, self.address).bytes(MAC, &self.mac.0);
    }
}

impl FdbEntry {
    /// Writes the message that sets or deletes the entry.
    pub(in crate::route) fn write(&self, message: &mut Writer<'_>) {
        message.raw(&header(libc::AF_BRIDGE as u8, self.link, SELF));
        message.bytes(MAC, &self.mac.0).address(DESTINATION, self.remote);
    }
}

/// A neighbour or FDB entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Entry {
    Neighbour(Neighbour),
    Fdb(FdbEntry),
}

impl Entry {
    /// Parses a `RTM_NEWNEIGH` or `RTM_DELNEIGH` message; `None` for any other, and for entries without a MAC or IP address.
    pub(in crate::route) fn parse(message: &Message<'_>) -> Result<Option<(Self, u16)>, Malformed> {
        if !matches!(message.kind, libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) {
            return Ok(None);
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let [family, _, _, _, a, b, c, d, e, f, _, _] = *header;
        let (link, state) = (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
        let (mut address, mut mac) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                DESTINATION if matches!(attribute.payload.len(), 4 | 16) => {
                    address = Some(attribute.address()?)
                }
                MAC => mac = MacAddress::from_bytes(attribute.payload),
                _ => {}
            }
        }
        let Some((address, mac)) = address.zip(mac) else { return Ok(None) };
        let entry = match i32::from(family) {
            libc::AF_BRIDGE => Entry::Fdb(FdbEntry { link, mac, remote: address }),
            libc::AF_INET | libc::AF_INET6 => Entry::Neighbour(Neighbour { link, address, mac }),
            _ => return Ok(None),
        };
        Ok(Some((entry, state)))
    }
}

impl Rtnetlink {
    /// Returns the permanent neighbours of a link, of both families. Empty if there is no such link.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if neighbours change faster than they can be read.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>> {
        const ACTION: &str = "list the neighbours of a link";
        let mut all = Vec::new();
        for family in Family::ALL {
            let request = || {
                Batch::with_message(ACTION, libc::RTM_GETNEIGH, 0, |message| {
                    message.raw(&[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).u32(LINK, link);
                })
            };
            let listed = self.dump_batches(ACTION, request, |message| {
                Ok(match Entry::parse(message).during(ACTION)? {
                    Some((Entry::Neighbour(neighbour), PERMANENT)) => Some(neighbour),
                    _ => None,
                })
            });
            all.extend(no_link_is_empty(listed)?.into_iter().filter(|neighbour| neighbour.link == link));
        }
        Ok(all)
    }

    /// Returns the FDB entries of a VXLAN link, with those that the kernel learned. Empty if there is no such link.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if entries change faster than they can be read.
    pub fn fdb_entries(&mut self, link: u32) -> Result<Vec<FdbEntry>> {
        const ACTION: &str = "list the FDB entries of a link";
        let request = || {
            Batch::with_message(ACTION, libc::RTM_GETNEIGH, 0, |message| {
                let mut header = header(libc::AF_BRIDGE as u8, link, 0);
                header[8..10].fill(0);
                message.raw(&header);
            })
        };
        let listed = self.dump_batches(ACTION, request, |message| {
            Ok(match Entry::parse(message).during(ACTION)? {
                Some((Entry::Fdb(entry), _)) if entry.link == link => Some(entry),
                _ => None,
            })
        });
        no_link_is_empty(listed)
    }
}

fn no_link_is_empty<T>(listed: Result<Vec<T>>) -> Result<Vec<T>> {
    match listed {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(Vec::new()),
        listed => listed,
    }
}
