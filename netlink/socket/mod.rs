//! Netlink sockets: acknowledged requests, queries, dumps and notifications.
//!
//! ```text
//! acknowledged   received      which responses and notifications belong to which request
//!          \       /
//!           Socket             sequence numbers, the read buffer, repetition of interrupted calls
//!              │
//!          Transport           one system call per method; tests replace or disturb it
//! ```

mod acknowledged;
#[cfg(feature = "test-transport")]
pub mod faults;
#[cfg_attr(not(feature = "test-transport"), allow(unreachable_pub, reason = "public for tests only"))]
mod kernel_transport;
mod received;
#[cfg(feature = "test-transport")]
mod test_transport;
#[cfg_attr(not(feature = "test-transport"), allow(unreachable_pub, reason = "public for tests only"))]
mod transport;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[cfg(not(feature = "test-transport"))]
use self::transport::Transport as _;
use crate::error::{Error, Result};
use crate::message::Batch;

pub(crate) use self::kernel_transport::{namespace_cookie, set_membership};

#[cfg(feature = "test-transport")]
pub use self::{
    kernel_transport::KernelTransport,
    test_transport::{OpenRequest, with_transports},
    transport::{Datagram, SocketOptions, Transport},
};

/// Size of the read buffer. Datagrams of a dump have at most 32 KiB unless a single message is larger, and an
/// attribute has at most 64 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The transport of all sockets.
#[cfg(not(feature = "test-transport"))]
type ActiveTransport = kernel_transport::KernelTransport;
/// The transport of a socket, which tests choose.
#[cfg(feature = "test-transport")]
type ActiveTransport = Box<dyn Transport>;

/// Protocol of a netlink socket (`NETLINK_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// Links, addresses, routes (`NETLINK_ROUTE`).
    Route,
    /// conntrack, nfacct, nf_tables, ipset (`NETLINK_NETFILTER`).
    Netfilter,
    /// Generic netlink families, among them ip_vs (`NETLINK_GENERIC`).
    Generic,
}

impl NetlinkProtocol {
    fn number(self) -> i32 {
        match self {
            NetlinkProtocol::Route => libc::NETLINK_ROUTE,
            NetlinkProtocol::Netfilter => libc::NETLINK_NETFILTER,
            NetlinkProtocol::Generic => libc::NETLINK_GENERIC,
        }
    }
}

/// A netlink socket, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    transport: ActiveTransport,
    /// The sequence number of the next request; never 0, which marks notifications.
    next_sequence: u32,
    /// The end of the responses to the last request was not read, because of an error.
    has_unread_responses: bool,
    /// The last datagram. The memory is not written before, so that only what was needed once takes memory.
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// [`Error::Io`], usually if the kernel lacks the protocol.
    pub fn open(protocol: NetlinkProtocol) -> Result<Self> {
        Self::with_groups(protocol, &[])
    }

    /// Opens a socket that receives the notifications of multicast groups (`RTNLGRP_*`, `NFNLGRP_*`) and waits for
    /// them without a timeout.
    ///
    /// # Errors
    /// [`Error::Io`], usually without privilege or for an unknown group.
    pub fn listen(protocol: NetlinkProtocol, groups: &[u32]) -> Result<Self> {
        Self::with_groups(protocol, groups)
    }

    fn with_groups(protocol: NetlinkProtocol, groups: &[u32]) -> Result<Self> {
        #[cfg(not(feature = "test-transport"))]
        let transport = kernel_transport::KernelTransport::open(protocol, groups)?;
        #[cfg(feature = "test-transport")]
        let transport = test_transport::open(protocol, groups)?;
        Ok(Socket {
            transport,
            next_sequence: 1,
            has_unread_responses: false,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Returns the socket's port id, unique in the network namespace.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn port(&self) -> Result<u32> {
        self.transport.options().port().during("read a netlink socket's port")
    }

    /// Sets the send and receive buffers to `bytes`: beyond the system's limit with privilege, else up to it. A send
    /// must not exceed the send buffer.
    pub fn set_buffers(&self, bytes: i32) {
        self.transport.options().set_receive_buffer(bytes);
        self.transport.options().set_send_buffer(bytes);
    }

    /// Makes reads non-blocking, for a socket driven by a poller.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn set_nonblocking(&self) -> Result<()> {
        self.transport.options().set_nonblocking().during("make a netlink socket non-blocking")
    }

    /// Attaches a socket filter that drops notifications whose 32 bits at `offset` of the message, including its
    /// header, equal `value` in host order. Replaces an earlier filter.
    pub(crate) fn drop_events(&self, action: &'static str, offset: u32, value: u32) -> Result<()> {
        self.transport.options().drop_matching(offset, value).during(action)
    }

    /// Blocks until the socket or another descriptor is readable, also if the socket is non-blocking.
    pub(crate) fn wait(&self, action: &'static str, other: Option<BorrowedFd<'_>>) -> Result<()> {
        loop {
            match self.transport.wait(other) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                waited => return waited.during(action),
            }
        }
    }

    /// Sends a batch to which the kernel does not respond.
    pub(crate) fn send_without_response(&mut self, action: &'static str, batch: &mut Batch) -> Result<()> {
        // An error that it reports all the same is discarded before the next request.
        self.send(action, batch, 0).map(drop)
    }

    /// Assigns sequence numbers to a batch and sends it. Returns the sequence number of its first message.
    fn send(&mut self, action: &'static str, batch: &mut Batch, last_flags: u16) -> Result<u32> {
        if self.has_unread_responses {
            self.discard_responses(action)?;
        }
        let mut first = self.next_sequence;
        if first.checked_add(batch.len()).is_none() {
            first = 1;
        }
        self.next_sequence = first + batch.len();
        batch.number(first);
        batch.add_flags(batch.len() - 1, last_flags);
        let mut enlarged = false;
        loop {
            let Err(source) = self.transport.send(batch.bytes()) else {
                self.has_unread_responses = true;
                return Ok(first);
            };
            match source.raw_os_error() {
                Some(libc::EINTR) => {}
                // A send must not exceed the send buffer.
                Some(libc::EMSGSIZE) if !enlarged => {
                    enlarged = true;
                    self.transport.options().set_send_buffer(i32::try_from(batch.size()).unwrap_or(i32::MAX));
                }
                _ => return Err(Error::Io { action, source }),
            }
        }
    }

    /// Discards the responses to the last request. The kernel rejects another dump with `EBUSY` before the last one has
    /// ended, and sends its next part when one is read, so that this need not wait.
    fn discard_responses(&mut self, action: &'static str) -> Result<()> {
        loop {
            match self.receive_with(action, true) {
                Ok(_) | Err(Error::Overrun { .. } | Error::Truncated { .. }) => {}
                Err(Error::NoResponse { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        self.has_unread_responses = false;
        Ok(())
    }

    /// Reads one datagram of the kernel into the buffer and returns its length.
    fn receive(&mut self, action: &'static str) -> Result<usize> {
        self.receive_with(action, false)
    }

    fn receive_with(&mut self, action: &'static str, is_nonblocking: bool) -> Result<usize> {
        loop {
            let datagram = match self.transport.receive(&mut self.buffer, is_nonblocking) {
                Ok(datagram) => datagram,
                Err(source) => match source.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ENOBUFS) => return Err(Error::Overrun { action }),
                    Some(libc::EAGAIN) => return Err(Error::NoResponse { action }),
                    _ => return Err(Error::Io { action, source }),
                },
            };
            if datagram.port != 0 {
                continue; // sent by another process to our port
            }
            if datagram.length > self.buffer.capacity() {
                self.buffer = Vec::with_capacity(datagram.length.next_power_of_two());
                return Err(Error::Truncated { action, needed: datagram.length });
            }
            return Ok(datagram.length);
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.options().fd()
    }
}

/// Adds the action to the error of a system call.
trait DuringCall<T> {
    fn during(self, action: &'static str) -> Result<T>;
}

impl<T> DuringCall<T> for io::Result<T> {
    fn during(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { action, source })
    }
}
