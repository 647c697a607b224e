//! The generation of the rule set, and sockets for nf_tables.

use crate::attribute::Malformed;
use crate::error::{During, Error, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

const NFT_MSG_GETGEN: u8 = 16;
const NFTA_GEN_ID: u16 = 1;

/// Opens a netfilter socket in the calling thread's network namespace. Returns `None` if the kernel has no nf_tables.
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN.
pub fn open() -> Result<Option<Socket>> {
    let mut socket = match Socket::open(NetlinkProtocol::Netfilter) {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            return Ok(None);
        }
        socket => socket?,
    };
    match generation(&mut socket) {
        Ok(_) => Ok(Some(socket)),
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the generation of the rule set in the network namespace of `socket`, a [`NetlinkProtocol::Netfilter`] socket. The
/// kernel increases this number with each committed transaction of any process; it wraps around and skips 0. The request
/// costs the same for rule sets of all sizes, so it can serve as a frequent drift check: if the number is that of the last
/// own commit, no process changed nf_tables since. iptables-nft increases it too, iptables-legacy does not.
///
/// [`NetlinkProtocol::Netfilter`]: crate::socket::NetlinkProtocol::Netfilter
///
/// # Errors
/// [`Error::Rejected`] with `EINVAL` on a kernel without nf_tables, `EPERM` without CAP_NET_ADMIN.
///
/// [`Error::Rejected`]: crate::Error::Rejected
pub fn generation(socket: &mut Socket) -> Result<u32> {
    const ACTION: &str = "read the nf_tables generation";
    let kind = netfilter::kind(Subsystem::NfTables, NFT_MSG_GETGEN);
    let mut request = Batch::with_message(ACTION, kind, 0, |message| {
        message.netfilter_header(None);
    })?;
    socket.query(ACTION, &mut request, |message| {
        let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            if attribute.kind == NFTA_GEN_ID {
                return attribute.u32_be().during(ACTION);
            }
        }
        Err(Malformed::Missing("NFTA_GEN_ID")).during(ACTION)
    })
}
