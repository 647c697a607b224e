//! Accounting objects (`nfnetlink_acct`): named counters that rules increment with `-m nfacct --nfacct-name NAME` and
//! that keep their values when the rules are replaced.

use crate::attribute::Malformed;
use crate::error::{During, Error, Result};
use crate::message::{Batch, CREATE, EXCLUSIVE, Message};
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

const NFNL_MSG_ACCT_NEW: u8 = 0;
const NFNL_MSG_ACCT_GET: u8 = 1;

const NFACCT_NAME: u16 = 1;
const NFACCT_PKTS: u16 = 2;
const NFACCT_BYTES: u16 = 3;
/// `NFACCT_NAME_MAX` is 32 with the NUL.
const NAME_MOST: usize = 31;

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The name that rules refer to.
    pub name: String,
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted, including IP headers.
    pub bytes: u64,
}

/// The counters of one network namespace.
#[derive(Debug)]
pub struct Counters {
    socket: Socket,
}

impl Counters {
    /// Opens the counters of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netfilter netlink.
    pub fn open() -> Result<Self> {
        Ok(Counters { socket: Socket::open(NetlinkProtocol::Netfilter)? })
    }

    /// Returns true if the kernel has `nfnetlink_acct`, loading its module if necessary. netfilter returns `EINVAL`
    /// for an unknown subsystem.
    ///
    /// # Errors
    /// Any other rejection, such as `EPERM` without CAP_NET_ADMIN.
    pub fn available(&mut self) -> Result<bool> {
        match self.each("look for nfnetlink_acct", |_| Ok(())) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a counter unless it exists. An existing counter keeps its values.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 31 bytes, [`Error::Rejected`] otherwise.
    pub fn ensure(&mut self, name: &str) -> Result<()> {
        const ACTION: &str = "create an nfacct counter";
        let mut request = named(ACTION, NFNL_MSG_ACCT_NEW, CREATE | EXCLUSIVE, name)?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            outcome => outcome,
        }
    }

    /// Reads a counter; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::BadName`], or a rejection other than `ENOENT`.
    pub fn get(&mut self, name: &str) -> Result<Option<Counter>> {
        const ACTION: &str = "read an nfacct counter";
        let mut request = named(ACTION, NFNL_MSG_ACCT_GET, 0, name)?;
        match self.socket.query(ACTION, &mut request, |message| parse(&message).during(ACTION)) {
            Ok(counter) => Ok(Some(counter)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without privilege or the module.
    pub fn list(&mut self) -> Result<Vec<Counter>> {
        let mut counters = Vec::new();
        self.each("list nfacct counters", |counter| {
            counters.push(counter);
            Ok(())
        })?;
        Ok(counters)
    }

    fn each(&mut self, action: &'static str, mut visit: impl FnMut(Counter) -> Result<()>) -> Result<()> {
        let kind = netfilter::kind(Subsystem::Acct, NFNL_MSG_ACCT_GET);
        let mut request = Batch::with_message(action, kind, 0, |message| {
            message.netfilter_header(None);
        })?;
        self.socket.dump(action, &mut request, |message| visit(parse(&message).during(action)?))
    }
}

fn named(action: &'static str, message: u8, flags: u16, name: &str) -> Result<Batch> {
    Error::check_name(action, name, NAME_MOST)?;
    Batch::with_message(action, netfilter::kind(Subsystem::Acct, message), flags, |message| {
        message.netfilter_header(None).text(NFACCT_NAME, name);
    })
}

fn parse(message: &Message<'_>) -> Result<Counter, Malformed> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
    let (mut name, mut packets, mut bytes) = (None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFACCT_NAME => name = Some(attribute.text()),
            NFACCT_PKTS => packets = Some(attribute.u64_be()?),
            NFACCT_BYTES => bytes = Some(attribute.u64_be()?),
            _ => {}
        }
    }
    Ok(Counter {
        name: name.ok_or(Malformed::Missing("NFACCT_NAME"))?,
        packets: packets.ok_or(Malformed::Missing("NFACCT_PKTS"))?,
        bytes: bytes.ok_or(Malformed::Missing("NFACCT_BYTES"))?,
    })
}
