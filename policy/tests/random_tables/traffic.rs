//! Packets through the node of a test: a network namespace that routes from one of clients to one of servers.
//!
//! ```text
//! clients ── veth ── node (the test's namespace) ── veth ── servers
//! any source         forwards, has the tables                all addresses, sockets that only receive
//! ```
//! Servers never reply, so connection tracking treats each packet as the first of a connection, and rules evaluate it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_policy::Connection;
use socket2::{Domain, Socket, Type};

use crate::namespace::run;
use crate::veth::{in_neighbour_namespace, sysctl};

/// Packets of each flow that may be on their way: so few that the packets of all flows fit into the queue of a processor
/// (`net.core.netdev_max_backlog`, 1,000).
const MAX_IN_FLIGHT: u64 = 16;

/// Bytes of a server's receive buffer: more than all packets in flight.
const RECEIVE_BUFFER: usize = 64 << 20;

/// The time within which all packets must have arrived.
const ARRIVAL: Duration = Duration::from_secs(20);

/// The namespaces and the servers' sockets.
pub(crate) struct Testbed {
    receivers: Vec<UdpSocket>,
    clients: mpsc::Sender<Request>,
}

/// A request for a client's socket.
struct Request {
    from: SocketAddr,
    to: SocketAddr,
    reply: mpsc::Sender<UdpSocket>,
}

/// A flow of packets that the node must pass or drop.
pub(crate) struct Flow {
    pub(crate) connection: Connection,
    pub(crate) is_allowed: bool,
    socket: UdpSocket,
    sent: AtomicU64,
    received: AtomicU64,
    /// Packets that did not arrive and should, or that arrived and should not: from the first, by their numbers.
    surprises: Mutex<Vec<Range<u64>>>,
}

/// Packets of flows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) allowed: u64,
    pub(crate) forbidden: u64,
}

impl Testbed {
    /// Creates the namespaces around that of the calling thread. Servers have these addresses and ports.
    pub(crate) fn new(addresses: &[Ipv4Addr], ports: &[u16]) -> Self {
        run("ip link set lo up");
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv4/conf/all/rp_filter", "0");
        sysctl("ipv4/conf/default/rp_filter", "0");
        let (clients, requests) = mpsc::channel::<Request>();
        // Opens sockets until the testbed is dropped.
        in_neighbour_namespace("clients", ["198.51.100.1", "198.51.100.2"], move || {
            run("ip route add default via 198.51.100.1");
            for Request { from, to, reply } in requests {
                reply.send(client(from, to)).unwrap();
            }
        });
        let (sender, receivers) = mpsc::channel();
        let (own, ports) = (addresses.to_vec(), ports.to_vec());
        in_neighbour_namespace("servers", ["192.0.2.1", "192.0.2.2"], move || {
            for address in own {
                run(&format!("ip address add {address}/32 dev lo"));
            }
            // Clients have the same addresses.
            sysctl("ipv4/conf/all/accept_local", "1");
            sysctl("ipv4/conf/all/rp_filter", "0");
            sysctl("ipv4/conf/servers-peer/rp_filter", "0");
            sender.send(ports.into_iter().map(server).collect()).unwrap();
        });
        let receivers = receivers.recv().expect("the servers' sockets");
        for address in addresses {
            run(&format!("ip route add {address} via 192.0.2.2"));
        }
        Testbed { receivers, clients }
    }

    /// Returns a flow whose packets the node must pass or drop.
    pub(crate) fn flow(&self, connection: Connection, is_allowed: bool) -> Flow {
        let (from, to) =
            (SocketAddr::new(connection.from, 0), SocketAddr::new(connection.to, connection.port));
        let (reply, socket) = mpsc::channel();
        self.clients.send(Request { from, to, reply }).unwrap();
        let socket = socket.recv().expect("a client's socket");
        Flow {
            connection,
            is_allowed,
            socket,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            surprises: Mutex::default(),
        }
    }

    /// Sends packets of all flows from several threads while `change` runs, and returns the numbers of sent packets.
    ///
    /// # Panics
    /// If a packet of an allowed flow is lost, or one of another flow arrives. `note` describes the test.
    pub(crate) fn while_packets_flow(
        &self,
        flows: &[Flow],
        note: &str,
        change: impl FnOnce(&mut dyn FnMut(String)),
    ) -> Counts {
        let mut steps: Vec<(String, Vec<u64>)> = Vec::new();
        let (stop, drained) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            for socket in &self.receivers {
                scope.spawn(|| receive(socket, flows, &drained));
            }
            let senders: Vec<_> = (0..SENDERS)
                .map(|n| {
                    scope.spawn({
                        let stop = &stop;
                        move || send(flows.iter().skip(n).step_by(SENDERS), flows, stop)
                    })
                })
                .collect();
            change(&mut |step| {
                steps.push((step, flows.iter().map(|flow| flow.sent.load(Ordering::Acquire)).collect()))
            });
            stop.store(true, Ordering::Relaxed);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let deadline = Instant::now() + ARRIVAL;
            while in_flight(flows) > 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            drained.store(true, Ordering::Relaxed);
        });
        let mut counts = Counts::default();
        let mut wrong = Vec::new();
        for (index, flow) in flows.iter().enumerate() {
            let (sent, received) = (flow.sent.load(Ordering::Relaxed), flow.received.load(Ordering::Relaxed));
            let expected = if flow.is_allowed { sent } else { 0 };
            if received != expected {
                let Connection { from, to, port, .. } = flow.connection;
                let kind = if flow.is_allowed { "allowed" } else { "forbidden" };
                wrong.push(format!("{kind} flow {from} → {to}:{port}: {received} of {sent} packets arrived"));
                for range in flow.surprises.lock().unwrap().iter() {
                    let step = steps.iter().rev().find(|(_, sent)| sent[index] <= range.start);
                    let step = step.map_or("before the first step", |(step, _)| step);
                    wrong.push(format!("    {range:?} at {step}"));
                }
            }
            *(if flow.is_allowed { &mut counts.allowed } else { &mut counts.forbidden }) += sent;
        }
        assert!(wrong.is_empty(), "{note}:\n{}", wrong.join("\n"));
        counts
    }
}

/// Threads that send.
const SENDERS: usize = 2;

/// Returns a socket that sends from any address.
fn client(from: SocketAddr, to: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_ip_transparent_v4(true).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap_or_else(|error| panic!("{from} → {to}: {error}"));
    socket.into()
}

fn server(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    force_receive_buffer(&socket);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()).unwrap();
    socket.into()
}

fn force_receive_buffer(socket: &Socket) {
    use std::os::fd::AsRawFd;
    let bytes = libc::c_int::try_from(RECEIVE_BUFFER).unwrap();
    // SAFETY: the pointer is to an integer of the given length, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            std::ptr::from_ref(&bytes).cast(),
            libc::socklen_t::try_from(size_of_val(&bytes)).unwrap(),
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

fn in_flight(flows: &[Flow]) -> u64 {
    let of = |flow: &Flow| {
        // Reads the received packets first, so that the difference is not negative.
        let received = flow.received.load(Ordering::Acquire);
        flow.sent.load(Ordering::Acquire) - received
    };
    flows.iter().filter(|flow| flow.is_allowed).map(of).sum()
}

/// Sends packets of some flows in turn, as long as not too many of all flows are on their way.
fn send<'a>(own: impl Iterator<Item = &'a Flow> + Clone, all: &[Flow], stop: &AtomicBool) {
    let index = |flow: &Flow| all.iter().position(|one| std::ptr::eq(one, flow)).unwrap() as u32;
    let own: Vec<(u32, &Flow)> = own.map(|flow| (index(flow), flow)).collect();
    let limit = MAX_IN_FLIGHT * all.iter().filter(|flow| flow.is_allowed).count() as u64;
    while !stop.load(Ordering::Relaxed) {
        for (index, flow) in &own {
            let packet = u64::from(*index) << 48 | flow.sent.fetch_add(1, Ordering::AcqRel);
            flow.socket.send(&packet.to_ne_bytes()).unwrap();
        }
        while in_flight(all) > limit && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

fn receive(socket: &UdpSocket, flows: &[Flow], drained: &AtomicBool) {
    let mut buffer = [0; 8];
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let packet = u64::from_ne_bytes(buffer);
                let (flow, number) = (&flows[(packet >> 48) as usize], packet & 0xffff_ffff_ffff);
                let received = flow.received.fetch_add(1, Ordering::AcqRel);
                let mut surprises = flow.surprises.lock().unwrap();
                let lost: u64 = surprises.iter().map(|range| range.end - range.start).sum();
                if !flow.is_allowed {
                    surprises.push(number..number + 1);
                } else if number > received + lost {
                    surprises.push(received + lost..number);
                }
            }
            Ok(length) => panic!("a packet of {length} bytes"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if drained.load(Ordering::Relaxed) {
                    return;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
