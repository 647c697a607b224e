use super::transaction::Transaction;
use crate::error::Result;
use crate::socket::Socket;

const NFT_MSG_DELTABLE: u8 = 2;
const NFTA_TABLE_NAME: u16 = 1;

/// The family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
    /// Both.
    Inet = 1,
}

impl TableFamily {
    /// As `nft` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
        }
    }
}

/// Deletes a table with all that is in it, in the namespace of `socket` (a [`Protocol::Netfilter`] one). Says
/// whether there was one: a kernel without nf_tables has none.
///
/// [`Protocol::Netfilter`]: crate::socket::Protocol::Netfilter
///
/// # Errors
/// [`Error::Refused`]: `EPERM` without CAP_NET_ADMIN, or if another process owns the table.
///
/// [`Error::Refused`]: crate::Error::Refused
pub fn delete_table(socket: &mut Socket, family: TableFamily, name: &str) -> Result<bool> {
    let mut transaction = Transaction::new("delete an nf_tables table")?;
    transaction.push(NFT_MSG_DELTABLE, 0, |message| {
        message.netfilter_resource(family as u8, 0).text(NFTA_TABLE_NAME, name);
    })?;
    match transaction.commit(socket) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}
