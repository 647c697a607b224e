//! The socket that sends the packet of a probe.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use portcullis_cluster::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};

/// The effect of the packet that its sender sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// The connection was accepted (TCP, SCTP).
    Accepted,
    /// A datagram was received (UDP).
    Replied,
    /// The error of a response: a reset or an ICMP error.
    Error(i32),
    /// The kernel did not send the packet.
    NotSent(i32),
    /// No response within the time limit.
    Nothing,
}

/// A socket that is bound to its source address and port, and has not sent anything.
pub(super) struct Packet {
    socket: Socket,
    protocol: Protocol,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    sent: Option<Result<(), i32>>,
}

impl Packet {
    /// Opens a socket in the calling thread's network namespace. Without `from`, the kernel chooses the source address.
    pub(super) fn new(protocol: Protocol, from: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(to);
        let (kind, number) = match protocol {
            Protocol::Tcp => (Type::STREAM, libc::IPPROTO_TCP),
            Protocol::Udp => (Type::DGRAM, libc::IPPROTO_UDP),
            Protocol::Sctp => (Type::STREAM, libc::IPPROTO_SCTP),
        };
        let socket = Socket::new(domain, kind, Some(socket2::Protocol::from(number)))?;
        socket.set_nonblocking(true)?;
        let from = match from {
            Some(from) => from,
            None => source_address(to)?,
        };
        socket.bind(&SocketAddr::new(from, 0).into())?;
        if kind == Type::STREAM {
            // A reset ends the connection without states that wait.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Packet { socket, protocol, from: local, to, sent: None })
    }

    /// Sends the packet: the SYN of a connection, or an empty datagram.
    pub(super) fn send(&mut self) {
        let sent = self.socket.connect(&SockAddr::from(self.to)).and_then(|()| match self.protocol {
            Protocol::Udp => self.socket.send(&[]).map(|_| ()),
            _ => Ok(()),
        });
        self.sent = Some(match sent {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINPROGRESS) => Ok(()),
                number => Err(number.unwrap_or(libc::EIO)),
            },
        });
    }

    /// Returns the response; `None` if there is none yet.
    pub(super) fn response(&self) -> Option<Response> {
        match self.sent {
            Some(Err(errno)) if is_from_network(errno) => return Some(Response::Error(errno)),
            Some(Err(errno)) => return Some(Response::NotSent(errno)),
            _ => {}
        }
        if let Ok(Some(error)) = self.socket.take_error() {
            return Some(Response::Error(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        match self.protocol {
            Protocol::Udp => {
                let mut buffer = [std::mem::MaybeUninit::new(0); 1];
                match self.socket.recv(&mut buffer) {
                    Ok(_) => Some(Response::Replied),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                    Err(error) => Some(Response::Error(error.raw_os_error().unwrap_or(libc::EIO))),
                }
            }
            // A connected socket has a peer.
            _ => self.socket.peer_addr().is_ok().then_some(Response::Accepted),
        }
    }
}

/// Returns true for errors that only a response causes. The loopback delivers a packet and its response during `connect`.
fn is_from_network(errno: i32) -> bool {
    matches!(errno, libc::ECONNREFUSED | libc::ECONNRESET)
}

impl AsFd for Packet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns the source address that the kernel chooses for a destination.
fn source_address(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    // Sends nothing.
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn response(protocol: Protocol, to: SocketAddr) -> Response {
        let mut packet = Packet::new(protocol, None, to).expect("a socket");
        assert_eq!(packet.from.ip(), to.ip(), "{protocol}");
        packet.send();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(response) = packet.response() {
                return response;
            }
            assert!(Instant::now() < until, "{protocol} {to}: no response");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn responses_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let open = listener.local_addr().expect("an address");
        assert_eq!(response(Protocol::Tcp, open), Response::Accepted);
        let echo = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let at = echo.local_addr().expect("an address");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (_, from) = echo.recv_from(&mut []).expect("the probe");
                echo.send_to(b"reply", from).expect("a reply");
            });
            assert_eq!(response(Protocol::Udp, at), Response::Replied);
        });
        drop((listener, echo));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let closed = if protocol == Protocol::Tcp { open } else { at };
            assert_eq!(response(protocol, closed), Response::Error(libc::ECONNREFUSED), "{protocol}");
        }
    }
}
