//! Requests without result: batches of changes, of which the kernel acknowledges or rejects each.

use super::Socket;
use crate::error::{During, Error, Result};
use crate::message::{ACK, Batch, Messages, Response};

impl Socket {
    /// Sends a batch and waits until the kernel has processed it. Calls `rejected` with the position of each message
    /// that the kernel rejects; the others take effect. Messages must not request an ACK: only the last one does, as
    /// thousands of ACKs would overflow the receive buffer.
    ///
    /// # Errors
    /// The first error that `rejected` returns, once all responses are read. [`Error::Overrun`] if responses were
    /// lost: the kernel has then processed all messages, but it is unknown which ones it rejected.
    pub fn transact(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut rejected: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        self.transact_reading(action, batch, |position, error, _| rejected(position, error))
    }

    /// As [`Socket::transact`], for families whose rejections contain more than an error number: `rejected` also gets
    /// the payload of the response (`struct nlmsgerr` and its attributes).
    pub(crate) fn transact_reading(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut rejected: impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.len() - 1;
        let first = self.send(action, batch, ACK)?;
        self.read_responses(action, first, batch.len(), |position| position == last, &mut rejected)
    }

    /// Sends a batch that is enclosed in a begin and an end message, and waits for the response to the message at
    /// `awaited`, which requests an ACK, or for the rejection of the begin message.
    ///
    /// # Errors
    /// As [`Socket::acknowledge`], with the position of the rejected message.
    pub(crate) fn transact_framed(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        awaited: u32,
    ) -> Result<(), (usize, Error)> {
        let first = self.send(action, batch, 0).map_err(|error| (0, error))?;
        let finishes = |position| position == awaited || position == 0;
        let mut rejected_at = 0;
        let mut first_rejection = |position, error, _: &[u8]| {
            rejected_at = position;
            Err(error)
        };
        self.read_responses(action, first, batch.len(), finishes, &mut first_rejection)
            .map_err(|error| (rejected_at, error))
    }

    /// Reads the responses to a batch until the response to a position for which `finishes` returns true.
    fn read_responses(
        &mut self,
        action: &'static str,
        first: u32,
        count: u32,
        finishes: impl Fn(u32) -> bool,
        rejected: &mut impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        let mut overrun = false;
        loop {
            // After an overrun only queued responses are left, as the kernel responds inside of `sendmsg`.
            let received = match self.receive_with(action, overrun) {
                // More rejections than the receive buffer holds: read the first ones, which are still there.
                Err(Error::Overrun { .. }) if !overrun => {
                    overrun = true;
                    continue;
                }
                Err(Error::NoResponse { .. }) if overrun => {
                    return result.and(Err(Error::Overrun { action }));
                }
                Ok(received) => received,
                // A rejection explains more than that the rest is missing.
                Err(error) => return result.and(Err(error)),
            };
            let mut finished = false;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                let Some(position) = message.position(first, count).during(action)? else { continue };
                let response = message.response().during(action)?;
                finished |= finishes(position)
                    && matches!(response, Response::Acknowledged | Response::Failed { .. });
                if let Some(error) = response.error(action) {
                    result = result.and_then(|()| rejected(position as usize, error, message.payload));
                }
            }
            if finished {
                self.has_unread_responses = false;
                return result;
            }
        }
    }

    /// Sends a batch, waits for it and returns the first rejection.
    ///
    /// # Errors
    /// As [`Socket::transact`]; [`Error::Rejected`] with the kernel's message.
    pub fn acknowledge(&mut self, action: &'static str, batch: &mut Batch) -> Result<()> {
        self.transact(action, batch, |_, error| Err(error))
    }
}
