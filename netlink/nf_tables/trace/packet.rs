//! A packet with the metadata that rules can match.

use std::net::IpAddr;

use crate::nf_tables::field::{CT_STATUS_DNAT, CtState, TCP_SYN};

/// The headers and kernel metadata of a packet that rules can match.
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
    /// The ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// The TCP flags.
    pub tcp_flags: u8,
    /// Index and name of the input interface; `None` for a packet that this host sends.
    pub input: Option<(u32, String)>,
    /// Index and name of the output interface, if known.
    pub output: Option<(u32, String)>,
    /// The conntrack state ([`CtState`]).
    pub state: u32,
    /// The conntrack status (`IPS_*`).
    pub status: u32,
    /// The source is an address of this host.
    pub source_is_local: bool,
    /// The destination is an address of this host.
    pub destination_is_local: bool,
    /// The packet mark.
    pub mark: u32,
    /// The packet priority.
    pub priority: u32,
    /// The destination before destination NAT, and its port.
    pub untranslated: Option<(IpAddr, u16)>,
}

impl Packet {
    /// Returns the first packet of a connection, received on interface `in0`.
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
            untranslated: None,
        }
    }

    /// Returns the destination of the connection's original direction, and its port.
    pub(super) fn original_destination(&self) -> (IpAddr, u16) {
        self.untranslated.unwrap_or((self.destination, self.destination_port))
    }

    /// Translates the destination. The caller sets `destination_is_local` for the new destination.
    pub(super) fn apply_dnat(&mut self, to: IpAddr, port: Option<u16>) {
        self.untranslated.get_or_insert((self.destination, self.destination_port));
        self.destination = to;
        self.destination_port = port.unwrap_or(self.destination_port);
        self.destination_is_local = false;
        self.status |= CT_STATUS_DNAT;
    }
}
