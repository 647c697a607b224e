//! TCP and SCTP streams with options that the standard library lacks: SCTP, and a source address. SCTP sockets are of the
//! one-to-one style (RFC 6458) and wrapped in the standard library's TCP types.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::time::Duration;

use crate::plan::Protocol;
use crate::socket;

/// `SCTP_NODELAY` of linux/sctp.h.
const SCTP_NODELAY: libc::c_int = 3;

/// Length of the accept queue, as in the standard library.
const BACKLOG: libc::c_int = 128;

/// Returns true if this kernel has SCTP sockets. Opening one loads the module.
pub(crate) fn has_sctp() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        socket::open(Protocol::Sctp, any, 0).is_ok()
    });
    *HAS
}

/// Opens a listening socket.
pub(crate) fn listen(protocol: Protocol, at: SocketAddr) -> io::Result<TcpListener> {
    if protocol == Protocol::Tcp {
        return TcpListener::bind(at);
    }
    let listener = TcpListener::from(socket::open(protocol, at, 0)?);
    socket::reuse_address(&listener)?;
    socket::bind(&listener, at)?;
    // SAFETY: no pointers are passed.
    socket::check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    Ok(listener)
}

/// Opens a connection within `timeout`.
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
        // A closed connection may still hold the port.
        socket::reuse_address(&stream)?;
        socket::bind(&stream, from)?;
    }
    // The send timeout also limits a blocking connect.
    stream.set_write_timeout(Some(timeout))?;
    match socket::connect(&stream, to) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
        Ok(()) => Ok(stream),
    }
}

/// Disables Nagle's algorithm.
pub(crate) fn set_nodelay(protocol: Protocol, stream: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    match protocol {
        Protocol::Sctp => socket::set_option(stream, libc::IPPROTO_SCTP, SCTP_NODELAY, &on),
        Protocol::Tcp | Protocol::Udp => stream.set_nodelay(true),
    }
}
