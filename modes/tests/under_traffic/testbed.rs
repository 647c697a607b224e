//! A node (the test's network namespace) between one of clients and one of endpoints.
//!
//! ```text
//! clients ── veth ── node ── veth ── endpoints
//! pods of this node   has    one receiver of datagrams,
//! and outside         rules  one TCP server
//! ```

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::run;
use crate::services::TARGET_PORT;
use crate::veth::{in_neighbour_namespace, sysctl};

/// Bytes of the receive buffer of the endpoints: more than all packets in flight.
const RECEIVE_BUFFER: usize = 64 << 20;

/// A function that runs on a new thread.
type Job = Box<dyn FnOnce() + Send>;

/// The namespaces.
pub(crate) struct Testbed {
    clients: mpsc::Sender<Job>,
    /// Receives all datagrams to endpoints.
    pub(crate) receiver: Socket,
}

impl Testbed {
    /// Creates the namespaces around that of the calling thread.
    pub(crate) fn new() -> Self {
        run("ip link set lo up");
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv4/conf/all/rp_filter", "0");
        sysctl("ipv4/conf/default/rp_filter", "0");
        let (clients, jobs) = mpsc::channel::<Job>();
        in_neighbour_namespace("clients", ["198.51.100.1", "198.51.100.2"], move || {
            run("ip route add default via 198.51.100.1");
            run("ip route add local 10.245.0.0/16 dev lo");
            let threads: Vec<_> = jobs.into_iter().map(thread::spawn).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let (sender, receiver) = mpsc::channel();
        in_neighbour_namespace("endpoints", ["192.0.2.1", "192.0.2.2"], move || {
            run("ip route add default via 192.0.2.1");
            run("ip route add local 10.244.0.0/16 dev lo");
            sysctl("ipv4/conf/all/rp_filter", "0");
            sysctl("ipv4/conf/endpoints-peer/rp_filter", "0");
            sender.send(receiver_of_datagrams()).unwrap();
            serve(&TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).unwrap());
        });
        let receiver = receiver.recv().expect("the socket of the endpoints");
        for block in ["10.244.0.0/16", "10.96.0.0/16", "203.0.113.0/24"] {
            run(&format!("ip route add {block} via 192.0.2.2"));
        }
        run("ip route add 10.245.0.0/16 via 198.51.100.2");
        Testbed { clients, receiver }
    }

    /// Makes connection tracking forget each datagram, so that the next one of its flow is evaluated by the rules again.
    pub(crate) fn forget_datagrams(&self) {
        sysctl("netfilter/nf_conntrack_udp_timeout", "0");
        sysctl("netfilter/nf_conntrack_tcp_timeout_close", "1");
    }

    /// Runs a function on a thread in the namespace of clients.
    pub(crate) fn among_clients<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (sender, result) = mpsc::channel();
        // The receiver is gone if the test has failed.
        self.clients.send(Box::new(move || drop(sender.send(job())))).unwrap();
        result
    }
}

/// Returns a socket that sends packets with the IP headers that it is given, in the namespace of the calling thread.
pub(crate) fn raw_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap()
}

fn receiver_of_datagrams() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER as libc::c_int);
    set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    socket.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    let address = std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, TARGET_PORT));
    socket.bind(&address.into()).unwrap();
    socket
}

fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    use std::os::fd::AsRawFd;
    // SAFETY: the pointer is to an integer of the given length, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// Tells each client the endpoint that it has reached.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let std::net::SocketAddr::V4(endpoint) = stream.local_addr().unwrap() else { unreachable!("IPv4") };
        // The client may be gone if the test has failed.
        _ = stream.write_all(&endpoint.ip().octets());
    }
}

/// Receives a datagram. Returns its length and the address that it was sent to; `None` if there is none for a while.
pub(crate) fn receive(socket: &Socket, buffer: &mut [u8]) -> Option<(usize, Ipv4Addr)> {
    use std::os::fd::AsRawFd;
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zero is valid for all fields; the pointers are to buffers of the given lengths that outlive the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: as above.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(length) = usize::try_from(length) else {
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
        return None;
    };
    // SAFETY: the kernel has written a header of a control message and an `in_pktinfo` to the aligned buffer.
    let address = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null() && (*header).cmsg_type == libc::IP_PKTINFO);
        (*libc::CMSG_DATA(header).cast::<libc::in_pktinfo>()).ipi_addr.s_addr
    };
    Some((length, Ipv4Addr::from(u32::from_be(address))))
}
