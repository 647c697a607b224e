//! The transport of a socket: the system calls behind it, as a trait, so that tests can replace or disturb the kernel.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// A received datagram. Its bytes are in the caller's buffer, truncated to the capacity of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The length of the datagram before truncation, in bytes.
    pub length: usize,
    /// The port ID of the sender; 0 for the kernel.
    pub port: u32,
}

/// The way to the kernel.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends a datagram to the kernel.
    ///
    /// # Errors
    /// The error of `send(2)`; the kernel has then processed nothing.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Receives a datagram, which replaces the content of `buffer`. Waits for one unless `is_nonblocking`, up to the timeout of the
    /// socket. The buffer does not grow: its capacity is the limit.
    ///
    /// # Errors
    /// The error of `recvfrom(2)`: `EAGAIN` after the timeout, `ENOBUFS` if datagrams were lost.
    fn receive(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram>;

    /// Blocks until a datagram can be received, or another descriptor is readable.
    ///
    /// # Errors
    /// The error of `poll(2)`.
    fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()>;

    /// Returns the socket's properties and options.
    fn options(&self) -> &dyn SocketOptions;
}

/// The properties and options of a socket, which a transport that only changes datagrams takes from the one under it.
pub trait SocketOptions {
    /// Returns the port ID.
    ///
    /// # Errors
    /// The error of `getsockname(2)`.
    fn port(&self) -> io::Result<u32>;

    /// Drops received messages whose 32 bits at `offset` equal `value` in host order. Replaces an earlier call.
    ///
    /// # Errors
    /// The error of `setsockopt(2)`.
    fn drop_matching(&self, offset: u32, value: u32) -> io::Result<()>;

    /// Makes receiving non-blocking.
    ///
    /// # Errors
    /// The error of `ioctl(2)`.
    fn set_nonblocking(&self) -> io::Result<()>;

    /// Sets the size of the receive buffer, in bytes, or up to the limit of the system.
    fn set_receive_buffer(&self, bytes: i32);

    /// Sets the size of the send buffer, in bytes, or up to the limit of the system.
    fn set_send_buffer(&self, bytes: i32);

    /// Returns the file descriptor, for a poller.
    fn fd(&self) -> BorrowedFd<'_>;
}
