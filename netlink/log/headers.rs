//! The IP and transport headers at the start of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::family::Family;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// The greatest number of IPv6 extension headers that are read.
const MAX_EXTENSIONS: usize = 8;

/// Position of a packet in a fragmented one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FragmentPosition {
    /// It is not a fragment, or the first one: it has the transport header.
    #[default]
    First,
    /// A later fragment, without a transport header.
    Later,
}

/// Addresses, protocol and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketHeaders {
    /// The family.
    pub family: Family,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The transport protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// Source and destination port of TCP, UDP, SCTP, DCCP and UDP-Lite, unless truncated.
    pub ports: Option<(u16, u16)>,
    /// The flags of TCP (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
    pub tcp_flags: Option<u8>,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// The length of the whole packet in bytes, as its IP header says.
    pub length: u32,
    /// The position in a fragmented packet.
    pub fragment: FragmentPosition,
}

impl PacketHeaders {
    /// Parses the start of an IPv4 or IPv6 packet; `None` for other packets, or if the IP header is truncated.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        if header_length < header.len() {
            return None;
        }
        let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        let address = |at: usize| {
            IpAddr::from(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]))
        };
        let headers = PacketHeaders {
            family: Family::V4,
            source: address(12),
            destination: address(16),
            protocol: header[9],
            ports: None,
            tcp_flags: None,
            icmp: None,
            length: u16::from_be_bytes([header[2], header[3]]).into(),
            fragment: if offset == 0 { FragmentPosition::First } else { FragmentPosition::Later },
        };
        Some(headers.with_transport(packet.get(header_length..).unwrap_or_default()))
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let address = |at: usize| -> Option<IpAddr> {
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).ok()?).into())
        };
        let (mut protocol, mut rest) = (header[6], &packet[40..]);
        let mut fragment = FragmentPosition::First;
        for _ in 0..MAX_EXTENSIONS {
            let length = match (protocol, rest) {
                (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY, [_, units, ..]) => {
                    (usize::from(*units) + 1) * 8
                }
                (AUTHENTICATION, [_, units, ..]) => (usize::from(*units) + 2) * 4,
                (FRAGMENT, [_, _, high, low, ..]) => {
                    if u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 {
                        fragment = FragmentPosition::Later;
                    }
                    8
                }
                _ => break,
            };
            protocol = rest[0];
            rest = rest.get(length..).unwrap_or_default();
            if fragment == FragmentPosition::Later {
                break;
            }
        }
        let headers = PacketHeaders {
            family: Family::V6,
            source: address(8)?,
            destination: address(24)?,
            protocol,
            ports: None,
            tcp_flags: None,
            icmp: None,
            length: u32::from(u16::from_be_bytes([header[4], header[5]])) + 40,
            fragment,
        };
        Some(headers.with_transport(rest))
    }

    /// Adds what the transport header has.
    fn with_transport(mut self, transport: &[u8]) -> Self {
        if self.fragment == FragmentPosition::Later {
            return self;
        }
        let protocol = i32::from(self.protocol);
        match protocol {
            libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => {
                self.icmp = transport.first_chunk::<2>().map(|[kind, code]| (*kind, *code));
            }
            libc::IPPROTO_TCP
            | libc::IPPROTO_UDP
            | libc::IPPROTO_SCTP
            | libc::IPPROTO_DCCP
            | libc::IPPROTO_UDPLITE => {
                let ports = transport.first_chunk::<4>();
                self.ports =
                    ports.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
            }
            _ => {}
        }
        if protocol == libc::IPPROTO_TCP {
            self.tcp_flags = transport.get(13).copied();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An IPv4 packet from 10.0.0.1 to 10.0.0.2.
    fn v4(protocol: u8, options: usize, offset: u16, transport: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45 + (options / 4) as u8, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(vec![0; options]);
        packet.extend(transport);
        packet
    }

    /// An IPv6 packet from fd00::1 to fd00::2.
    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, next, 64];
        for last in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(rest);
        packet
    }

    /// The transport header of a TCP segment from port 1000 to port 443 with SYN.
    const TCP_SYN: [u8; 14] = [0x03, 0xe8, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2];

    #[test]
    fn transport_headers_are_read() {
        let tcp = (Some((1000, 443)), Some(2), None);
        let later = [17, 0, 0x05, 0xa8, 0, 0, 0, 0, 1, 2, 3, 4];
        let rows = [
            ("TCP", v4(6, 0, 0, &TCP_SYN), 6, tcp),
            ("TCP behind options", v4(6, 8, 0, &TCP_SYN), 6, tcp),
            ("truncated TCP", v4(6, 0, 0, &TCP_SYN[..6]), 6, (Some((1000, 443)), None, None)),
            ("a later fragment", v4(17, 0, 185, &[1, 2, 3, 4]), 17, (None, None, None)),
            ("ICMP", v4(1, 0, 0, &[8, 0, 1, 2]), 1, (None, None, Some((8, 0)))),
            ("UDP without ports", v4(17, 0, 0, &[1]), 17, (None, None, None)),
            ("IPv6 TCP", v6(6, &TCP_SYN), 6, tcp),
            ("a later IPv6 fragment", v6(FRAGMENT, &later), 17, (None, None, None)),
            ("ICMPv6", v6(58, &[128, 0]), 58, (None, None, Some((128, 0)))),
        ];
        for (case, packet, protocol, transport) in rows {
            let headers = PacketHeaders::parse(&packet).unwrap_or_else(|| panic!("{case}"));
            assert_eq!(headers.protocol, protocol, "{case}");
            assert_eq!((headers.ports, headers.tcp_flags, headers.icmp), transport, "{case}");
            let last = if headers.family == Family::V4 { "10.0.0.2" } else { "fd00::2" };
            assert_eq!(headers.destination.to_string(), last, "{case}");
            assert_eq!(headers.length, 60, "{case}");
        }
    }

    #[test]
    fn ipv6_extension_headers_are_skipped() {
        let mut rest = vec![DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        rest.extend([FRAGMENT, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([6, 0, 0, 1, 0, 0, 0, 7]);
        rest.extend(TCP_SYN);
        let headers = PacketHeaders::parse(&v6(HOP_BY_HOP, &rest)).expect("an IPv6 packet");
        assert_eq!((headers.protocol, headers.ports, headers.tcp_flags), (6, Some((1000, 443)), Some(2)));
    }

    #[test]
    fn other_packets_have_no_headers() {
        for packet in [&[][..], &[0x45; 19], &[0x44; 40], &[0x60; 39], &[0; 64], &[0x75; 64]] {
            assert_eq!(PacketHeaders::parse(packet), None, "{packet:?}");
        }
    }

    proptest! {
        #[test]
        fn random_packets_never_panic(version in 0u8..16, mut packet in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Some(first) = packet.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            let _ = PacketHeaders::parse(&packet);
        }
    }
}
