//! Sockets with options that the standard library lacks: a source address, non-blocking connect.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::plan::Protocol;

/// Opens a socket for the family of an address, in the namespace of the calling thread. `flags` are socket type flags,
/// such as `SOCK_NONBLOCK`.
pub(crate) fn open(protocol: Protocol, of: SocketAddr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Protocol::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Protocol::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    };
    // SAFETY: no pointers are passed; the result is checked before use.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | flags, number) };
    check(fd)?;
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the socket to a local address and port.
pub(crate) fn bind(socket: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = c_address(to);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Connects the socket. A non-blocking stream socket returns `EINPROGRESS`.
pub(crate) fn connect(socket: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = c_address(to);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Sets `SO_REUSEADDR`, so that several sockets with different peers can use one local port. Call it before [`bind`].
pub(crate) fn reuse_address(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)
}

/// Makes `close` send a reset, so that neither the peer nor connection tracking keeps the connection for long.
pub(crate) fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Returns the pending error of the socket (`SO_ERROR`), if there is one.
pub(crate) fn take_error(socket: &impl AsRawFd) -> io::Result<()> {
    let (mut error, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointers describe `error` and `length`, which outlive the call.
    check(unsafe {
        let error = (&raw mut error).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, error, &raw mut length)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Sets a socket option of type `T`.
pub(crate) fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value = (&raw const *value).cast();
    // SAFETY: the pointer and the length describe the value, a live T of plain data.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) })
}

/// Converts the result of a system call.
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Converts an address to `sockaddr_in6`, or to `sockaddr_in` in the first bytes of it.
fn c_address(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: every bit pattern, zeroes too, is a valid sockaddr_in6.
    let mut six: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    match address {
        SocketAddr::V6(address) => {
            six.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            six.sin6_port = address.port().to_be();
            six.sin6_addr.s6_addr = address.ip().octets();
            six.sin6_scope_id = address.scope_id();
            (six, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
        SocketAddr::V4(address) => {
            six.sin6_family = libc::AF_INET as libc::sa_family_t;
            six.sin6_port = address.port().to_be();
            // `sin_addr` has the offset of `sin6_flowinfo`, after the port.
            six.sin6_flowinfo = u32::from_ne_bytes(address.ip().octets());
            (six, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
    }
}
