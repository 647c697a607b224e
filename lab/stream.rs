//! Streams as the standard library does not open them: over SCTP, or from an address of choice. Once open, one over
//! SCTP is used as if it were TCP's, in the style that RFC 6458 calls one-to-one.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::time::Duration;

use crate::plan::Protocol;
use crate::socket;

/// `SCTP_NODELAY` of linux/sctp.h.
const SCTP_NODELAY: libc::c_int = 3;

/// The most connections that wait to be accepted, as in the standard library.
const BACKLOG: libc::c_int = 128;

/// Whether this kernel has SCTP sockets; it loads the module if it has that.
pub(crate) fn has_sctp() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        socket::open(Protocol::Sctp, any, 0).is_ok()
    });
    *HAS
}

/// Listens.
pub(crate) fn listen(protocol: Protocol, at: SocketAddr) -> io::Result<TcpListener> {
    if protocol == Protocol::Tcp {
        return TcpListener::bind(at);
    }
    let listener = TcpListener::from(socket::open(protocol, at, 0)?);
    socket::share_port(&listener)?;
    socket::bind(&listener, at)?;
    // SAFETY: no pointers are passed.
    socket::check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
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
    let stream = TcpStream::from(socket::open(protocol, to, 0)?);
    if let Some(from) = from {
        // Even if a connection that is over still holds it.
        socket::share_port(&stream)?;
        socket::bind(&stream, from)?;
    }
    // The kernel bounds a blocking connect by the time-out for sending.
    stream.set_write_timeout(Some(timeout))?;
    match socket::connect(&stream, to) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
        Ok(()) => Ok(stream),
    }
}

/// Lets it send what it is given at once, without waiting for more.
pub(crate) fn at_once(protocol: Protocol, stream: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    match protocol {
        Protocol::Sctp => socket::set_option(stream, libc::IPPROTO_SCTP, SCTP_NODELAY, &on),
        Protocol::Tcp | Protocol::Udp => stream.set_nodelay(true),
    }
}
