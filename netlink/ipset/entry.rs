//! Entries of sets.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::attributes::LINENO;
use crate::attribute::{Attribute, Attributes, Malformed, NETWORK_ORDER, Writer};
use crate::family::Family;

const IPSET_ATTR_IP: u16 = 1;
const IPSET_ATTR_CIDR: u16 = 3;
pub(super) const IPSET_ATTR_PORT: u16 = 4;
const IPSET_ATTR_PROTO: u16 = 7;
const IPSET_ATTR_MARK: u16 = 10;
const IPSET_ATTR_ETHER: u16 = 17;
const IPSET_ATTR_NAME: u16 = 18;
const IPSET_ATTR_IP2: u16 = 20;
const IPSET_ATTR_CIDR2: u16 = 21;
const IPSET_ATTR_IFACE: u16 = 23;

const IPSET_ATTR_IPADDR_IPV4: u16 = 1;
const IPSET_ATTR_IPADDR_IPV6: u16 = 2;

/// One entry of a set. Its `Display` has the format of `ipset save`: `10.96.0.1,tcp:443,192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetEntry {
    /// Of `hash:ip`.
    Ip(IpAddr),
    /// Of `hash:ip,port`.
    IpPort {
        /// The address.
        ip: IpAddr,
        /// `IPPROTO_*`, one that has ports.
        protocol: u8,
        /// The port.
        port: u16,
    },
    /// Of `hash:ip,port,ip`.
    IpPortIp {
        /// The first address.
        ip: IpAddr,
        /// `IPPROTO_*`, one that has ports.
        protocol: u8,
        /// The port.
        port: u16,
        /// The second address, of the same family.
        ip2: IpAddr,
    },
    /// Of `hash:ip,port,net`.
    IpPortNet {
        /// The address.
        ip: IpAddr,
        /// `IPPROTO_*`, one that has ports.
        protocol: u8,
        /// The port.
        port: u16,
        /// The network, of the same family. The kernel clears its host bits, and rejects a prefix length of 0.
        net: IpNet,
    },
    /// Of `bitmap:port`.
    Port(u16),
}

impl SetEntry {
    /// Writes the entry with a number, which the kernel returns if it rejects the entry.
    pub(super) fn write(&self, data: &mut Writer<'_>, number: u32) {
        match *self {
            SetEntry::Ip(ip) => write_address(data, IPSET_ATTR_IP, ip),
            SetEntry::IpPort { ip, protocol, port } => write_pair(data, ip, protocol, port),
            SetEntry::IpPortIp { ip, protocol, port, ip2 } => {
                write_pair(data, ip, protocol, port);
                write_address(data, IPSET_ATTR_IP2, ip2);
            }
            SetEntry::IpPortNet { ip, protocol, port, net } => {
                write_pair(data, ip, protocol, port);
                write_address(data, IPSET_ATTR_IP2, net.addr());
                data.u8(IPSET_ATTR_CIDR2, net.prefix_len());
            }
            SetEntry::Port(port) => write_port(data, port),
        }
        data.u32(LINENO, number);
    }

    /// Parses an entry and its number, if it has one; `None` for an unsupported type of entry.
    pub(super) fn parse(data: &Attribute<'_>) -> Result<Option<(Self, Option<u32>)>, Malformed> {
        let (mut ip, mut ip2, mut port, mut protocol, mut length, mut number) =
            (None, None, None, None, None, None);
        for attribute in data.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPSET_ATTR_IP => ip = Some(read_address(attribute.nested())?),
                IPSET_ATTR_IP2 => ip2 = Some(read_address(attribute.nested())?),
                IPSET_ATTR_PORT => port = Some(attribute.u16_be()?),
                IPSET_ATTR_PROTO => protocol = Some(attribute.u8()?),
                IPSET_ATTR_CIDR2 => length = Some(attribute.u8()?),
                LINENO => number = Some(attribute.u32()?),
                // Entries with networks, marks, link-layer addresses, sets or interfaces.
                IPSET_ATTR_CIDR | IPSET_ATTR_MARK | IPSET_ATTR_ETHER | IPSET_ATTR_NAME | IPSET_ATTR_IFACE => {
                    return Ok(None);
                }
                // Timeouts, counters, comments.
                _ => {}
            }
        }
        let entry = match (ip, protocol, port, ip2, length) {
            (Some(ip), None, None, None, None) => SetEntry::Ip(ip),
            (Some(ip), Some(protocol), Some(port), None, None) => SetEntry::IpPort { ip, protocol, port },
            (Some(ip), Some(protocol), Some(port), Some(ip2), None) => {
                SetEntry::IpPortIp { ip, protocol, port, ip2 }
            }
            (Some(ip), Some(protocol), Some(port), Some(ip2), Some(length)) => {
                let net = IpNet::new(ip2, length).map_err(|_| Malformed::Payload {
                    kind: IPSET_ATTR_CIDR2,
                    expected: if ip2.is_ipv4() { 32 } else { 128 },
                    present: length.into(),
                })?;
                SetEntry::IpPortNet { ip, protocol, port, net }
            }
            (None, None, Some(port), None, None) => SetEntry::Port(port),
            _ => return Ok(None),
        };
        Ok(Some((entry, number)))
    }
}

fn write_pair(data: &mut Writer<'_>, ip: IpAddr, protocol: u8, port: u16) {
    write_address(data, IPSET_ATTR_IP, ip);
    write_port(data, port);
    data.u8(IPSET_ATTR_PROTO, protocol);
}

/// Writes a port. ipset rejects numbers without the flag for network order.
fn write_port(data: &mut Writer<'_>, port: u16) {
    data.u16_be(NETWORK_ORDER | IPSET_ATTR_PORT, port);
}

fn write_address(data: &mut Writer<'_>, kind: u16, address: IpAddr) {
    let inner = match Family::from_address(address) {
        Family::V4 => IPSET_ATTR_IPADDR_IPV4,
        Family::V6 => IPSET_ATTR_IPADDR_IPV6,
    };
    data.nested(kind, |data| {
        data.address(NETWORK_ORDER | inner, address);
    });
}

fn read_address(mut inside: Attributes<'_>) -> Result<IpAddr, Malformed> {
    inside.next().ok_or(Malformed::Missing("IPSET_ATTR_IPADDR_IPV4"))??.address()
}

impl fmt::Display for SetEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetEntry::Ip(ip) => write!(f, "{ip}"),
            SetEntry::IpPort { ip, protocol, port } => write!(f, "{ip},{}:{port}", Named(*protocol)),
            SetEntry::IpPortIp { ip, protocol, port, ip2 } => {
                write!(f, "{ip},{}:{port},{ip2}", Named(*protocol))
            }
            SetEntry::IpPortNet { ip, protocol, port, net } => {
                write!(f, "{ip},{}:{port},{}", Named(*protocol), net.addr())?;
                match net.prefix_len() == net.max_prefix_len() {
                    true => Ok(()),
                    false => write!(f, "/{}", net.prefix_len()),
                }
            }
            SetEntry::Port(port) => write!(f, "{port}"),
        }
    }
}

/// A protocol in the format of ipset.
struct Named(u8);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i32::from(self.0) {
            libc::IPPROTO_TCP => f.write_str("tcp"),
            libc::IPPROTO_UDP => f.write_str("udp"),
            libc::IPPROTO_SCTP => f.write_str("sctp"),
            libc::IPPROTO_UDPLITE => f.write_str("udplite"),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, Messages};
    use proptest::prelude::*;

    #[test]
    fn entries_have_the_format_of_ipset_and_survive_a_round_trip() {
        let ip = |text: &str| -> IpAddr { text.parse().expect(text) };
        let net = |text: &str| -> IpNet { text.parse().expect(text) };
        for (entry, printed) in [
            (SetEntry::Ip(ip("10.96.0.1")), "10.96.0.1"),
            (SetEntry::IpPort { ip: ip("10.96.0.1"), protocol: 6, port: 443 }, "10.96.0.1,tcp:443"),
            (SetEntry::IpPort { ip: ip("fd00::1"), protocol: 132, port: 9 }, "fd00::1,sctp:9"),
            (
                SetEntry::IpPortIp { ip: ip("10.1.0.2"), protocol: 17, port: 53, ip2: ip("10.1.0.2") },
                "10.1.0.2,udp:53,10.1.0.2",
            ),
            (
                SetEntry::IpPortNet { ip: ip("192.0.2.9"), protocol: 6, port: 80, net: net("192.0.2.7/32") },
                "192.0.2.9,tcp:80,192.0.2.7",
            ),
            (
                SetEntry::IpPortNet { ip: ip("fd00::9"), protocol: 6, port: 80, net: net("fd00:1::/64") },
                "fd00::9,tcp:80,fd00:1::/64",
            ),
            (SetEntry::Port(30_080), "30080"),
        ] {
            assert_eq!(entry.to_string(), printed);
            let batch = Batch::with_message("test", 16, 0, |message| {
                message.nested(7, |data| entry.write(data, 5));
            });
            let batch = batch.expect("a short message");
            let message = Messages::new(batch.bytes()).next().expect("one").expect("whole");
            let data = Attributes::new(message.payload).next().expect("one").expect("whole");
            assert_eq!(SetEntry::parse(&data), Ok(Some((entry, Some(5)))));
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(kind in 1u16..28, payload in prop::collection::vec(any::<u8>(), 0..40), length: u8) {
            let _ = SetEntry::parse(&Attribute { kind: 7, payload: &payload });
            let batch = Batch::with_message("test", 16, 0, |message| {
                message.nested(7, |data| {
                    let ip = IpAddr::from([10, 0, 0, 1]);
                    write_pair(data, ip, 6, 80);
                    write_address(data, IPSET_ATTR_IP2, ip);
                    data.u8(IPSET_ATTR_CIDR2, length).bytes(kind, &payload);
                });
            });
            let batch = batch.expect("a short message");
            let message = Messages::new(batch.bytes()).next().expect("one").expect("whole");
            let data = Attributes::new(message.payload).next().expect("one").expect("whole");
            let _ = SetEntry::parse(&data);
        }
    }
}
