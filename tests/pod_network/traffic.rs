//! Traffic between network namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portcullis_lab::NetNs;

/// The time in which everything must happen. Repairs take a few hundred milliseconds; a loaded machine needs more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The time to wait for a response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool, explain: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{}", explain());
        thread::sleep(Duration::from_millis(20));
    }
}

fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Sends 2 MiB and reads them back.
pub(crate) fn exchange_tcp(client: &NetNs, server: &NetNs, address: IpAddr) {
    const BYTES: usize = 2 << 20;
    let listener = server.run(|| TcpListener::bind((any(address), 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = vec![0; BYTES];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(&received).unwrap();
    });
    let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    client
        .run(|| {
            let target = SocketAddr::new(address, port);
            let mut stream = TcpStream::connect_timeout(&target, PATIENCE)
                .unwrap_or_else(|error| panic!("{} to {target}: {error}", client.name()));
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&sent).unwrap();
            let mut returned = vec![0; BYTES];
            stream
                .read_exact(&mut returned)
                .unwrap_or_else(|error| panic!("{} from {target}: {error}", client.name()));
            assert!(returned == sent, "{} from {target}: other bytes", client.name());
        })
        .unwrap();
    echo.join().unwrap();
}

/// Sends a UDP request and reads it back. UDP may lose a packet, so it is tried three times.
pub(crate) fn exchange_udp(client: &NetNs, server: &NetNs, address: IpAddr, bytes: usize) {
    let is_answered = (0..3).any(|_| udp(client, server, address, bytes));
    assert!(is_answered, "{} to {address}: no response to {bytes} bytes over UDP", client.name());
}

/// Returns true if a UDP request is answered.
pub(crate) fn try_udp(client: &NetNs, server: &NetNs, address: IpAddr) -> bool {
    udp(client, server, address, 100)
}

fn udp(client: &NetNs, server: &NetNs, address: IpAddr, bytes: usize) -> bool {
    let echo = EchoServer::start(server, address);
    let target = SocketAddr::new(address, echo.port);
    client
        .run(|| {
            let socket = UdpSocket::bind((any(address), 0)).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            let sent = vec![7; bytes];
            let mut received = vec![0; bytes + 1];
            // The kernel has no route for a moment, for example.
            socket.send_to(&sent, target).is_ok()
                && socket
                    .recv_from(&mut received)
                    .is_ok_and(|(length, from)| length == bytes && from == target)
        })
        .unwrap()
}

/// Echoes UDP packets until it is dropped.
struct EchoServer {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    fn start(server: &NetNs, address: IpAddr) -> Self {
        let socket = server.run(|| UdpSocket::bind((any(address), 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopping.load(Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // A missing route is the client's timeout.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        EchoServer { port, stop, thread: Some(thread) }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A flow of UDP requests, one every 20 ms, each of which must be answered.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
    _echo: EchoServer,
}

impl Flow {
    pub(crate) fn start(client: &NetNs, server: &NetNs, address: IpAddr) -> Self {
        let echo = EchoServer::start(server, address);
        let target = SocketAddr::new(address, echo.port);
        let socket = client.run(|| UdpSocket::bind((any(address), 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let (stop, sent, lost) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let counts: (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
            (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&lost));
        let thread = thread::spawn(move || {
            let (stop, sent, lost) = counts;
            let mut buffer = [0; 64];
            while !stop.load(Relaxed) {
                let number = sent.fetch_add(1, Relaxed).to_ne_bytes();
                let is_answered = socket.send_to(&number, target).is_ok()
                    && socket.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == number);
                lost.fetch_add(usize::from(!is_answered), Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Flow { stop, sent, lost, thread, _echo: echo }
    }

    /// Returns the numbers of requests, and of those without a response.
    pub(crate) fn stop(self) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        (self.sent, self.lost)
    }
}

/// A TCP server that accepts connections until it is dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn tcp(server: &NetNs, port: u16) -> Self {
        let listener = server.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopping.load(Relaxed) {
                if listener.accept().is_err() {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Server { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Returns true if a connection is accepted.
pub(crate) fn try_tcp(client: &NetNs, address: IpAddr, port: u16) -> bool {
    let target = SocketAddr::new(address, port);
    client.run(|| TcpStream::connect_timeout(&target, TIMEOUT).is_ok()).unwrap()
}
