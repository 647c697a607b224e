//! Listing of chains with their use counts.

use super::table::TableFamily;
use crate::error::{During, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const NFT_MSG_GETCHAIN: u8 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;

/// A chain as the kernel lists it, without its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainUse {
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its handle: the kernel assigns each handle of a table only once.
    pub handle: u64,
    /// The number of its rules and of the jumps to it.
    pub uses: u32,
}

/// Lists the chains of a family in the network namespace of `socket`, a [`NetlinkProtocol::Netfilter`] socket. The kernel
/// sends one message per chain and none per rule, so that a check for added or removed rules is cheap: each changes the use
/// count of its chain. A rule that replaces another does not.
///
/// [`NetlinkProtocol::Netfilter`]: crate::socket::NetlinkProtocol::Netfilter
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN; [`Error::Interrupted`] if the chains changed
/// during the dump.
///
/// [`Error::Rejected`]: crate::Error::Rejected
/// [`Error::Interrupted`]: crate::Error::Interrupted
pub fn list_chains(socket: &mut Socket, family: TableFamily, mut each: impl FnMut(ChainUse)) -> Result<()> {
    const ACTION: &str = "list the nf_tables chains";
    let kind = netfilter::kind(Subsystem::NfTables, NFT_MSG_GETCHAIN);
    let mut request = Batch::with_message(ACTION, kind, 0, |message| {
        message.netfilter_resource(family as u8, 0);
    })?;
    socket.dump(ACTION, &mut request, |message| {
        let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        let mut chain = ChainUse::default();
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            match attribute.kind {
                NFTA_CHAIN_TABLE => chain.table = attribute.text(),
                NFTA_CHAIN_NAME => chain.name = attribute.text(),
                NFTA_CHAIN_HANDLE => chain.handle = attribute.u64_be().during(ACTION)?,
                NFTA_CHAIN_USE => chain.uses = attribute.u32_be().during(ACTION)?,
                _ => {}
            }
        }
        each(chain);
        Ok(())
    })
}
