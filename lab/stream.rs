//! Sockets of streams as the standard library does not open them: over SCTP, or from an address of choice. Once open,
//! one over SCTP is used as if it were TCP's, in the style that RFC 6458 calls one-to-one.

use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use crate::plan::Protocol;

/// `SCTP_NODELAY` of linux/sctp.h.
const SCTP_NODELAY: libc::c_int = 3;

/// The most connections that wait to be accepted, as in the standard library.
const BACKLOG: libc::c_int = 128;

/// Whether this kernel has SCTP sockets; it loads the module if it has that.
pub(crate) fn has_sctp() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| socket(Protocol::Sctp, libc::AF_INET).is_ok());
    *HAS
}

/// Listens.
pub(crate) fn listen(protocol: Protocol, at: SocketAddr) -> io::Result<TcpListener> {
    if protocol == Protocol::Tcp {
        return TcpListener::bind(at);
    }
    let listener = TcpListener::from(socket(protocol, family(at))?);
    bind(&listener, at)?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    Ok(listener)
}

/// Connects, if that takes no longer than `timeout`.
pub(crate) fn connect(
    protocol: Protocol,
    from: Option<SocketAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    if protocol == Protocol::Tcp && from.is_none() {
        return TcpStream::connect_timeout(&to, timeout);
    }
    let stream = TcpStream::from(socket(protocol, family(to))?);
    if let Some(from) = from {
        bind(&stream, from)?;
    }
    // The kernel bounds a blocking connect by the time-out for sending.
    stream.set_write_timeout(Some(timeout))?;
    let (address, length) = c_address(to);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let answer = unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) };
    match check(answer) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
        Ok(()) => Ok(stream),
    }
}

/// Lets it send what it is given at once, without waiting for more.
pub(crate) fn at_once(protocol: Protocol, stream: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    match protocol {
        Protocol::Sctp => set_option(stream, libc::IPPROTO_SCTP, SCTP_NODELAY, &on),
        Protocol::Tcp | Protocol::Udp => stream.set_nodelay(true),
    }
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

fn socket(protocol: Protocol, family: libc::c_int) -> io::Result<OwnedFd> {
    let number = if protocol == Protocol::Sctp { libc::IPPROTO_SCTP } else { 0 };
    // SAFETY: no pointers are passed; the answer is checked before it is used.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, number) };
    check(fd)?;
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn family(address: SocketAddr) -> libc::c_int {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// Binds to an address, even if a connection that is over still holds it.
fn bind(socket: &impl AsRawFd, at: SocketAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
    let (address, length) = c_address(at);
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

fn check(answer: libc::c_int) -> io::Result<()> {
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
