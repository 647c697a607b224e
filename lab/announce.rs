//! Gratuitous ARP and unsolicited neighbour advertisements.
//!
//! A pod may get an address that another pod on its bridge had before. Neighbours keep the old link-layer address in
//! their caches for up to a minute, and packets sent during that time are lost. CNI plugins announce addresses for the
//! same reason.

use std::io;
use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::socket::{check, set_option};

/// The interface of every pod.
const LINK: &str = "eth0";

type Mac = [u8; 6];

/// Announces the link-layer address of a pod's addresses to its neighbours.
pub(crate) fn announce(netns: &NetNs, addresses: &[IpAddr]) -> Result<()> {
    let announced = netns.run(|| {
        let (index, mac) = link()?;
        addresses.iter().try_for_each(|address| match address {
            IpAddr::V4(address) => send_gratuitous_arp(index, mac, *address),
            IpAddr::V6(address) => send_unsolicited_advertisement(index, mac, *address),
        })
    })?;
    announced
        .map_err(|source| Error::system(format!("cannot announce the addresses of {}", netns.name()), source))
}

/// Returns the index and the link-layer address of the pod's interface, in the namespace of the calling thread.
fn link() -> io::Result<(u32, Mac)> {
    let name = std::ffi::CString::new(LINK)?;
    // SAFETY: the name is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every bit pattern, zeroes too, is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LINK.bytes()) {
        *to = from as libc::c_char;
    }
    let socket = open(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: SIOCGIFHWADDR fills in the request, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) })?;
    // SAFETY: the kernel filled in this member of the union.
    let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut mac = Mac::default();
    mac.iter_mut().zip(bytes).for_each(|(to, from)| *to = from as u8);
    Ok((index, mac))
}

/// Sends an ARP announcement (RFC 5227): a request for the sender's own address, which updates neighbours' caches.
fn send_gratuitous_arp(index: u32, mac: Mac, address: Ipv4Addr) -> io::Result<()> {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let own = address.octets();
    let packet = [&ETHERNET_IPV4_REQUEST[..], &mac, &own, &[0; 6], &own].concat();
    let protocol = (libc::ETH_P_ARP as u16).to_be();
    let socket = open(libc::AF_PACKET, libc::SOCK_DGRAM, protocol.into())?;
    // SAFETY: every bit pattern, zeroes too, is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = protocol;
    to.sll_ifindex = index as i32;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&[0xff; 6]);
    send(&socket, &packet, &to)
}

/// Sends a neighbour advertisement with the override flag to all nodes (RFC 4861, 7.2.6). The kernel fills in the
/// checksum.
fn send_unsolicited_advertisement(index: u32, mac: Mac, address: Ipv6Addr) -> io::Result<()> {
    const ADVERTISEMENT: [u8; 4] = [136, 0, 0, 0];
    const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let packet =
        [&ADVERTISEMENT[..], &OVERRIDE, &address.octets(), &TARGET_LINK_LAYER_ADDRESS, &mac].concat();
    let socket = open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
    // Neighbours discard advertisements with another hop limit, which a router could have forwarded.
    set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &255_i32)?;
    // SAFETY: every bit pattern, zeroes too, is a valid sockaddr_in6.
    let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    to.sin6_scope_id = index;
    to.sin6_addr.s6_addr = all_nodes.octets();
    send(&socket, &packet, &to)
}

fn open(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; the result is checked before use.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd)?;
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a packet to an address of one of the kernel's `sockaddr` types.
fn send<A>(socket: &OwnedFd, packet: &[u8], to: &A) -> io::Result<()> {
    let to = (&raw const *to).cast();
    // SAFETY: the pointers and lengths describe the packet and the address, which outlive the call.
    let sent = unsafe {
        let length = size_of::<A>() as libc::socklen_t;
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), size_of_val(packet), 0, to, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
