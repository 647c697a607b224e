//! Batches of netlink requests that may need more than one `sendmsg`.

use crate::attribute::Writer;
use crate::error::{Error, Result};
use crate::message::Batch;
use crate::socket::Socket;

/// The size in bytes from which a send accepts no further message. With its last message, usually at most 64 KiB, a
/// send fits the default send buffer. If the kernel rejects every message of it, the responses fit the receive
/// buffer: up to 4,000, each of about 1 KiB of kernel memory.
pub const SEND: usize = 256 * 1024;

/// Any number of requests, in order. They are split into sends between messages, so every request must be
/// independent of the others.
#[derive(Debug, Default)]
pub struct Batches {
    sends: Vec<Batch>,
}

impl Batches {
    /// Returns an empty value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message, as [`Batch::push`] does.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`]; the batches are then unchanged.
    pub fn push(
        &mut self,
        action: &'static str,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<()> {
        match self.sends.last_mut() {
            Some(last) if last.size() < SEND => last.push(action, kind, flags, fill),
            _ => {
                self.sends.push(Batch::with_message(action, kind, flags, fill)?);
                Ok(())
            }
        }
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.sends.iter().map(|send| send.len() as usize).sum()
    }

    /// Returns true if there are no messages.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of all messages in bytes.
    pub fn size(&self) -> usize {
        self.sends.iter().map(Batch::size).sum()
    }

    /// Removes all messages and keeps the memory of one send.
    pub fn clear(&mut self) {
        self.sends.truncate(1);
        self.sends.iter_mut().for_each(Batch::clear);
    }

    /// Returns the sends in order. None of them is empty unless all are.
    pub(crate) fn sends(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.sends.iter_mut()
    }
}

impl Socket {
    /// Sends batches one after the other, as [`Socket::transact`] does. Positions are counted across all batches.
    ///
    /// # Errors
    /// As [`Socket::transact`]. The sends after the failed one are skipped.
    pub fn transact_all(
        &mut self,
        action: &'static str,
        batches: &mut Batches,
        mut rejected: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        let mut before = 0;
        for batch in batches.sends() {
            self.transact(action, batch, |position, error| rejected(before + position, error))?;
            before += batch.len() as usize;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_split_between_messages() {
        let mut batches = Batches::new();
        assert!(batches.is_empty());
        for _ in 0..1000 {
            let pushed = batches.push("test", 20, 0, |message| {
                message.bytes(1, &[0; 1004]);
            });
            pushed.expect("short");
        }
        // 1,024 bytes each.
        assert_eq!((batches.len(), batches.size()), (1000, 1_024_000));
        let lengths: Vec<u32> = batches.sends().map(|send| send.len()).collect();
        assert_eq!(lengths, [256, 256, 256, 232]);
        batches.clear();
        assert_eq!((batches.len(), batches.size(), batches.sends().count()), (0, 0, 1));
    }
}
