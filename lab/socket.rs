//! Sockets with what the standard library does not offer: an address to come from, and no waiting.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::plan::Protocol;

/// Opens a socket for the family of an address, in the namespace of the calling thread. `flags` are the kernel's, such
/// as `SOCK_NONBLOCK`.
pub(crate) fn open(protocol: Protocol, of: SocketAddr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Protocol::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Protocol::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    };
    // SAFETY: no pointers are passed; the answer is checked before it is used.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | flags, number) };
    check(fd)?;
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the socket an address and a port of its own.
pub(crate) fn bind(socket: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = c_address(to);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Connects the socket. One that does not wait gives `EINPROGRESS` where the peer must be asked.
pub(crate) fn connect(socket: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = c_address(to);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Lets several sockets come from one port, each to a peer of its own; to be called before [`bind`].
pub(crate) fn share_port(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)
}

/// Has a stream end by a reset, so that nobody remembers it for long.
pub(crate) fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Takes the error that waits at the socket, if one does.
pub(crate) fn take_error(socket: &impl AsRawFd) -> io::Result<()> {
    let (mut error, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointers describe `error` and `length`, which outlive the call.
    check(unsafe {
        let error = (&raw mut error).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, error, &raw mut length)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Sets an option that takes a `T`.
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

pub(crate) fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address as the kernel takes it: an IPv4 one in the first bytes, an IPv6 one in all.
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
            // `sin_addr` lies where `sin6_flowinfo` does, right after the port.
            six.sin6_flowinfo = u32::from_ne_bytes(address.ip().octets());
            (six, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
    }
}
