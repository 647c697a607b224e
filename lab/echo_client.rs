//! Clients of the echo servers that keep a connection or a UDP flow open.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::plan::Protocol;
use crate::probe::ProbeOutcome;
use crate::{socket, stream};

/// A TCP or SCTP connection, or a connected UDP socket, to an echo server. It stays in the namespace in which it was
/// opened, and can be used from any thread.
#[derive(Debug)]
pub struct EchoClient {
    socket: Socket,
    timeout: Duration,
    sequence: u64,
}

#[derive(Debug)]
enum Socket {
    Stream(TcpStream, Vec<u8>),
    Udp(UdpSocket),
}

impl EchoClient {
    /// Opens the connection in the namespace of the calling thread.
    pub(crate) fn open(
        protocol: Protocol,
        from: Option<SocketAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        let socket = match protocol {
            Protocol::Tcp | Protocol::Sctp => {
                let stream = stream::connect(protocol, from, to, timeout)?;
                stream::set_nodelay(protocol, &stream)?;
                stream.set_read_timeout(Some(timeout))?;
                Socket::Stream(stream, Vec::new())
            }
            Protocol::Udp => {
                let any = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = UdpSocket::bind(from.unwrap_or(any))?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(timeout))?;
                Socket::Udp(socket)
            }
        };
        Ok(Self { socket, timeout, sequence: 0 })
    }

    /// Sends a word and waits for the reply to it; late replies to earlier words are discarded.
    pub fn exchange(&mut self, word: &str) -> ProbeOutcome {
        self.sequence += 1;
        let word = format!("{word}#{}", self.sequence);
        match self.send_and_receive(&word) {
            Ok(reply) => ProbeOutcome::from_reply(&reply),
            Err(error) => ProbeOutcome::from_error(&error),
        }
    }

    /// The client's own address and port.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Socket::Stream(stream, _) => stream.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }

    /// Resets the connection, so that neither the peer nor connection tracking keeps it for long. A UDP flow has no
    /// explicit end.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn abort(self) -> io::Result<()> {
        let Socket::Stream(stream, _) = &self.socket else { return Ok(()) };
        socket::reset_on_close(stream)
    }

    /// Sets how long [`exchange`](Self::exchange) waits.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        match &self.socket {
            Socket::Stream(stream, _) => stream.set_read_timeout(Some(timeout)),
            Socket::Udp(socket) => socket.set_read_timeout(Some(timeout)),
        }
    }

    fn send_and_receive(&mut self, word: &str) -> io::Result<String> {
        match &mut self.socket {
            Socket::Stream(stream, received) => {
                stream.write_all(format!("{word}\n").as_bytes())?;
                loop {
                    let line = read_line(stream, received)?;
                    if line.ends_with(word) {
                        return Ok(line);
                    }
                }
            }
            Socket::Udp(socket) => {
                socket.send(word.as_bytes()).map_err(|error| pending_error_for(socket, error))?;
                let mut datagram = [0; 2048];
                loop {
                    let length = socket.recv(&mut datagram)?;
                    let line = String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned();
                    if line.ends_with(word) {
                        return Ok(line);
                    }
                }
            }
        }
    }
}

/// Replaces the EPERM of `send` by the pending error of the socket, if there is one. A datagram that the sender's own
/// rules reject fails with EPERM and leaves the ICMP error pending; one that they drop leaves no pending error.
pub(crate) fn pending_error_for(socket: &UdpSocket, error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    socket.take_error().ok().flatten().unwrap_or(error)
}

fn read_line(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<String> {
    let mut bytes = [0; 512];
    loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        match stream.read(&mut bytes)? {
            0 => return Err(ErrorKind::ConnectionReset.into()),
            read => received.extend_from_slice(&bytes[..read]),
        }
    }
}
