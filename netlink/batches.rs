//! Requests for more than one send.

use crate::attribute::Writer;
use crate::error::{Error, Result};
use crate::message::Batch;
use crate::socket::Socket;

/// A send takes messages until it has this many bytes. With one more message, of at most 64 KiB as a rule, it
/// fits the send buffer even where that is the system's usual one; and if every message of it is refused, the
/// answers fit the receive buffer: up to 4,000, of about 1 KiB of kernel memory each.
pub const SEND: usize = 256 * 1024;

/// Requests without limit in number, in order. They are cut into sends at message borders, so it is for
/// requests that stand each by itself.
#[derive(Debug, Default)]
pub struct Batches {
    sends: Vec<Batch>,
}

impl Batches {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message, as [`Batch::push`] does.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`]; the batches are then as they were before.
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

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.sends.iter().map(|send| send.len() as usize).sum()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What would be sent, in bytes.
    pub fn size(&self) -> usize {
        self.sends.iter().map(Batch::size).sum()
    }

    /// Forgets the messages and keeps the memory of one send.
    pub fn clear(&mut self) {
        self.sends.truncate(1);
        self.sends.iter_mut().for_each(Batch::clear);
    }

    /// The sends, in order, none of them empty unless all are.
    pub(crate) fn sends(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.sends.iter_mut()
    }
}

impl Socket {
    /// Sends batches one after the other, as [`Socket::transact`] does; positions count through all of them.
    ///
    /// # Errors
    /// As [`Socket::transact`]. After the first, the sends that remain are not made.
    pub fn transact_all(
        &mut self,
        action: &'static str,
        batches: &mut Batches,
        mut refused: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        let mut before = 0;
        for batch in batches.sends() {
            self.transact(action, batch, |position, error| refused(before + position, error))?;
            before += batch.len() as usize;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_are_cut_between_messages() {
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
