//! Flows: tracked connections, `CTA_*`.

use std::net::IpAddr;

use super::attributes;
use crate::attribute::{Attributes, Malformed, Writer};
use crate::family::Family;
use crate::message::Message;
use crate::netfilter;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `CTA_PROTO_ICMP_ID`; type and code follow it. ICMPv6 has the same three at [`CTA_PROTO_ICMPV6_ID`].
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;

const CTA_PROTOINFO_TCP: u16 = 1;
/// `struct nf_ct_tcp_flags` of the original direction: flags, and a mask.
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers are not checked, as the first segments were not seen.
const BE_LIBERAL: u8 = 0x08;

/// The bits of [`Flow::status`] that are of use here (`IPS_*`).
pub mod status {
    /// Packets were seen in both directions.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// The flow will not be dropped early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// The flow is in the table; the kernel sets it on every flow listed.
    pub const CONFIRMED: u32 = 1 << 3;
    /// The source address or port is rewritten.
    pub const SOURCE_NAT: u32 = 1 << 4;
    /// The destination address or port is rewritten, as for every connection to a Service.
    pub const DESTINATION_NAT: u32 = 1 << 5;
}

/// One direction of a flow, as seen on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where packets of this direction come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// Source port; the query's id for ICMP; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port; `type << 8 | code` for ICMP; 0 for protocols without ports.
    pub destination_port: u16,
}

/// One tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The family of all its addresses.
    pub family: Family,
    /// The transport protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// The direction from the client, before NAT: `original.destination` is the Service's address.
    pub original: Tuple,
    /// The reply direction: `reply.source` is the endpoint.
    pub reply: Tuple,
    /// The kernel's id, which distinguishes this flow from a later one with the same tuples. `None` if unknown.
    pub id: Option<u32>,
    /// Bits of [`status`].
    pub status: u32,
    /// The conntrack zone in the original direction, 0 by default.
    pub zone: u16,
    /// The conntrack mark.
    pub mark: u32,
    /// True for a TCP connection whose first segment conntrack has not seen, so that its original direction is uncertain.
    pub is_picked_up: bool,
}

impl Flow {
    /// Returns true if NAT rules rewrote the destination of the flow: it continues when the rules are removed.
    pub fn has_destination_nat(&self) -> bool {
        self.status & status::DESTINATION_NAT != 0
    }

    /// Returns true if IPVS forwards the flow: replies have another source than the original destination, without NAT rules.
    /// IPVS updates conntrack with `net.ipv4.vs.conntrack=1`, which IPVS mode sets.
    pub fn is_forwarded_by_ipvs(&self) -> bool {
        let (original, reply) = (&self.original, &self.reply);
        let is_direct =
            (original.destination, original.destination_port) == (reply.source, reply.source_port);
        !self.has_destination_nat() && !is_direct
    }

    /// Parses a flow; `None` for a flow that is not IP.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        let (header, attributes) = message.split::<{ netfilter::HEADER }>()?;
        let Some(family) = Family::from_number(header[0]) else { return Ok(None) };
        let (mut original, mut reply) = (None, None);
        let (mut id, mut status, mut mark, mut zone, mut is_picked_up) = (None, 0, 0, 0, false);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                attributes::TUPLE_ORIG => original = Some(ParsedTuple::parse(attribute.nested())?),
                attributes::TUPLE_REPLY => reply = Some(ParsedTuple::parse(attribute.nested())?),
                attributes::STATUS => status = attribute.u32_be()?,
                attributes::PROTOCOL_INFO => is_picked_up = is_liberal(attribute.nested())?,
                attributes::MARK => mark = attribute.u32_be()?,
                attributes::ID => id = Some(attribute.u32_be()?),
                attributes::ZONE => zone = attribute.u16_be()?,
                _ => {}
            }
        }
        let original = original.ok_or(Malformed::Missing("CTA_TUPLE_ORIG"))?;
        let reply = reply.ok_or(Malformed::Missing("CTA_TUPLE_REPLY"))?;
        Ok(Some(Flow {
            family,
            protocol: original.protocol,
            original: original.tuple,
            reply: reply.tuple,
            id,
            status,
            // The tuple has a zone that applies to one direction only.
            zone: original.zone.unwrap_or(zone),
            mark,
            is_picked_up,
        }))
    }
}

/// Returns the tuple of the original direction among the attributes of a flow.
pub(crate) fn original_tuple(flow: Attributes<'_>) -> Result<Option<Tuple>, Malformed> {
    for attribute in flow {
        let attribute = attribute?;
        if attribute.kind == attributes::TUPLE_ORIG {
            return Ok(Some(ParsedTuple::parse(attribute.nested())?.tuple));
        }
    }
    Ok(None)
}

/// Returns true if the protocol's state is that of a TCP connection that was picked up in its middle.
fn is_liberal(protocol_info: Attributes<'_>) -> Result<bool, Malformed> {
    for protocol in protocol_info {
        let protocol = protocol?;
        if protocol.kind != CTA_PROTOINFO_TCP {
            continue;
        }
        for part in protocol.nested() {
            let part = part?;
            if part.kind == CTA_PROTOINFO_TCP_FLAGS_ORIGINAL {
                return Ok(part.payload.first().is_some_and(|flags| flags & BE_LIBERAL != 0));
            }
        }
    }
    Ok(false)
}

/// A tuple with the attributes that the kernel nests in it.
struct ParsedTuple {
    tuple: Tuple,
    protocol: u8,
    zone: Option<u16>,
}

impl ParsedTuple {
    fn parse(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let (mut source, mut destination, mut protocol, mut zone) = (None, None, None, None);
        let (mut source_port, mut destination_port) = (0, 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                CTA_TUPLE_IP => {
                    for address in attribute.nested() {
                        let address = address?;
                        match address.kind {
                            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = Some(address.address()?),
                            CTA_IP_V4_DST | CTA_IP_V6_DST => destination = Some(address.address()?),
                            _ => {}
                        }
                    }
                }
                CTA_TUPLE_PROTO => {
                    for part in attribute.nested() {
                        let part = part?;
                        match part.kind {
                            CTA_PROTO_NUM => protocol = Some(part.u8()?),
                            CTA_PROTO_SRC_PORT | CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                                source_port = part.u16_be()?;
                            }
                            CTA_PROTO_DST_PORT => destination_port = part.u16_be()?,
                            kind if kind == CTA_PROTO_ICMP_ID + 1 || kind == CTA_PROTO_ICMPV6_ID + 1 => {
                                destination_port |= u16::from(part.u8()?) << 8;
                            }
                            kind if kind == CTA_PROTO_ICMP_ID + 2 || kind == CTA_PROTO_ICMPV6_ID + 2 => {
                                destination_port |= u16::from(part.u8()?);
                            }
                            _ => {}
                        }
                    }
                }
                CTA_TUPLE_ZONE => zone = Some(attribute.u16_be()?),
                _ => {}
            }
        }
        let tuple = Tuple {
            source: source.ok_or(Malformed::Missing("a tuple's source address"))?,
            destination: destination.ok_or(Malformed::Missing("a tuple's destination address"))?,
            source_port,
            destination_port,
        };
        Ok(ParsedTuple { tuple, protocol: protocol.ok_or(Malformed::Missing("CTA_PROTO_NUM"))?, zone })
    }
}

/// Those parts of a tuple that a request names. A request for one flow names all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TupleParts {
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
}

impl From<Tuple> for TupleParts {
    fn from(tuple: Tuple) -> Self {
        TupleParts {
            source: Some(tuple.source),
            destination: Some(tuple.destination),
            source_port: Some(tuple.source_port),
            destination_port: Some(tuple.destination_port),
        }
    }
}

impl TupleParts {
    /// Writes the tuple as attribute `kind` (`CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`).
    pub(super) fn write(&self, message: &mut Writer<'_>, kind: u16, protocol: u8) {
        message.nested(kind, |tuple| {
            if self.source.is_some() || self.destination.is_some() {
                tuple.nested(CTA_TUPLE_IP, |ip| {
                    for (address, v4, v6) in [
                        (self.source, CTA_IP_V4_SRC, CTA_IP_V6_SRC),
                        (self.destination, CTA_IP_V4_DST, CTA_IP_V6_DST),
                    ] {
                        if let Some(address) = address {
                            ip.address(if address.is_ipv4() { v4 } else { v6 }, address);
                        }
                    }
                });
            }
            tuple.nested(CTA_TUPLE_PROTO, |proto| {
                proto.u8(CTA_PROTO_NUM, protocol);
                self.write_ports(proto, protocol);
            });
        });
    }

    fn write_ports(&self, proto: &mut Writer<'_>, protocol: u8) {
        let icmp_id = match i32::from(protocol) {
            libc::IPPROTO_ICMP => Some(CTA_PROTO_ICMP_ID),
            libc::IPPROTO_ICMPV6 => Some(CTA_PROTO_ICMPV6_ID),
            _ => None,
        };
        if let Some(id) = self.source_port {
            proto.u16_be(icmp_id.unwrap_or(CTA_PROTO_SRC_PORT), id);
        }
        match (self.destination_port, icmp_id) {
            (Some(port), None) => {
                proto.u16_be(CTA_PROTO_DST_PORT, port);
            }
            (Some(type_and_code), Some(id)) => {
                let [kind, code] = type_and_code.to_be_bytes();
                proto.u8(id + 1, kind).u8(id + 2, code);
            }
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, Messages};
    use proptest::prelude::*;

    fn tuple(v6: bool) -> impl Strategy<Value = Tuple> {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>()).prop_map(
            move |(source, destination, source_port, destination_port)| {
                let address = |bytes: [u8; 16]| match v6 {
                    true => IpAddr::from(bytes),
                    false => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                };
                Tuple {
                    source: address(source),
                    destination: address(destination),
                    source_port,
                    destination_port,
                }
            },
        )
    }

    fn flow() -> impl Strategy<Value = Flow> {
        let protocol = prop_oneof![Just(1u8), Just(6), Just(17), Just(58), Just(132), any::<u8>()];
        (any::<bool>(), protocol, any::<(u32, u32, u16, u32, bool)>()).prop_flat_map(
            |(v6, protocol, (id, status, zone, mark, is_picked_up))| {
                (tuple(v6), tuple(v6)).prop_map(move |(original, reply)| Flow {
                    family: if v6 { Family::V6 } else { Family::V4 },
                    protocol,
                    original,
                    reply,
                    id: Some(id),
                    status,
                    zone,
                    mark,
                    is_picked_up,
                })
            },
        )
    }

    /// A flow as the kernel sends it.
    fn message(flow: &Flow) -> Batch {
        Batch::with_message("test", 0x0100, 0, |message| {
            message.netfilter_header(Some(flow.family));
            TupleParts::from(flow.original).write(message, attributes::TUPLE_ORIG, flow.protocol);
            TupleParts::from(flow.reply).write(message, attributes::TUPLE_REPLY, flow.protocol);
            message.u32_be(attributes::STATUS, flow.status).u32_be(attributes::MARK, flow.mark);
            message.nested(attributes::PROTOCOL_INFO, |info| {
                info.nested(CTA_PROTOINFO_TCP, |tcp| {
                    let flags = if flow.is_picked_up { 0x0a } else { 0x02 };
                    tcp.bytes(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, 0]);
                });
            });
            message.u32_be(attributes::ID, flow.id.unwrap_or_default()).u16_be(attributes::ZONE, flow.zone);
        })
        .expect("short attributes")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(flow in flow()) {
            let sent = message(&flow);
            let received = Messages::new(sent.bytes()).next().expect("one").expect("whole");
            prop_assert_eq!(Flow::parse(&received), Ok(Some(flow)));
        }

        #[test]
        fn damaged_it_is_refused_or_read_but_never_panics(
            flow in flow(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut payload = message(&flow).bytes()[crate::message::HEADER..].to_vec();
            for (at, byte) in damage {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            let end = cut.index(payload.len() + 1);
            let _ = Flow::parse(&Message { kind: 0x0100, flags: 0, sequence: 1, payload: &payload[..end] });
        }
    }
}
