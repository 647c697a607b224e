//! A packet, as rules see it.

use std::net::IpAddr;

use super::field::{CT_STATUS_DNAT, CtState, TCP_SYN};

/// As much of a packet, and of what the kernel knows of it, as rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// The transport protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The type, if it is ICMP or ICMPv6.
    pub icmp_type: u8,
    /// The flags, if it is TCP.
    pub tcp_flags: u8,
    /// Index and name of the interface it came in by; `None` for what this machine sends.
    pub input: Option<(u32, String)>,
    /// Index and name of the interface it goes out by, if that is known.
    pub output: Option<(u32, String)>,
    /// Its place in its connection ([`CtState`]).
    pub state: u32,
    /// What happened to its connection (`IPS_*`).
    pub status: u32,
    /// The source is an address of this machine.
    pub source_is_local: bool,
    /// The destination is an address of this machine.
    pub destination_is_local: bool,
    /// The packet mark.
    pub mark: u32,
    /// The packet's priority.
    pub priority: u32,
}

impl Packet {
    /// The first packet of a connection, that comes in by an interface.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, destination_port: u16) -> Self {
        Packet {
            source,
            destination,
            protocol,
            source_port: 40_000,
            destination_port,
            icmp_type: 0,
            tcp_flags: TCP_SYN,
            input: Some((1, "in0".into())),
            output: Some((2, "out0".into())),
            state: CtState::NEW,
            status: 0,
            source_is_local: false,
            destination_is_local: false,
            mark: 0,
            priority: 0,
        }
    }

    /// Sends it somewhere else, as the translation of its destination does. Whether it is for this machine is then
    /// to be seen anew.
    pub(super) fn translate(&mut self, to: IpAddr, port: Option<u16>) {
        self.destination = to;
        self.destination_port = port.unwrap_or(self.destination_port);
        self.destination_is_local = false;
        self.status |= CT_STATUS_DNAT;
    }
}
