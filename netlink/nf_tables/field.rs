//! What a rule can load from a packet, or from what the kernel knows of it.

use super::data_type::DataType;
use crate::family::Family;

/// Where in a packet an offset counts from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The frame's: Ethernet.
    Link = 0,
    /// IPv4 or IPv6.
    Network = 1,
    /// TCP, UDP, SCTP, ICMP.
    Transport = 2,
}

/// What the kernel keeps of a packet (`NFT_META_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// The packet's priority, in host order. Until it is queued on an interface, nothing but rules looks at it.
    Priority = 2,
    /// The packet mark.
    Mark = 3,
    /// The index of the interface it came in by; 0 for what this machine sends.
    Iif = 4,
    /// The index of the interface it goes out by.
    Oif = 5,
    /// The name of the interface it came in by.
    IifName = 6,
    /// The name of the interface it goes out by.
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

    /// Bytes of its value.
    pub(super) fn length(self) -> usize {
        match self {
            Meta::NfProto | Meta::L4Proto => 1,
            Meta::IifName | Meta::OifName => 16,
            _ => 4,
        }
    }
}

/// What conntrack knows of a packet's connection (`NFT_CT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ct {
    /// The packet's place in the connection ([`CtState`] bits), in host order.
    State = 0,
    /// Which way the packet goes: 0 as the first one, 1 back; one byte.
    Direction = 1,
    /// What happened to the connection (`IPS_*`), in host order.
    Status = 2,
    /// The connection mark.
    Mark = 3,
}

impl Ct {
    const ALL: [Ct; 4] = [Ct::State, Ct::Direction, Ct::Status, Ct::Mark];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|key| *key as u32 == number)
    }
}

/// Bits of a packet's place in its connection (`NF_CT_STATE_*`).
pub struct CtState;

impl CtState {
    /// It fits no connection.
    pub const INVALID: u32 = 1;
    /// The connection has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// It belongs to another connection: an ICMP error, a helper's expectation.
    pub const RELATED: u32 = 4;
    /// It begins a connection.
    pub const NEW: u32 = 8;
    /// Somebody asked not to track it, or it is of a kind that is never tracked.
    pub const UNTRACKED: u32 = 64;
}

/// `IPS_DNAT`: the destination was translated.
pub const CT_STATUS_DNAT: u32 = 1 << 5;

/// What the routing tables say of an address (`NFT_FIB_RESULT_*`, `NFTA_FIB_F_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fib {
    /// The kind of the source address (`RTN_*`), in host order.
    SourceType,
    /// The kind of the destination address.
    DestinationType,
}

/// The flags of the first segment of a TCP connection: SYN alone.
pub const TCP_SYN: u8 = 0x02;
/// The same from a client that offers congestion notification (RFC 3168): SYN, ECE, CWR.
pub const TCP_SYN_ECN: u8 = 0xc2;

/// `RTN_LOCAL`: an address of this machine.
pub const FIB_LOCAL: u32 = 2;
/// `RTN_BROADCAST`: all machines of a network.
pub const FIB_BROADCAST: u32 = 3;
/// `RTN_MULTICAST`: the members of a group.
pub const FIB_MULTICAST: u32 = 5;

/// A value that a rule can compare, look up, or hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The source address.
    Source(Family),
    /// The destination address.
    Destination(Family),
    /// What an Ethernet frame carries (`ETH_P_*`), two bytes in network order: 802.1Q for a tagged one.
    EtherType,
    /// The source port of TCP, UDP, SCTP.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The type of an ICMP or ICMPv6 message.
    IcmpType,
    /// The flags of a TCP segment, one byte ([`TCP_SYN`] and others).
    TcpFlags,
    /// What the kernel keeps of the packet.
    Meta(Meta),
    /// What conntrack knows.
    Ct(Ct),
    /// What the routing tables say.
    Fib(Fib),
    /// A number drawn anew for each packet (`numgen random`), in host order.
    Random {
        /// How many different numbers there are.
        modulus: u32,
        /// The first of them.
        offset: u32,
    },
}

impl Field {
    /// The transport protocol.
    pub const PROTOCOL: Field = Field::Meta(Meta::L4Proto);

    /// Bytes of its value.
    pub fn length(self) -> usize {
        match self {
            Field::Source(family) | Field::Destination(family) => DataType::address(family).length(),
            Field::EtherType | Field::SourcePort | Field::DestinationPort => 2,
            Field::IcmpType | Field::TcpFlags => 1,
            Field::Meta(key) => key.length(),
            Field::Ct(Ct::Direction) => 1,
            Field::Ct(_) | Field::Fib(_) | Field::Random { .. } => 4,
        }
    }

    /// Where it is in the packet, if it is in the packet: the header and the offset there.
    pub(super) fn place(self) -> Option<(Header, u32)> {
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
