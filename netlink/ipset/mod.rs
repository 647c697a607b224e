//! ipsets: sets of addresses and ports that iptables rules match against.
//!
//! ```text
//! SetType ── create ─┐
//! SetEntry ─ change ─┼─ IpSets ── names · header · entries
//! flush · swap · … ──┘
//! ```
//!
//! The kernel interface of the `ipset` tool, without its text format.

mod change;
mod create;
mod enlarge;
mod entry;
mod list;
mod rejection;
mod set_type;

pub use create::{Created, DEFAULT_MAXELEM};
pub use entry::SetEntry;
pub use list::SetHeader;
pub use set_type::SetType;

use std::path::Path;

use crate::attribute::Writer;
use crate::error::{Error, Result};
use crate::message::{Batch, EXCLUSIVE};
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};
use rejection::ForSet;
pub(crate) use rejection::TYPE_SPECIFIC;

/// `IPSET_CMD_*`.
mod commands {
    pub(super) const PROTOCOL: u8 = 1;
    pub(super) const CREATE: u8 = 2;
    pub(super) const DESTROY: u8 = 3;
    pub(super) const FLUSH: u8 = 4;
    pub(super) const RENAME: u8 = 5;
    pub(super) const SWAP: u8 = 6;
    pub(super) const LIST: u8 = 7;
    pub(super) const ADD: u8 = 9;
    pub(super) const DEL: u8 = 10;
    pub(super) const TYPE: u8 = 13;
}

/// `IPSET_ATTR_*` of a command. Attributes in sets and entries have other numbers.
mod attributes {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SETNAME: u16 = 2;
    pub(super) const TYPENAME: u16 = 3;
    pub(super) const SETNAME2: u16 = 3;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const DATA: u16 = 7;
    pub(super) const ADT: u16 = 8;
    pub(super) const LINENO: u16 = 9;
}

/// The version of the protocol that every kernel since 2.6.39 supports (`IPSET_PROTOCOL_MIN`).
const PROTOCOL: u8 = 6;
/// The maximum length of a set's name in bytes (`IPSET_MAXNAMELEN` without the NUL).
pub const MAX_NAME_LEN: usize = 31;

/// The result of [`IpSets::destroy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// The set was destroyed.
    Yes,
    /// There is no set of this name.
    Missing,
    /// The set stays, as rules or other sets refer to it.
    InUse,
}

/// The sets of one network namespace.
#[derive(Debug)]
pub struct IpSets {
    socket: Socket,
}

impl IpSets {
    /// Opens the sets of the calling thread's network namespace; `None` if ipset is not loaded, as a request would load it.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netfilter netlink.
    pub fn open() -> Result<Option<Self>> {
        // The module has a parameter, so the folder exists even if it is built in. Without sysfs, assume that it is loaded.
        let modules = Path::new("/sys/module");
        if modules.exists() && !modules.join("ip_set").exists() {
            return Ok(None);
        }
        Ok(Some(IpSets { socket: Socket::open(NetlinkProtocol::Netfilter)? }))
    }

    /// Opens the sets of the calling thread's network namespace, and has the kernel load ipset if necessary. The kernel loads
    /// the module of a type when the first set of that type is created.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netfilter netlink; [`Error::Rejected`] with `EINVAL` if the kernel has no
    /// ipset, with `EPERM` without CAP_NET_ADMIN.
    pub fn open_or_load() -> Result<Self> {
        const ACTION: &str = "load ipset";
        let mut sets = IpSets { socket: Socket::open(NetlinkProtocol::Netfilter)? };
        let mut query = request(ACTION, commands::PROTOCOL, 0, |_| {})?;
        match sets.socket.query(ACTION, &mut query, |_| Ok(())) {
            // netfilter's response to an unknown subsystem.
            Err(Error::Rejected { action, errno: libc::EINVAL, offset, .. }) => {
                let text = Some("it has no module ip_set".to_owned());
                Err(Error::Rejected { action, errno: libc::EINVAL, text, offset })
            }
            outcome => outcome.map(|()| sets),
        }
    }

    /// Destroys a set.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 31 bytes, or a rejection without a variant in [`Destroyed`].
    pub fn destroy(&mut self, name: &str) -> Result<Destroyed> {
        const ACTION: &str = "destroy an ipset";
        // Without the flag, a missing set is no error.
        let mut request = named(ACTION, commands::DESTROY, EXCLUSIVE, name, |_| {})?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(Destroyed::Yes),
            Err(error) => match error.errno() {
                Some(libc::ENOENT) => Ok(Destroyed::Missing),
                Some(rejection::BUSY) => Ok(Destroyed::InUse),
                _ => Err(error),
            },
        }
    }

    /// Removes all entries of a set.
    ///
    /// # Errors
    /// [`Error::Set`] with `ENOENT` if there is no such set; [`Error::BadName`].
    pub fn flush(&mut self, name: &str) -> Result<()> {
        const ACTION: &str = "remove the entries of an ipset";
        let mut request = named(ACTION, commands::FLUSH, 0, name, |_| {})?;
        self.socket.acknowledge(ACTION, &mut request).for_set(name)
    }

    /// Renames a set without references.
    ///
    /// # Errors
    /// [`Error::Set`]: `ENOENT` if there is no such set, and ipset's own numbers if rules refer to it or the
    /// new name is taken; [`Error::BadName`].
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        self.with_two_names("rename an ipset", commands::RENAME, name, new)
    }

    /// Swaps the names of two sets atomically, so that rules which refer to one match the entries of the other.
    ///
    /// # Errors
    /// [`Error::Set`]: `ENOENT` if the first set is missing, and numbers of ipset if the second is missing or the sets have
    /// incompatible types or families. [`Error::BadName`].
    pub fn swap(&mut self, one: &str, other: &str) -> Result<()> {
        self.with_two_names("swap two ipsets", commands::SWAP, one, other)
    }

    fn with_two_names(&mut self, action: &'static str, command: u8, name: &str, second: &str) -> Result<()> {
        Error::check_name(action, second, MAX_NAME_LEN)?;
        let mut request = named(action, command, 0, name, |message| {
            message.text(attributes::SETNAME2, second);
        })?;
        self.socket.acknowledge(action, &mut request).for_set(name)
    }
}

/// Builds a request for one set.
fn named(
    action: &'static str,
    command: u8,
    flags: u16,
    name: &str,
    fill: impl FnOnce(&mut Writer<'_>),
) -> Result<Batch> {
    let mut batch = Batch::new();
    push_named(&mut batch, action, command, flags, name, fill)?;
    Ok(batch)
}

fn push_named(
    batch: &mut Batch,
    action: &'static str,
    command: u8,
    flags: u16,
    name: &str,
    fill: impl FnOnce(&mut Writer<'_>),
) -> Result<()> {
    Error::check_name(action, name, MAX_NAME_LEN)?;
    batch.push(action, netfilter::kind(Subsystem::Ipset, command), flags, |message| {
        message.netfilter_header(None).u8(attributes::PROTOCOL, PROTOCOL).text(attributes::SETNAME, name);
        fill(message);
    })
}

/// Builds a request without a set.
fn request(
    action: &'static str,
    command: u8,
    flags: u16,
    fill: impl FnOnce(&mut Writer<'_>),
) -> Result<Batch> {
    Batch::with_message(action, netfilter::kind(Subsystem::Ipset, command), flags, |message| {
        message.netfilter_header(None).u8(attributes::PROTOCOL, PROTOCOL);
        fill(message);
    })
}
