//! Requests for more than one send.

use crate::attribute::Writer;
use crate::error::Result;
use crate::message::Batch;

/// A send grows no further than this, in bytes. It fits the send buffer even where that is the system's usual
/// one, and if every message of it is refused, the answers fit the receive buffer: up to 4,000, of about
/// 1 KiB of kernel memory each. More in one send is no faster.
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
    /// [`crate::Error::AttributeTooLong`]; the batches are then as they were before.
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
                self.sends.push(Batch::of(action, kind, flags, fill)?);
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

    /// The sends, in order.
    pub(crate) fn sends(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.sends.iter_mut()
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
