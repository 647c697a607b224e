//! SCTP, with raw packets: the kernel of a test may have connection tracking of SCTP, but no SCTP sockets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::host_port_reachability::{add, mapping, pod};
use crate::node::{NODE_IPS, Node, OUTSIDE, OUTSIDE_IPS, POD_1, POD_1_IPS};

#[test]
fn sctp_is_forwarded_with_a_valid_checksum() {
    let node = Node::new();
    add(&node, &pod(POD_1_IPS, &[mapping(9000, 36412, "sctp", "")]), "pcp1");
    let received = node.inside(POD_1, raw_socket);
    let packet = init(40000, 9000);
    node.inside(OUTSIDE, || send(&raw_socket(), &packet, NODE_IPS[0]));
    let mut buffer = [0u8; 200];
    // SAFETY: the buffer is valid for its length.
    let length = unsafe { libc::recv(received.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    assert!(length > 0, "no packet arrived: {}", std::io::Error::last_os_error());
    let ip = &buffer[..length as usize];
    let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    assert_eq!(source.to_string(), OUTSIDE_IPS[0]);
    let sctp = &ip[usize::from(ip[0] & 15) * 4..];
    assert_eq!(u16::from_be_bytes([sctp[2], sctp[3]]), 36412);
    assert_eq!(sctp, init(40000, 36412), "with the checksum of the new port");
}

fn raw_socket() -> OwnedFd {
    // SAFETY: no pointers are passed; the descriptor is new.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_SCTP);
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(socket)
    };
    let timeout = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // SAFETY: the pointer and the length are those of the value.
    unsafe {
        let (option, length) = ((&raw const timeout).cast(), size_of_val(&timeout) as u32);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, length);
    }
    socket
}

fn send(socket: &OwnedFd, packet: &[u8], to: &str) {
    let to = SocketAddrV4::new(to.parse().unwrap(), 0);
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the pointers and lengths are those of the values.
    let sent = unsafe {
        let (data, name) = (packet.as_ptr().cast(), (&raw const address).cast());
        libc::sendto(socket.as_raw_fd(), data, packet.len(), 0, name, size_of_val(&address) as u32)
    };
    assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
}

/// Returns an SCTP packet with an INIT chunk (RFC 9260).
fn init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(0x1234_5678u32.to_be_bytes());
    packet.extend(100_000u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1u32.to_be_bytes());
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}
