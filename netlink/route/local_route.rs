//! Routes by which an interface delivers an address to this machine.

use std::net::IpAddr;

use super::Rtnetlink;
use crate::error::{Error, Result};
use crate::family::Family;
use crate::message::{Batch, CREATE};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
/// `NLM_F_APPEND`: routes by other links stay. An exclusive one would be refused for theirs.
const APPEND: u16 = libc::NLM_F_APPEND as u16;

impl Rtnetlink {
    /// Has what comes in by the link of this index and is for `address` delivered here: `ip route add local ADDRESS dev
    /// LINK`. Says whether that is new.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `EPERM` without CAP_NET_ADMIN, `ENODEV` for a link that is gone.
    pub fn add_local_route(&mut self, index: u32, address: IpAddr) -> Result<bool> {
        const ACTION: &str = "add a local route";
        let (family, length) = match address {
            IpAddr::V4(_) => (Family::V4.number(), 32),
            IpAddr::V6(_) => (Family::V6.number(), 128),
        };
        // `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, u32 flags.
        let header =
            [family, length, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
        let mut request = Batch::with_message(ACTION, libc::RTM_NEWROUTE, CREATE | APPEND, |message| {
            message.raw(&header).address(RTA_DST, address).u32(RTA_OIF, index);
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(Error::Rejected { errno: libc::EEXIST, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
