//! A connection or a flow that stays open.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::plan::Protocol;
use crate::probe::Outcome;
use crate::{socket, stream};

/// A connection over TCP or SCTP, or a UDP socket with one peer, to an echo server. It stays in the namespace it was opened in, and
/// can be used from any thread.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    timeout: Duration,
    asked: u64,
}

#[derive(Debug)]
enum Socket {
    Stream(TcpStream, Vec<u8>),
    Udp(UdpSocket),
}

impl Conversation {
    /// Opens it in the namespace of the calling thread.
    pub(crate) fn open(
        protocol: Protocol,
        from: Option<SocketAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        let socket = match protocol {
            Protocol::Tcp | Protocol::Sctp => {
                let stream = stream::connect(protocol, from, to, timeout)?;
                stream::at_once(protocol, &stream)?;
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
        Ok(Self { socket, timeout, asked: 0 })
    }

    /// Sends a word and waits for the answer to it; late answers to earlier words are passed over.
    pub fn ask(&mut self, word: &str) -> Outcome {
        self.asked += 1;
        let word = format!("{word}#{}", self.asked);
        match self.exchange(&word) {
            Ok(reply) => Outcome::of_reply(&reply),
            Err(error) => Outcome::of_error(&error),
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

    /// Ends a connection by a reset, so that nobody remembers it for long; a UDP flow has no end but to fall silent.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn abort(self) -> io::Result<()> {
        let Socket::Stream(stream, _) = &self.socket else { return Ok(()) };
        socket::reset_on_close(stream)
    }

    /// How long [`ask`](Self::ask) waits.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        match &self.socket {
            Socket::Stream(stream, _) => stream.set_read_timeout(Some(timeout)),
            Socket::Udp(socket) => socket.set_read_timeout(Some(timeout)),
        }
    }

    fn exchange(&mut self, word: &str) -> io::Result<String> {
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
                socket.send(word.as_bytes()).map_err(|error| why_forbidden(socket, error))?;
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

/// A datagram that its own machine's rules reject is "not permitted" to `send`, while the rejection itself waits at the
/// socket; one that they drop is not permitted, and nothing waits.
pub(crate) fn why_forbidden(socket: &UdpSocket, error: io::Error) -> io::Error {
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
