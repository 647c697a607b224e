//! Sets of addresses and ports that iptables rules match against (ipset): looked into and destroyed.

use std::path::Path;

use crate::attribute::{Attribute, Malformed};
use crate::error::{During, Error, Result};
use crate::message::{Batch, EXCLUSIVE, Message};
use crate::netfilter::{self, Subsystem};
use crate::socket::{Protocol, Socket};

const IPSET_CMD_DESTROY: u8 = 3;
const IPSET_CMD_LIST: u8 = 7;

const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_SETNAME: u16 = 2;
const IPSET_ATTR_DATA: u16 = 7;
const IPSET_ATTR_ADT: u16 = 8;
const IPSET_ATTR_PORT: u16 = 4;

/// The version of the protocol that every kernel since 2.6.39 takes (`IPSET_PROTOCOL_MIN`).
const PROTOCOL: u8 = 6;
/// `IPSET_MAXNAMELEN` is 32 with the NUL.
const NAME_MOST: usize = 31;
/// `IPSET_ERR_BUSY`: rules or other sets refer to the set.
const BUSY: i32 = 4100;

/// What became of a set that was to be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// It is gone.
    Yes,
    /// There was none of this name.
    Missing,
    /// Rules or other sets refer to it, so it stays.
    InUse,
}

/// The sets of one network namespace.
#[derive(Debug)]
pub struct IpSets {
    socket: Socket,
}

impl IpSets {
    /// Opens the sets of the calling thread's network namespace; `None` on a kernel that has not loaded ipset,
    /// which a question would make it do.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netfilter netlink.
    pub fn open() -> Result<Option<Self>> {
        // Its parameter gives it a folder there even where it is built in. Without sysfs nobody can tell.
        let modules = Path::new("/sys/module");
        if modules.exists() && !modules.join("ip_set").exists() {
            return Ok(None);
        }
        Ok(Some(IpSets { socket: Socket::open(Protocol::Netfilter)? }))
    }

    /// Destroys a set.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 31 bytes, or a refusal other than [`Destroyed`] knows.
    pub fn destroy(&mut self, name: &str) -> Result<Destroyed> {
        const ACTION: &str = "destroy an ipset";
        // Without the flag, a set that is missing counts as destroyed.
        let mut request = named(ACTION, IPSET_CMD_DESTROY, EXCLUSIVE, name)?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(Destroyed::Yes),
            Err(error) => match error.errno() {
                Some(libc::ENOENT) => Ok(Destroyed::Missing),
                Some(BUSY) => Ok(Destroyed::InUse),
                _ => Err(error),
            },
        }
    }

    /// The ports in a set of ports, or of addresses and ports; none if there is no such set.
    ///
    /// # Errors
    /// [`Error::BadName`], or a refusal other than "no such set".
    pub fn ports(&mut self, name: &str) -> Result<Vec<u16>> {
        const ACTION: &str = "list an ipset";
        let mut ports = Vec::new();
        let mut request = named(ACTION, IPSET_CMD_LIST, 0, name)?;
        let outcome =
            self.socket.dump(ACTION, &mut request, |message| read_ports(&message, &mut ports).during(ACTION));
        match outcome {
            Ok(()) => Ok(ports),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn named(action: &'static str, message: u8, flags: u16, name: &str) -> Result<Batch> {
    if name.is_empty() || name.len() > NAME_MOST || name.contains('\0') {
        return Err(Error::BadName { action, name: name.to_owned(), most: NAME_MOST });
    }
    Batch::of(action, netfilter::kind(Subsystem::Ipset, message), flags, |message| {
        message.netfilter_header(None).u8(IPSET_ATTR_PROTOCOL, PROTOCOL).text(IPSET_ATTR_SETNAME, name);
    })
}

/// Reads one part of a listing: elements are attributes in attributes in attributes.
fn read_ports(message: &Message<'_>, ports: &mut Vec<u16>) -> Result<(), Malformed> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
    for elements in inside(attributes, IPSET_ATTR_ADT) {
        for element in inside(elements?.nested(), IPSET_ATTR_DATA) {
            for port in inside(element?.nested(), IPSET_ATTR_PORT) {
                ports.push(port?.u16_be()?);
            }
        }
    }
    Ok(())
}

fn inside<'a>(
    attributes: impl Iterator<Item = Result<Attribute<'a>, Malformed>>,
    kind: u16,
) -> impl Iterator<Item = Result<Attribute<'a>, Malformed>> {
    attributes.filter(move |attribute| attribute.as_ref().map_or(true, |a| a.kind == kind))
}
