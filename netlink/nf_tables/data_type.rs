//! Data types of set keys and map data. Only `nft` interprets them; the kernel uses lengths.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::family::Family;

/// The type of a part of a key or of map data. The numbers are those of `nft` (`enum datatypes`), which needs them to print
/// sets; the kernel stores them without interpreting them.
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

    /// Returns the type of the addresses of a family.
    pub fn address(family: Family) -> Self {
        match family {
            Family::V4 => DataType::Ipv4Addr,
            Family::V6 => DataType::Ipv6Addr,
        }
    }

    /// Returns the number that `nft` uses.
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

    /// Returns the length in bytes.
    pub fn length(self) -> usize {
        match self {
            DataType::Ipv4Addr | DataType::Mark | DataType::ClassId => 4,
            DataType::Ipv6Addr | DataType::IfName | DataType::Verdict => 16,
            DataType::InetProto => 1,
            DataType::InetService => 2,
        }
    }

    /// Returns the name that `nft` uses.
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

    /// Prints a value as `nft -n` does, in hexadecimal if it has another length than the type.
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
                // A name without NUL is a prefix.
                let rest = if end.is_none() && bytes.len() < self.length() { "*" } else { "" };
                let name = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
                write!(out, "\"{name}{rest}\"")
            }
            (_, bytes) => hexadecimal(bytes, out),
        }
    }
}

/// Returns the name of a transport protocol that is printed by name.
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
