//! Netlink messages (`struct nlmsghdr`): batches of requests, and the messages of a received datagram.

use crate::attribute::{Attributes, Malformed, Writer, align};
use crate::error::{Error, Result};

/// Bytes of a message's header (`struct nlmsghdr`).
pub const HEADER: usize = 16;

/// `NLM_F_REQUEST`: set in every message to the kernel; [`Batch::push`] adds it.
pub const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// `NLM_F_ACK`: requests a response on success too.
pub const ACK: u16 = libc::NLM_F_ACK as u16;
/// `NLM_F_DUMP`: lists all matching objects.
pub const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// `NLM_F_CREATE`: creates the object if it does not exist.
pub const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// `NLM_F_EXCL`: fails with `EEXIST` if the object exists.
pub const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;

const DUMP_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
/// The response does not contain a copy of the failed request (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// Extended-ACK attributes follow (`NLM_F_ACK_TLVS`).
const ACK_ATTRIBUTES: u16 = 0x200;

/// Offsets into the header: `u32 length, u16 kind, u16 flags, u32 sequence, u32 port`.
const KIND_AT: usize = 4;
const FLAGS_AT: usize = 6;
const SEQUENCE_AT: usize = 8;

/// Requests that are sent to the kernel in one `sendmsg`, in order. Families with transactions (nf_tables) enclose
/// them in begin and end messages.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a batch of one message.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`], as for [`Batch::push`].
    pub fn with_message(
        action: &'static str,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Self> {
        let mut batch = Batch::new();
        batch.push(action, kind, flags, fill)?;
        Ok(batch)
    }

    /// Appends a message. `fill` writes the family's fixed header with [`Writer::raw`], then attributes.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`] if an attribute exceeds 64 KiB; the batch is then unchanged.
    pub fn push(
        &mut self,
        action: &'static str,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        let mut writer = Writer::new(&mut self.bytes);
        fill(&mut writer);
        if let Err(error) = writer.finish(action) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let length = (self.bytes.len() - start) as u32;
        let header = &mut self.bytes[start..start + HEADER];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[KIND_AT..FLAGS_AT].copy_from_slice(&kind.to_ne_bytes());
        header[FLAGS_AT..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.count += 1;
        Ok(())
    }

    /// Returns the number of messages.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Returns true if there are no messages.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size of all messages in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all messages and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// Sets the sequence numbers of the messages, starting at `first`.
    pub(crate) fn number(&mut self, first: u32) {
        let mut at = 0;
        for index in 0..self.count {
            self.bytes[at + SEQUENCE_AT..at + SEQUENCE_AT + 4]
                .copy_from_slice(&first.wrapping_add(index).to_ne_bytes());
            at = self.after(at);
        }
    }

    /// Sets the type of all messages. That of a generic family is assigned by the kernel.
    pub(crate) fn set_kind(&mut self, kind: u16) {
        let mut at = 0;
        for _ in 0..self.count {
            self.bytes[at + KIND_AT..at + FLAGS_AT].copy_from_slice(&kind.to_ne_bytes());
            at = self.after(at);
        }
    }

    /// Sets flags on the message at this position.
    pub(crate) fn add_flags(&mut self, position: u32, flags: u16) {
        let at = (0..position).fold(0, |at, _| self.after(at)) + FLAGS_AT;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flags;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Returns the offset of the message after the one at offset `at`.
    fn after(&self, at: usize) -> usize {
        let length = self.bytes[at..at + 4].try_into().expect("four bytes were sliced");
        at + align(u32::from_ne_bytes(length) as usize)
    }

    /// Returns the message at this position.
    pub fn message(&self, position: usize) -> Option<Message<'_>> {
        Messages::new(&self.bytes).nth(position)?.ok()
    }

    /// Returns the encoded messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message type: below 16 a control message of netlink, else one of the family.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request; 0 for notifications.
    pub sequence: u32,
    /// The family's fixed header and its attributes.
    pub payload: &'a [u8],
}

/// The role of a received message in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// An object of the family.
    Object,
    /// The request with this sequence number succeeded.
    Acknowledged,
    /// End of a dump.
    Done,
    /// The request or the dump failed.
    Failed { errno: i32, text: Option<String>, offset: Option<u32> },
    /// `NLMSG_OVERRUN`: messages were lost.
    Overrun,
    /// `NLMSG_NOOP` and other control messages without content.
    Noop,
}

impl<'a> Message<'a> {
    /// Splits the payload into the family's fixed header of `N` bytes and the attributes.
    ///
    /// # Errors
    /// [`Malformed::Length`] if the payload is shorter than the header.
    pub fn split<const N: usize>(&self) -> Result<(&'a [u8; N], Attributes<'a>), Malformed> {
        let (header, rest) = self.payload.split_first_chunk::<N>().ok_or(Malformed::Length {
            what: "message",
            announced: HEADER + N,
            present: HEADER + self.payload.len(),
        })?;
        Ok((header, Attributes::new(rest.get(align(N) - N..).unwrap_or_default())))
    }

    /// Returns the position of the request that this message responds to, among `count` requests of which the first has the
    /// sequence number `first`; `None` if it belongs to an earlier request, whose caller has given up.
    ///
    /// # Errors
    /// [`Malformed::Sequence`] if no request had this number: the response that belongs to it is missing.
    pub(crate) fn position(&self, first: u32, count: u32) -> Result<Option<u32>, Malformed> {
        let position = self.sequence.wrapping_sub(first);
        // Numbers start again after the last one, so the number of an earlier request may be greater.
        let is_earlier = first.wrapping_sub(self.sequence) < u32::MAX / 2;
        match position < count {
            true => Ok(Some(position)),
            false if is_earlier || self.sequence == 0 => Ok(None),
            false => Err(Malformed::Sequence(self.sequence)),
        }
    }

    /// Returns true if the kernel reports that the dump is inconsistent.
    pub(crate) fn dump_interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }

    pub(crate) fn response(&self) -> Result<Response, Malformed> {
        match i32::from(self.kind) {
            libc::NLMSG_ERROR => self.status(Response::Acknowledged, true),
            libc::NLMSG_DONE => self.status(Response::Done, false),
            libc::NLMSG_OVERRUN => Ok(Response::Overrun),
            kind if kind < libc::NLMSG_MIN_TYPE => Ok(Response::Noop),
            _ => Ok(Response::Object),
        }
    }

    /// Reads a status (`struct nlmsgerr`): the negative errno, then for errors the header of the request, the rest of
    /// the request unless capped, and extended-ACK attributes if flagged. A `DONE` without payload is a success.
    fn status(&self, success: Response, echoes_request: bool) -> Result<Response, Malformed> {
        let Some((code, rest)) = self.payload.split_first_chunk::<4>() else {
            return match success {
                Response::Done => Ok(success),
                _ => Err(Malformed::Length {
                    what: "message",
                    announced: HEADER + 4,
                    present: HEADER + self.payload.len(),
                }),
            };
        };
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(success);
        }
        let echoed = match rest.first_chunk::<4>() {
            _ if !echoes_request => 0,
            Some(length) if self.flags & CAPPED == 0 => align(u32::from_ne_bytes(*length) as usize),
            _ => HEADER,
        };
        let (mut text, mut offset) = (None, None);
        if self.flags & ACK_ATTRIBUTES != 0 {
            // A malformed explanation must not hide the error itself.
            for attribute in Attributes::new(rest.get(echoed..).unwrap_or_default()).flatten() {
                match attribute.kind {
                    NLMSGERR_ATTR_MSG => text = Some(attribute.text()),
                    NLMSGERR_ATTR_OFFS => offset = attribute.u32().ok(),
                    _ => {}
                }
            }
        }
        Ok(Response::Failed { errno: code.wrapping_neg(), text, offset })
    }
}

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

impl Response {
    /// Returns the error of a failed request or an overrun.
    pub(crate) fn error(self, action: &'static str) -> Option<Error> {
        match self {
            Response::Failed { errno, text, offset } => Some(Error::Rejected { action, errno, text, offset }),
            Response::Overrun => Some(Error::Overrun { action }),
            _ => None,
        }
    }
}

/// Iterator over the messages of one datagram. It ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Reads messages from the start of `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let present = self.rest.len();
        if present == 0 {
            return None;
        }
        let Some(header) = self.rest.first_chunk::<HEADER>() else {
            self.rest = &[];
            return Some(Err(Malformed::Length { what: "message", announced: HEADER, present }));
        };
        let u32_at =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = u32_at(0) as usize;
        if length < HEADER || length > present {
            self.rest = &[];
            return Some(Err(Malformed::Length { what: "message", announced: length, present }));
        }
        let message = Message {
            kind: u16_at(KIND_AT),
            flags: u16_at(FLAGS_AT),
            sequence: u32_at(SEQUENCE_AT),
            payload: &self.rest[HEADER..length],
        };
        self.rest = &self.rest[align(length).min(present)..];
        Some(Ok(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error response: the code, the given part of the request, then the kernel's message.
    fn answer(kind: i32, flags: u16, code: i32, echoed: &[u8], text: Option<&str>) -> Vec<u8> {
        let mut batch = Batch::new();
        let pushed = batch.push("test", kind as u16, flags, |writer| {
            writer.raw(&code.to_ne_bytes()).raw(echoed);
            if let Some(text) = text {
                writer.text(NLMSGERR_ATTR_MSG, text).u32(NLMSGERR_ATTR_OFFS, 20);
            }
        });
        pushed.expect("a short message");
        batch.bytes().to_vec()
    }

    #[test]
    fn responses_are_classified() {
        let request = |length: usize| {
            let mut request = vec![0; length];
            request[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            request
        };
        let failed = |errno, text: Option<&str>| Response::Failed {
            errno,
            text: text.map(str::to_owned),
            offset: text.map(|_| 20),
        };
        let (error, done) = (libc::NLMSG_ERROR, libc::NLMSG_DONE);
        let text = Some("no such zone");
        let rows = [
            ("success", answer(error, CAPPED, 0, &request(16), None), Response::Acknowledged),
            ("a bare error", answer(error, CAPPED, -2, &request(16), None), failed(2, None)),
            ("an error that echoes the request", answer(error, 0, -2, &request(40), None), failed(2, None)),
            (
                "a message after a capped request",
                // The capped header still has the length of the whole request.
                answer(
                    error,
                    CAPPED | ACK_ATTRIBUTES,
                    -22,
                    &[&400u32.to_ne_bytes()[..], &[0; 12]].concat(),
                    text,
                ),
                failed(22, text),
            ),
            (
                "a message after a whole request",
                answer(error, ACK_ATTRIBUTES, -22, &request(40), text),
                failed(22, text),
            ),
            ("end of a dump", answer(done, 0, 0, &[], None), Response::Done),
            ("a failed dump with a message", answer(done, ACK_ATTRIBUTES, -95, &[], text), failed(95, text)),
            (
                "random bytes in place of the message",
                answer(error, ACK_ATTRIBUTES, -1, &[255; 40], None),
                failed(1, None),
            ),
            ("an overrun", answer(libc::NLMSG_OVERRUN, 0, 0, &[], None), Response::Overrun),
            ("an object", answer(0x0100, 0, 0, &[], None), Response::Object),
            ("no operation", answer(libc::NLMSG_NOOP, 0, 0, &[], None), Response::Noop),
        ];
        for (case, bytes, response) in rows {
            let message = Messages::new(&bytes).next().expect("one message").expect("a whole message");
            assert_eq!(message.response().as_ref(), Ok(&response), "{case}");
        }
    }

    #[test]
    fn sequence_numbers_are_consecutive_and_only_the_last_message_requests_an_ack() {
        let mut batch = Batch::new();
        for length in [1, 2, 3] {
            batch
                .push("test", 20, CREATE, |writer| {
                    writer.bytes(1, &vec![0; length]);
                })
                .expect("short");
        }
        batch.number(7);
        batch.add_flags(2, ACK);
        let seen: Vec<_> = Messages::new(batch.bytes()).flatten().map(|m| (m.sequence, m.flags)).collect();
        assert_eq!(seen, [(7, REQUEST | CREATE), (8, REQUEST | CREATE), (9, REQUEST | CREATE | ACK)]);
    }

    #[test]
    fn responses_belong_to_this_request_or_an_earlier_one() {
        let position = |sequence, first, count| {
            Message { kind: 20, flags: 0, sequence, payload: &[] }.position(first, count)
        };
        for (sequence, first, count, expected) in [
            (7, 7, 1, Ok(Some(0))),
            (9, 7, 3, Ok(Some(2))),
            (6, 7, 1, Ok(None)),
            (0, 7, 1, Ok(None)),
            (0, u32::MAX - 3, 1, Ok(None)),
            // The numbers have started again.
            (u32::MAX - 3, 1, 2, Ok(None)),
            (8, 7, 1, Err(Malformed::Sequence(8))),
            (1_000_000, 7, 3, Err(Malformed::Sequence(1_000_000))),
        ] {
            assert_eq!(position(sequence, first, count), expected, "{sequence} of {first} and {count}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(kind: u16, flags: u16, payload in proptest::collection::vec(0u8.., 0..80)) {
            let _ = Message { kind, flags, sequence: 1, payload: &payload }.response();
        }
    }
}
