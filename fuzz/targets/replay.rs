//! A kernel whose responses are the input of a target.
//!
//! The input is a sequence of netlink messages, as the kernel sends them. A request gets the messages up to the next end of a
//! dump, acknowledgement or error. When the input is exhausted, every request ends successfully.

use std::io;
use std::os::fd::BorrowedFd;

use portcullis_netlink::message::{ACK, DUMP, HEADER, Messages};
use portcullis_netlink::socket::{Datagram, SocketOptions, Transport, with_transports};

use super::inert_options::InertOptions;

/// Offsets into the header of a message.
const KIND_AT: usize = 4;
const SEQUENCE_AT: usize = 8;
const PORT_AT: usize = 12;

/// `NLMSG_ERROR`: an acknowledgement or an error.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;

/// The receive calls that are served after a request has ended. A caller that goes on has missed the end.
const CALLS_AFTER_END: u32 = 3;

/// Runs `action`, in which the responses to the requests of all sockets are taken from `input`.
pub(super) fn with_responses<T>(input: &[u8], action: impl FnOnce() -> T) -> T {
    let input = input.to_vec();
    with_transports(move |_| Ok(Box::new(Replay::new(&input)?)), action)
}

/// The kernel's side of a socket.
#[derive(Debug)]
struct Replay {
    rest: Vec<u8>,
    /// The sequence number of the first message of the last request, which its responses have.
    sequence: u32,
    /// The message that ends the request once the input is exhausted; `None` for notifications.
    end: Option<Vec<u8>>,
    calls_after_end: u32,
    options: InertOptions,
}

impl Replay {
    fn new(input: &[u8]) -> io::Result<Self> {
        let options = InertOptions::new()?;
        Ok(Replay { rest: input.to_vec(), sequence: 0, end: None, calls_after_end: 0, options })
    }

    /// Takes the messages of the next datagram off the input.
    fn next_datagram(&mut self) -> Vec<u8> {
        let mut end = 0;
        while let Some(header) = self.rest.get(end..end + HEADER) {
            let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(header[KIND_AT..KIND_AT + 2].try_into().unwrap());
            if length < HEADER || length > self.rest.len() - end {
                // A malformed message, with everything behind it.
                end = self.rest.len();
                break;
            }
            // Port 0 marks messages that keep their sequence number: responses to other requests.
            if header[PORT_AT..] != [0; 4] {
                let at = end + SEQUENCE_AT;
                self.rest[at..at + 4].copy_from_slice(&self.sequence.to_ne_bytes());
            }
            end = (end + length.next_multiple_of(4)).min(self.rest.len());
            if kind == DONE || kind == ERROR {
                break;
            }
        }
        if end == 0 {
            end = self.rest.len();
        }
        self.rest.drain(..end).collect()
    }
}

impl Transport for Replay {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut messages = Messages::new(bytes).map(|message| message.expect("requests are well-formed"));
        self.sequence = messages.clone().next().expect("a request has a message").sequence;
        self.end = messages.find_map(|message| match message.flags {
            flags if flags & DUMP == DUMP => Some(status(DONE, message.sequence)),
            flags if flags & ACK != 0 => Some(status(ERROR, message.sequence)),
            _ => None,
        });
        self.calls_after_end = 0;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _is_nonblocking: bool) -> io::Result<Datagram> {
        let datagram = match &self.end {
            _ if !self.rest.is_empty() => self.next_datagram(),
            Some(end) if self.calls_after_end < CALLS_AFTER_END => {
                self.calls_after_end += 1;
                end.clone()
            }
            _ => return Err(io::Error::from_raw_os_error(EAGAIN)),
        };
        buffer.clear();
        buffer.extend(&datagram[..datagram.len().min(buffer.capacity())]);
        Ok(Datagram { length: datagram.len(), port: 0 })
    }

    fn wait(&self, _other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Ok(())
    }

    fn options(&self) -> &dyn SocketOptions {
        &self.options
    }
}

/// `EAGAIN`: nothing was received within the timeout.
const EAGAIN: i32 = 11;

/// Returns a message that reports success.
pub(super) fn status(kind: u16, sequence: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + 4);
    message.extend_from_slice(&(HEADER as u32 + 4).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&[0; 2]);
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message
}
