//! The echo servers of all pods of a lab, served by one thread.
//!
//! A socket belongs to the namespace it was opened in, so each is opened inside its pod and then handed to the thread.
//!
//! Protocol, a line each way over TCP and SCTP, and a datagram each way over UDP:
//! ```text
//! → anything
//! ← NAMESPACE/POD CLIENT-ADDRESS:PORT anything
//! ```
//! A connection stays open for more lines. A line that is an HTTP GET is answered as HTTP, for `curl`.

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

/// The longest line that is answered, in bytes; a client that sends more is cut off.
const MAX_LINE: usize = 64 * 1024;

/// The thread, and the way to tell it what to serve.
#[derive(Debug)]
pub(crate) struct EchoServers {
    orders: Option<Sender<Order>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

enum Order {
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
    /// When the system is out of descriptors or threads.
    pub(crate) fn start() -> Result<Self> {
        let failed = |source| Error::system("cannot start the echo servers", source);
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        wake.set_nonblocking(true).map_err(failed)?;
        woken.set_nonblocking(true).map_err(failed)?;
        let (orders, received) = channel();
        let server = Server { orders: received, woken, sockets: HashMap::new() };
        let thread = thread::Builder::new().name("lab-echo".into()).spawn(move || server.run());
        Ok(Self { orders: Some(orders), wake, thread: Some(thread.map_err(failed)?) })
    }

    /// Serves ports of a pod, at each of its addresses, in its namespace; those of protocols that the kernel does not
    /// speak stay closed.
    ///
    /// # Errors
    /// When a port is taken; the message names the pod and the port.
    pub(crate) fn serve(
        &self,
        name: &str,
        netns: &NetNs,
        addresses: &[IpAddr],
        ports: impl IntoIterator<Item = EchoPort> + Send,
    ) -> Result<()> {
        let sockets = netns.run(|| {
            let mut sockets = Vec::new();
            for port in ports.into_iter().filter(|port| port.protocol.is_spoken()) {
                for address in addresses {
                    sockets.push(open(SocketAddr::new(*address, port.port), port).map_err(|source| {
                        let at = SocketAddr::new(*address, port.port);
                        Error::system(format!("{name} cannot listen at {at}/{}", port.protocol), source)
                    })?);
                }
            }
            Ok::<_, Error>(sockets)
        })??;
        self.order(Order::Serve(name.to_owned(), sockets));
        Ok(())
    }

    /// Stops a pod's server and resets its connections.
    pub(crate) fn close(&self, name: &str) {
        self.order(Order::Close(name.to_owned(), Box::new(|_| true)));
    }

    /// Stops those ports of a pod.
    pub(crate) fn close_ports(&self, name: &str, which: impl Fn(EchoPort) -> bool + Send + 'static) {
        self.order(Order::Close(name.to_owned(), Box::new(which)));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only after this sender is gone.
            let _ = orders.send(order);
        }
        self.wake();
    }

    fn wake(&self) {
        // When the buffer is full the thread is awake anyhow.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        self.orders = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed already.
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
    orders: Receiver<Order>,
    woken: UnixStream,
    sockets: HashMap<RawFd, (String, Socket)>,
}

impl Server {
    fn run(mut self) {
        loop {
            if !self.take_orders() {
                return;
            }
            for fd in self.wait() {
                self.serve(fd);
            }
        }
    }

    /// Does what was ordered; `false` at the end of all orders.
    fn take_orders(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(read) if read > 0) {}
        loop {
            match self.orders.try_recv() {
                Ok(Order::Serve(name, sockets)) => {
                    for socket in sockets {
                        self.sockets.insert(socket.fd(), (name.clone(), socket));
                    }
                }
                Ok(Order::Close(name, which)) => {
                    self.sockets.retain(|_, (owner, socket)| *owner != name || !which(socket.port()));
                }
                Err(error) => return error == std::sync::mpsc::TryRecvError::Empty,
            }
        }
    }

    /// The sockets that have something to read.
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
                if !connection.answer(name) {
                    self.sockets.remove(&fd);
                }
            }
            Socket::Udp(socket, _) => {
                let mut datagram = [0; 2048];
                while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
                    let text = String::from_utf8_lossy(&datagram[..length]);
                    // A reply that cannot be sent is a timeout for the client, as in any network.
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
        stream::at_once(port.protocol, &stream)?;
        Ok(Self { stream, port, peer, received: Vec::new() })
    }

    /// Answers the lines that came; `false` when the connection is over.
    fn answer(&mut self, name: &str) -> bool {
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
                let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                // The connection ends here either way.
                let _ = self.stream.write_all(answer.as_bytes());
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
