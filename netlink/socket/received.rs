//! Requests for objects, and notifications.

use super::Socket;
use crate::error::{During, Error, Result};
use crate::message::{ACK, Batch, DUMP, Message, Messages, Response};

impl Socket {
    /// Requests one object and passes it to `read`.
    ///
    /// # Errors
    /// [`Error::Rejected`] (`ENOENT` if there is no such object), or the error of `read`.
    pub fn query<T>(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut read: impl FnMut(Message<'_>) -> Result<T>,
    ) -> Result<T> {
        let first = self.send(action, batch, ACK)?;
        let mut object = None;
        loop {
            let received = self.receive(action)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                if message.position(first, 1).during(action)?.is_none() {
                    continue;
                }
                match message.response().during(action)? {
                    Response::Object => object = Some(read(message)),
                    Response::Acknowledged => {
                        self.has_unread_responses = false;
                        return object.unwrap_or(Err(Error::NoResponse { action }));
                    }
                    other => {
                        if let Some(error) = other.error(action) {
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Requests all objects and passes each to `each` as it arrives, without collecting them. After an error of `each` the
    /// rest is read and discarded.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the last object, if a concurrent change made the dump inconsistent;
    /// [`Error::Rejected`]; or the error of `each`.
    pub fn dump(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = self.send(action, batch, DUMP)?;
        let mut result = Ok(());
        let mut interrupted = false;
        loop {
            let received = match self.receive(action) {
                Ok(received) => received,
                Err(lost @ (Error::Overrun { .. } | Error::Truncated { .. })) => {
                    result = result.and(Err(lost));
                    continue;
                }
                Err(error) => return result.and(Err(error)),
            };
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                if message.position(first, 1).during(action)?.is_none() {
                    continue;
                }
                interrupted |= message.dump_interrupted();
                match message.response().during(action)? {
                    Response::Object => result = result.and_then(|()| each(message)),
                    Response::Done => {
                        self.has_unread_responses = false;
                        return if interrupted {
                            result.and(Err(Error::Interrupted { action }))
                        } else {
                            result
                        };
                    }
                    other => {
                        if let Some(error) = other.error(action) {
                            return result.and(Err(error));
                        }
                    }
                }
            }
        }
    }

    /// Reads the next datagram of notifications and passes its messages to `each`. Returns false if there is none,
    /// which happens on a non-blocking socket only.
    ///
    /// # Errors
    /// [`Error::Overrun`] if notifications were lost since the last read, or one was malformed; the next call continues after
    /// the gap.
    pub fn events(
        &mut self,
        action: &'static str,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<bool> {
        let received = match self.receive(action) {
            Ok(received) => received,
            Err(Error::NoResponse { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        for message in Messages::new(&self.buffer[..received]) {
            match message.during(action).and_then(&mut each) {
                Err(error @ (Error::Malformed { .. } | Error::Decode { .. })) => {
                    tracing::debug!(%error, "a notification cannot be read; it counts as lost");
                    return Err(Error::Overrun { action });
                }
                read => read?,
            }
        }
        Ok(true)
    }
}
