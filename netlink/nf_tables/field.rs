//! Packet fields and metadata that rules can match.

use super::data_type::DataType;
use crate::family::Family;

/// The base of a payload offset (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The link layer header: Ethernet.
    Link = 0,
    /// IPv4 or IPv6.
    Network = 1,
    /// TCP, UDP, SCTP, ICMP.
    Transport = 2,
}

/// Metadata of a packet (`NFT_META_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// The packet priority, in host byte order. Until the packet is queued on an interface, only rules use it.
    Priority = 2,
    /// The packet mark.
    Mark = 3,
    /// The index of the input interface; 0 for packets that this host sends.
    Iif = 4,
    /// The index of the output interface.
    Oif = 5,
    /// The name of the input interface.
    IifName = 6,
    /// The name of the output interface.
    OifName = 7,
    /// IPv4 or IPv6 (`NFPROTO_*`), one byte.
    NfProto = 15,
    /// The transport protocol, one byte.
    L4Proto = 16,
}

impl Meta {
    const ALL: [Meta; 8] = [
        Meta::Priority,
        Meta::Mark,
        Meta::Iif,
        Meta::Oif,
        Meta::IifName,
        Meta::OifName,
        Meta::NfProto,
        Meta::L4Proto,
    ];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|key| *key as u32 == number)
    }

    /// Returns the length of the value in bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Meta::NfProto | Meta::L4Proto => 1,
            Meta::IifName | Meta::OifName => 16,
            _ => 4,
        }
    }
}

/// Conntrack data of a packet's connection (`NFT_CT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ct {
    /// The state ([`CtState`] bits), in host byte order.
    State = 0,
    /// The direction: 0 original, 1 reply; one byte.
    Direction = 1,
    /// The status (`IPS_*`), in host byte order.
    Status = 2,
    /// The connection mark.
    Mark = 3,
    /// The destination port of the original direction, before destination NAT (`ct original proto-dst`).
    OriginalDestinationPort = 12,
    /// The IPv4 destination address of the original direction (`ct original ip daddr`, Linux 4.17).
    OriginalIpv4Destination = 20,
    /// The IPv6 destination address of the original direction.
    OriginalIpv6Destination = 22,
}

impl Ct {
    const ALL: [Ct; 7] = [
        Ct::State,
        Ct::Direction,
        Ct::Status,
        Ct::Mark,
        Ct::OriginalDestinationPort,
        Ct::OriginalIpv4Destination,
        Ct::OriginalIpv6Destination,
    ];

    /// Returns the destination address of the original direction.
    pub fn original_destination(family: Family) -> Self {
        match family {
            Family::V4 => Ct::OriginalIpv4Destination,
            Family::V6 => Ct::OriginalIpv6Destination,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|key| *key as u32 == number)
    }

    /// Returns true for data of the original direction, which the connection has for each direction.
    pub(super) fn is_original(self) -> bool {
        matches!(
            self,
            Ct::OriginalDestinationPort | Ct::OriginalIpv4Destination | Ct::OriginalIpv6Destination
        )
    }

    /// Returns the length of the value in bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Ct::State | Ct::Status | Ct::Mark | Ct::OriginalIpv4Destination => 4,
            Ct::Direction => 1,
            Ct::OriginalDestinationPort => 2,
            Ct::OriginalIpv6Destination => 16,
        }
    }
}

/// Conntrack state bits (`NF_CT_STATE_*`).
pub struct CtState;

impl CtState {
    /// The packet matches no connection.
    pub const INVALID: u32 = 1;
    /// The connection has packets in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// The packet is related to another connection: an ICMP error, or the expectation of a helper.
    pub const RELATED: u32 = 4;
    /// The packet starts a connection.
    pub const NEW: u32 = 8;
    /// The packet is not tracked.
    pub const UNTRACKED: u32 = 64;
}

/// `IPS_DNAT`: the destination was translated.
pub const CT_STATUS_DNAT: u32 = 1 << 5;

/// A FIB lookup (`NFT_FIB_RESULT_*`, `NFTA_FIB_F_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fib {
    /// 1 if the kernel would send packets to the source address by the interface by which the packet arrived, otherwise 0; one byte. Only on
    /// `prerouting`.
    SourceRoute,
    /// The type of the source address (`RTN_*`), in host byte order.
    SourceType,
    /// The type of the destination address.
    DestinationType,
}

/// The flags of the first segment of a TCP connection: SYN alone.
pub const TCP_SYN: u8 = 0x02;
/// The flags of the first segment with ECN negotiation (RFC 3168): SYN, ECE, CWR.
pub const TCP_SYN_ECN: u8 = 0xc2;

/// `RTN_LOCAL`: an address of this host.
pub const FIB_LOCAL: u32 = 2;
/// `RTN_BROADCAST`: the broadcast address of a network.
pub const FIB_BROADCAST: u32 = 3;
/// `RTN_MULTICAST`: a multicast address.
pub const FIB_MULTICAST: u32 = 5;

/// A field that a rule can compare, look up or hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The source address.
    Source(Family),
    /// The destination address.
    Destination(Family),
    /// The EtherType (`ETH_P_*`), two bytes in network byte order; 802.1Q for tagged frames.
    EtherType,
    /// The source port of TCP, UDP, SCTP.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The type of an ICMP or ICMPv6 message.
    IcmpType,
    /// The TCP flags, one byte ([`TCP_SYN`] and others).
    TcpFlags,
    /// Metadata.
    Meta(Meta),
    /// Conntrack data.
    Ct(Ct),
    /// The result of a FIB lookup.
    Fib(Fib),
    /// A random number for each packet (`numgen random`), in host byte order.
    Random {
        /// The number of different values.
        modulus: u32,
        /// The lowest value.
        offset: u32,
    },
}

impl Field {
    /// The transport protocol.
    pub const PROTOCOL: Field = Field::Meta(Meta::L4Proto);
    /// The packet priority.
    pub const PRIORITY: Field = Field::Meta(Meta::Priority);

    /// Returns the length of the value in bytes.
    pub fn length(self) -> usize {
        match self {
            Field::Source(family) | Field::Destination(family) => DataType::address(family).length(),
            Field::EtherType | Field::SourcePort | Field::DestinationPort => 2,
            Field::IcmpType | Field::TcpFlags | Field::Fib(Fib::SourceRoute) => 1,
            Field::Meta(key) => key.length(),
            Field::Ct(key) => key.length(),
            Field::Fib(_) | Field::Random { .. } => 4,
        }
    }

    /// Returns the header and the offset in it, for a field of the packet itself.
    pub(super) fn payload_offset(self) -> Option<(Header, u32)> {
        Some(match self {
            Field::EtherType => (Header::Link, 12),
            Field::Source(Family::V4) => (Header::Network, 12),
            Field::Destination(Family::V4) => (Header::Network, 16),
            Field::Source(Family::V6) => (Header::Network, 8),
            Field::Destination(Family::V6) => (Header::Network, 24),
            Field::SourcePort | Field::IcmpType => (Header::Transport, 0),
            Field::DestinationPort => (Header::Transport, 2),
            Field::TcpFlags => (Header::Transport, 13),
            _ => return None,
        })
    }
}
