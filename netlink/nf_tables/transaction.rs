use crate::attribute::Writer;
use crate::error::Result;
use crate::message::{ACK, Batch};
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;

/// Changes of the rule set that happen together or not at all.
#[derive(Debug)]
pub struct Transaction {
    action: &'static str,
    batch: Batch,
}

impl Transaction {
    /// An empty one. `action` completes "cannot …".
    ///
    /// # Errors
    /// None in practice: the frame is short.
    pub fn new(action: &'static str) -> Result<Self> {
        let mut transaction = Transaction { action, batch: Batch::new() };
        transaction.frame(NFNL_MSG_BATCH_BEGIN)?;
        Ok(transaction)
    }

    /// Appends a change: `message` is an `NFT_MSG_*`, `fill` writes the header and the attributes.
    ///
    /// # Errors
    /// [`crate::Error::AttributeTooLong`], as for [`Batch::push`].
    pub fn push(&mut self, message: u8, flags: u16, fill: impl FnOnce(&mut Writer<'_>)) -> Result<()> {
        self.batch.push(self.action, netfilter::kind(Subsystem::Tables, message), flags, fill)
    }

    /// Sends it, and waits until it is done.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for the first change that the kernel refuses; none is then made.
    pub fn commit(mut self, socket: &mut Socket) -> Result<()> {
        let last = self.batch.len() - 1;
        if last == 0 {
            return Ok(());
        }
        self.frame(NFNL_MSG_BATCH_END)?;
        // Kernels before 6.10 never answer to the end of a batch, so the last change is asked for.
        self.batch.add_flags(last, ACK);
        socket.transact_framed(self.action, &mut self.batch, last)
    }

    fn frame(&mut self, kind: u16) -> Result<()> {
        self.batch.push(self.action, kind, 0, |message| {
            message.netfilter_resource(libc::AF_UNSPEC as u8, Subsystem::Tables as u16);
        })
    }
}
