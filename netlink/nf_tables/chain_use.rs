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
    /// The table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its number, which no other chain of the table ever has.
    pub handle: u64,
    /// How many rules it has, and how many lead to it, added up.
    pub uses: u32,
}

/// Lists the chains of a family in the namespace of `socket` (a [`NetlinkProtocol::Netfilter`] one). It costs a
/// message a chain and none for the rules, so that a look whether rules came or went is cheap however many
/// there are: each adds to, or takes from, the uses of its chain. A rule put in the place of another does not
/// show.
///
/// [`NetlinkProtocol::Netfilter`]: crate::socket::NetlinkProtocol::Netfilter
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN; [`Error::Interrupted`] if the chains changed
/// meanwhile.
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
