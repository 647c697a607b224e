//! The types of keys and data, as `nft` knows them: the kernel only knows lengths.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::family::Family;

/// What a part of a key, or the data of a map, means. The numbers are those of `nft` (`enum datatypes`), which it
/// reads back to print sets; the kernel keeps them and does not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataType {
    /// `ipv4_addr`.
    Ipv4Addr,
    /// `ipv6_addr`.
    Ipv6Addr,
    /// `inet_proto`, a transport protocol in one byte.
    InetProto,
    /// `inet_service`, a port in two bytes.
    InetService,
    /// `mark`, four bytes in host order.
    Mark,
    /// `classid`, a packet's priority, four bytes in host order.
    ClassId,
    /// `ifname`, 16 bytes padded with NUL.
    IfName,
    /// `verdict`: only as the data of a map.
    Verdict,
}

impl DataType {
    const ALL: [DataType; 8] = [
        DataType::Ipv4Addr,
        DataType::Ipv6Addr,
        DataType::InetProto,
        DataType::InetService,
        DataType::Mark,
        DataType::ClassId,
        DataType::IfName,
        DataType::Verdict,
    ];

    /// The type of a family's addresses.
    pub fn address(family: Family) -> Self {
        match family {
            Family::V4 => DataType::Ipv4Addr,
            Family::V6 => DataType::Ipv6Addr,
        }
    }

    /// The number by which `nft` knows it.
    pub(super) fn number(self) -> u32 {
        match self {
            DataType::Ipv4Addr => 7,
            DataType::Ipv6Addr => 8,
            DataType::InetProto => 12,
            DataType::InetService => 13,
            DataType::Mark => 19,
            DataType::ClassId => 23,
            DataType::IfName => 41,
            DataType::Verdict => 0xffff_ff00,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|data_type| data_type.number() == number)
    }

    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            DataType::Ipv4Addr | DataType::Mark | DataType::ClassId => 4,
            DataType::Ipv6Addr | DataType::IfName | DataType::Verdict => 16,
            DataType::InetProto => 1,
            DataType::InetService => 2,
        }
    }

    /// As `nft` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            DataType::Ipv4Addr => "ipv4_addr",
            DataType::Ipv6Addr => "ipv6_addr",
            DataType::InetProto => "inet_proto",
            DataType::InetService => "inet_service",
            DataType::Mark => "mark",
            DataType::ClassId => "classid",
            DataType::IfName => "ifname",
            DataType::Verdict => "verdict",
        }
    }

    /// Writes a value of the type as `nft -n` does. Bytes that it cannot be are written in hexadecimal.
    pub(super) fn print(self, bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
        match (self, bytes) {
            (DataType::Ipv4Addr, &[a, b, c, d]) => write!(out, "{}", Ipv4Addr::new(a, b, c, d)),
            (DataType::Ipv6Addr, bytes) => match <[u8; 16]>::try_from(bytes) {
                Ok(bytes) => write!(out, "{}", Ipv6Addr::from(bytes)),
                Err(_) => hexadecimal(bytes, out),
            },
            (DataType::InetProto, &[protocol]) => match protocol_name(protocol) {
                Some(name) => out.write_str(name),
                None => write!(out, "{protocol}"),
            },
            (DataType::InetService, &[high, low]) => write!(out, "{}", u16::from_be_bytes([high, low])),
            (DataType::Mark, &[a, b, c, d]) => write!(out, "{:#010x}", u32::from_ne_bytes([a, b, c, d])),
            (DataType::ClassId, &[a, b, c, d]) => match u32::from_ne_bytes([a, b, c, d]) {
                0 => out.write_str("none"),
                u32::MAX => out.write_str("root"),
                id => write!(out, "{:x}:{:x}", id >> 16, id & 0xffff),
            },
            (DataType::IfName, bytes) => {
                let end = bytes.iter().position(|byte| *byte == 0);
                // Without its end, only the first letters are compared.
                let rest = if end.is_none() && bytes.len() < self.length() { "*" } else { "" };
                let name = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
                write!(out, "\"{name}{rest}\"")
            }
            (_, bytes) => hexadecimal(bytes, out),
        }
    }
}

/// The name of a transport protocol, where it is one that we write by name.
pub(super) fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match i32::from(protocol) {
        libc::IPPROTO_ICMP => "icmp",
        libc::IPPROTO_TCP => "tcp",
        libc::IPPROTO_UDP => "udp",
        libc::IPPROTO_ICMPV6 => "ipv6-icmp",
        libc::IPPROTO_SCTP => "sctp",
        _ => return None,
    })
}

pub(super) fn hexadecimal(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    out.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}
