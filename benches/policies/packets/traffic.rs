//! Senders and receivers of benchmark traffic, as threads in the pods' namespaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Lab, NetNs};
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, CtState, DesiredTable, Hook, Rule, TableFamily, Verdict, commit, open,
};

/// Duration of a sample of connections or of a flow.
const TIME: Duration = Duration::from_secs(1);

/// Number of new flows per sample; each has its own source port.
const FLOWS: u16 = 30_000;
const FIRST_SOURCE_PORT: u16 = 20_000;

/// Payload of a datagram in bytes.
const PAYLOAD: usize = 64;

/// Number of short measurements of the time of a packet, and of packets in each; all of them fit into the receive buffer.
const MEASUREMENTS: usize = 1_000;
const PACKETS: u32 = 50;

/// Size of the receive buffer in bytes.
const RECEIVE_BUFFER: i32 = 64 << 20;

/// Path from a client pod to a server pod.
pub(crate) struct TrafficPath {
    pub(crate) client: NetNs,
    pub(crate) server: NetNs,
    pub(crate) from: Ipv4Addr,
    /// Destination of the client: the server, or a Service.
    pub(crate) to: SocketAddrV4,
    /// Listening address of the server.
    pub(crate) at: SocketAddrV4,
}

/// Result of opening and closing TCP connections one after another.
pub(crate) struct Connections {
    /// Connections per second.
    #[allow(dead_code, reason = "only the Services benchmark shows it")]
    pub(crate) rate: f64,
    /// Median time from a connection's first packet to its reply.
    #[allow(dead_code, reason = "only the Services benchmark shows it")]
    pub(crate) latency: Duration,
    /// Time of a connection without other load on the machine: a low quantile, as other load only adds to it.
    #[allow(dead_code, reason = "only the policies benchmark shows it")]
    pub(crate) time: Duration,
}

impl TrafficPath {
    /// Opens and closes connections for the duration of a sample.
    pub(crate) fn connections(&self) -> Connections {
        let listener = inside(&self.server, || TcpListener::bind(self.at));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(listener.accept());
                }
            });
            let connect = || -> io::Result<Connections> {
                let (started, mut latencies, mut times) = (Instant::now(), Vec::new(), Vec::new());
                while started.elapsed() < TIME {
                    let started_connect = Instant::now();
                    let stream = TcpStream::connect(self.to)?;
                    latencies.push(started_connect.elapsed());
                    reset_on_close(&stream)?;
                    drop(stream);
                    times.push(started_connect.elapsed());
                }
                let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
                latencies.sort();
                let latency = latencies[latencies.len() / 2];
                let time = low_quantile(times);
                done.store(true, Ordering::Relaxed);
                // The last connection wakes the listener.
                TcpStream::connect(self.to).map(|_| Connections { rate, latency, time })
            };
            inside(&self.client, connect)
        })
    }

    /// Returns the time to send a packet of a flow with one reply, in which the kernel also takes it to the receiver. Other load
    /// only adds to it, so it is a low quantile of many short measurements.
    pub(crate) fn packet_time(&self) -> Duration {
        let server = self.receiver();
        let client = self.established_flow(&server);
        let times = (0..MEASUREMENTS)
            .map(|_| {
                let started = Instant::now();
                (0..PACKETS).for_each(|_| _ = client.send(&[0; PAYLOAD]).expect("the server is reachable"));
                started.elapsed() / PACKETS
            })
            .collect();
        low_quantile(times)
    }

    /// Returns the client's socket of a flow with one reply.
    fn established_flow(&self, server: &UdpSocket) -> UdpSocket {
        inside(&self.client, || {
            let socket = UdpSocket::bind((self.from, 0))?;
            socket.connect(self.to)?;
            socket.send(b"hello")?;
            let (_, peer) = server.recv_from(&mut [0; PAYLOAD])?;
            server.send_to(b"hello", peer)?;
            socket.recv(&mut [0; PAYLOAD])?;
            Ok(socket)
        })
    }

    /// Returns the time to send the first packet of a flow, in which the kernel also takes it to the receiver; a low quantile,
    /// as [`TrafficPath::packet_time`].
    #[allow(dead_code, reason = "only the policies benchmark measures it")]
    pub(crate) fn first_packet_time(&self) -> Duration {
        let server = self.receiver();
        let raw = inside(&self.client, raw_socket);
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(self.to.ip().octets()) },
            sin_zero: [0; 8],
        };
        let mut packet = self.packet();
        let mut send = |source_port: u16| {
            packet[20..22].copy_from_slice(&source_port.to_be_bytes());
            let length = size_of_val(&to) as libc::socklen_t;
            // SAFETY: both pointers are to live values, and the lengths are theirs.
            let sent = unsafe {
                let address = (&raw const to).cast();
                libc::sendto(raw.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, address, length)
            };
            assert!(sent >= 0, "cannot send: {}", io::Error::last_os_error());
        };
        let ports: Vec<u16> = (FIRST_SOURCE_PORT..FIRST_SOURCE_PORT + FLOWS).collect();
        let time_of = |ports: &[u16]| {
            let started = Instant::now();
            ports.iter().for_each(|port| send(*port));
            started.elapsed() / PACKETS
        };
        let time = low_quantile(ports.chunks_exact(PACKETS as usize).map(time_of).collect());
        server.set_nonblocking(true).expect("it is a socket");
        let received = std::iter::from_fn(|| server.recv(&mut [0; PAYLOAD]).ok()).count();
        assert!(received >= usize::from(FLOWS) / 2, "only {received} of {FLOWS} packets arrived");
        time
    }

    fn receiver(&self) -> UdpSocket {
        let socket = inside(&self.server, || UdpSocket::bind(self.at));
        set(&socket, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER).expect("runs as root");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("it is not zero");
        socket
    }

    /// Returns a datagram with its IPv4 header; the kernel sets the IPv4 length and checksum.
    fn packet(&self) -> [u8; 28 + PAYLOAD] {
        let mut packet = [0; 28 + PAYLOAD];
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = libc::IPPROTO_UDP as u8;
        packet[12..16].copy_from_slice(&self.from.octets());
        packet[16..20].copy_from_slice(&self.to.ip().octets());
        packet[22..24].copy_from_slice(&self.to.port().to_be_bytes());
        packet[24..26].copy_from_slice(&(8 + PAYLOAD as u16).to_be_bytes());
        packet
    }
}

/// Returns the time that a twentieth of the measurements does not exceed.
fn low_quantile(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 20]
}

fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> io::Result<T> + Send) -> T {
    let done = netns.run(work).expect("it can be entered");
    done.unwrap_or_else(|error| panic!("in {}: {error}", netns.name()))
}

/// Makes the kernel send a reset on close, so that no port stays in TIME_WAIT.
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

fn raw_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(socket: &impl AsRawFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes behind `value`, which is a live T of plain data.
    match unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Enables conntrack in a namespace. Services need it on every node, so it is enabled in the baseline, too.
pub(crate) fn track_connections() {
    let mut table = DesiredTable::new(TableFamily::Inet, "as-services-do");
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0 };
    let rules = vec![Rule::new().ct_state(CtState::INVALID).then(Verdict::Drop)];
    table.put_chain(&"forward".into(), Chain { base: Some(base), ..Chain::new(rules) });
    let mut socket = open().expect("runs as root").expect("this kernel has nf_tables");
    commit(&mut socket, &mut table).expect("the kernel accepts the table");
}

/// Returns the IPv4 address of a pod.
pub(crate) fn address(lab: &Lab, pod: &str) -> Ipv4Addr {
    let pod = lab.plan().pod(pod).expect("the pod is planned");
    let v4 = pod.addresses.iter().find_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    v4.expect("the lab is dual-stack")
}
