//! Echo servers of all pods of a lab, run by one thread.
//!
//! A socket belongs to the namespace in which it was opened, so each socket is opened inside its pod and then passed to
//! the thread.
//!
//! The protocol is one line in each direction over TCP and SCTP, and one datagram in each direction over UDP:
//! ```text
//! → TEXT
//! ← NAMESPACE/POD CLIENT-ADDRESS:PORT TEXT
//! ```
//! A connection stays open for more lines. An HTTP GET gets an HTTP response, for `curl`.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::plan::{EchoPort, Protocol};
use crate::stream;

/// Maximum length of a line in bytes; a connection that exceeds it is closed.
const MAX_LINE: usize = 64 * 1024;

/// Handle of the server thread.
#[derive(Debug)]
pub(crate) struct EchoServers {
    commands: Option<Sender<Command>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Serve(String, Vec<Socket>),
    Close(String, Box<dyn Fn(EchoPort) -> bool + Send>),
}

enum Socket {
    Listener(TcpListener, EchoPort),
    Connection(Connection),
    Udp(UdpSocket, EchoPort),
}

struct Connection {
    stream: TcpStream,
    port: EchoPort,
    peer: SocketAddr,
    received: Vec<u8>,
}

impl EchoServers {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system is out of descriptors or threads.
    pub(crate) fn start() -> Result<Self> {
        let failed = |source| Error::system("cannot start the echo servers", source);
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        wake.set_nonblocking(true).map_err(failed)?;
        woken.set_nonblocking(true).map_err(failed)?;
        let (commands, received) = channel();
        let server = Server { commands: received, woken, sockets: HashMap::new() };
        let thread = thread::Builder::new().name("lab-echo".into()).spawn(move || server.run());
        Ok(Self { commands: Some(commands), wake, thread: Some(thread.map_err(failed)?) })
    }

    /// Listens on ports of a pod, at each of its addresses, in its namespace. Ports of protocols that the kernel does not
    /// support are skipped.
    ///
    /// # Errors
    /// A port is in use; the message names the pod and the port.
    pub(crate) fn serve(
        &self,
        name: &str,
        netns: &NetNs,
        addresses: &[IpAddr],
        ports: impl IntoIterator<Item = EchoPort> + Send,
    ) -> Result<()> {
        let sockets = netns.run(|| {
            let mut sockets = Vec::new();
            for port in ports.into_iter().filter(|port| port.protocol.is_supported()) {
                for address in addresses {
                    sockets.push(open(SocketAddr::new(*address, port.port), port).map_err(|source| {
                        let at = SocketAddr::new(*address, port.port);
                        Error::system(format!("{name} cannot listen at {at}/{}", port.protocol), source)
                    })?);
                }
            }
            Ok::<_, Error>(sockets)
        })??;
        self.send(Command::Serve(name.to_owned(), sockets));
        Ok(())
    }

    /// Closes all sockets of a pod, which resets its connections.
    pub(crate) fn close(&self, name: &str) {
        self.send(Command::Close(name.to_owned(), Box::new(|_| true)));
    }

    /// Closes the ports of a pod that match a predicate.
    pub(crate) fn close_ports(&self, name: &str, which: impl Fn(EchoPort) -> bool + Send + 'static) {
        self.send(Command::Close(name.to_owned(), Box::new(which)));
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Cannot fail: the thread ends only after this sender is dropped.
            let _ = commands.send(command);
        }
        self.wake();
    }

    fn wake(&self) {
        // If the buffer is full, a wake-up is already pending.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The panic handler has printed a panic of the thread.
            let _ = thread.join();
        }
    }
}

fn open(at: SocketAddr, port: EchoPort) -> io::Result<Socket> {
    match port.protocol {
        Protocol::Tcp | Protocol::Sctp => {
            let listener = stream::listen(port.protocol, at)?;
            listener.set_nonblocking(true)?;
            Ok(Socket::Listener(listener, port))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(at)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Udp(socket, port))
        }
    }
}

struct Server {
    commands: Receiver<Command>,
    woken: UnixStream,
    sockets: HashMap<RawFd, (String, Socket)>,
}

impl Server {
    fn run(mut self) {
        loop {
            if !self.run_commands() {
                return;
            }
            for fd in self.wait() {
                self.serve(fd);
            }
        }
    }

    /// Runs the queued commands; returns false once the sender is dropped.
    fn run_commands(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(read) if read > 0) {}
        loop {
            match self.commands.try_recv() {
                Ok(Command::Serve(name, sockets)) => {
                    for socket in sockets {
                        self.sockets.insert(socket.fd(), (name.clone(), socket));
                    }
                }
                Ok(Command::Close(name, which)) => {
                    self.sockets.retain(|_, (owner, socket)| *owner != name || !which(socket.port()));
                }
                Err(error) => return error == std::sync::mpsc::TryRecvError::Empty,
            }
        }
    }

    /// Waits for events; returns the readable sockets.
    fn wait(&self) -> Vec<RawFd> {
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled: Vec<libc::pollfd> = self.sockets.keys().copied().map(poll).collect();
        polled.push(poll(self.woken.as_raw_fd()));
        let count = libc::nfds_t::try_from(polled.len()).expect("a descriptor number fits");
        // SAFETY: the pointer and the count describe the vector, which outlives the call.
        let answer = unsafe { libc::poll(polled.as_mut_ptr(), count, -1) };
        if answer < 0 {
            return Vec::new();
        }
        polled.into_iter().filter(|entry| entry.revents != 0).map(|entry| entry.fd).collect()
    }

    fn serve(&mut self, fd: RawFd) {
        let Some((name, socket)) = self.sockets.get_mut(&fd) else { return };
        match socket {
            Socket::Listener(listener, port) => {
                let mut accepted = Vec::new();
                while let Ok((stream, peer)) = listener.accept() {
                    accepted.push((name.clone(), Connection::new(stream, peer, *port)));
                }
                for (name, connection) in accepted {
                    if let Ok(connection) = connection {
                        self.sockets
                            .insert(connection.stream.as_raw_fd(), (name, Socket::Connection(connection)));
                    }
                }
            }
            Socket::Connection(connection) => {
                if !connection.reply(name) {
                    self.sockets.remove(&fd);
                }
            }
            Socket::Udp(socket, _) => {
                let mut datagram = [0; 2048];
                while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
                    let text = String::from_utf8_lossy(&datagram[..length]);
                    // If a reply cannot be sent, the client times out.
                    let _ = socket.send_to(reply(name, peer, text.trim_end()).as_bytes(), peer);
                }
            }
        }
    }
}

impl Socket {
    fn fd(&self) -> RawFd {
        match self {
            Self::Listener(listener, _) => listener.as_raw_fd(),
            Self::Connection(connection) => connection.stream.as_raw_fd(),
            Self::Udp(socket, _) => socket.as_raw_fd(),
        }
    }

    fn port(&self) -> EchoPort {
        match self {
            Self::Listener(_, port) | Self::Udp(_, port) => *port,
            Self::Connection(connection) => connection.port,
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, peer: SocketAddr, port: EchoPort) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream::set_nodelay(port.protocol, &stream)?;
        Ok(Self { stream, port, peer, received: Vec::new() })
    }

    /// Replies to the received lines; returns false when the connection is to be closed.
    fn reply(&mut self, name: &str) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(read) => self.received.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let is_http = line.starts_with("GET ") && line.contains(" HTTP/");
            let body = reply(name, self.peer, if is_http { "" } else { line.trim_end() });
            if is_http {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
                let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                // The connection is closed either way.
                let _ = self.stream.write_all(response.as_bytes());
                return false;
            }
            if self.stream.write_all(body.as_bytes()).is_err() {
                return false;
            }
        }
        self.received.len() <= MAX_LINE
    }
}

fn reply(name: &str, peer: SocketAddr, text: &str) -> String {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let space = if text.is_empty() { "" } else { " " };
    format!("{name} {peer}{space}{text}\n")
}
