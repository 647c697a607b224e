//! Announcements of addresses to the hosts of a link: gratuitous ARP and unsolicited neighbour advertisements.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::route::MacAddress;

const ACTION: &str = "announce an address";

const BROADCAST: MacAddress = MacAddress([0xff; 6]);

/// The group of all nodes, `ff02::1`, and its Ethernet address (RFC 2464, 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

const ICMPV6: u8 = 58;
/// Type of a neighbour advertisement (RFC 4861, 4.4).
const ADVERTISEMENT: u8 = 136;
/// Flag of an advertisement: it replaces an Ethernet address that the receiver knows.
const OVERRIDE: u8 = 0x20;
/// Option with the Ethernet address of the sender of an advertisement.
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// Announces on a link that `mac` has these addresses. Hosts that know another Ethernet address of them use this one from now on.
///
/// # Errors
/// [`Error::Io`]: without CAP_NET_RAW, or if the link is down.
pub fn announce_address(link: u32, mac: MacAddress, addresses: &[IpAddr]) -> Result<()> {
    // SAFETY: no pointers; the result is checked before use. Protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os(ACTION));
    }
    // SAFETY: `fd` was just opened and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for &address in addresses {
        let frame = match address {
            IpAddr::V4(address) => gratuitous_arp(mac, address).to_vec(),
            IpAddr::V6(address) => neighbour_advertisement(mac, address),
        };
        send(&socket, link, &frame)?;
    }
    Ok(())
}

fn send(socket: &OwnedFd, link: u32, frame: &[u8]) -> Result<()> {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
    to.sll_ifindex = link as i32;
    // SAFETY: frame and address are live and passed with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(Error::Io { action: ACTION, source: io::Error::last_os_error() }) } else { Ok(()) }
}

/// Returns an announcement by ARP (RFC 5227, 3): a request whose sender and target are the address.
fn gratuitous_arp(mac: MacAddress, address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].copy_from_slice(&BROADCAST.0);
    frame[6..12].copy_from_slice(&mac.0);
    // EtherType ARP; Ethernet, IPv4, lengths of both addresses, request.
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&address.octets());
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// Returns an unsolicited neighbour advertisement (RFC 4861, 7.2.6) to all nodes.
fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    icmp.extend(address.octets());
    // The length is in units of 8 bytes.
    icmp.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    icmp.extend(mac.0);
    let checksum = checksum(address, ALL_NODES, &icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(14 + 40 + icmp.len());
    frame.extend(ALL_NODES_MAC.0);
    frame.extend(mac.0);
    // EtherType IPv6; version 6; length, ICMPv6, hop limit 255 as RFC 4861 requires.
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, icmp.len() as u8, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

/// Returns the checksum of an ICMPv6 message with its pseudo header (RFC 8200, 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let pseudo_header =
        [&from.octets()[..], &to.octets(), &[0, 0, 0, icmp.len() as u8, 0, 0, 0, ICMPV6]].concat();
    let words = pseudo_header.chunks(2).chain(icmp.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    #[test]
    fn frames_have_the_form_of_their_protocols() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(&frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6]);
        assert_eq!(&frame[22..], [2, 0, 0, 0, 0, 7, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 10, 0, 0, 5]);

        let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
        let frame = neighbour_advertisement(MAC, address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[14 + 4..14 + 6], [0, 32], "the payload's length");
        let icmp = &frame[54..];
        assert_eq!(checksum(address, ALL_NODES, icmp), 0, "a sum over its own checksum is 0");
        assert_eq!(icmp[8..24], address.octets());
        assert_eq!(icmp[24..], [2, 1, 2, 0, 0, 0, 0, 7]);
    }
}
