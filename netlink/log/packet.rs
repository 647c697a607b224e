//! A logged packet: `NFULA_*`.

use std::time::{Duration, SystemTime};

use super::headers::PacketHeaders;
use crate::attribute::{Attribute, Attributes, Malformed};
use crate::conntrack::{self, Tuple};
use crate::message::Message;
use crate::netfilter;

const NFULA_PACKET_HDR: u16 = 1;
const NFULA_MARK: u16 = 2;
const NFULA_TIMESTAMP: u16 = 3;
const NFULA_IFINDEX_INDEV: u16 = 4;
const NFULA_IFINDEX_OUTDEV: u16 = 5;
const NFULA_IFINDEX_PHYSINDEV: u16 = 6;
const NFULA_IFINDEX_PHYSOUTDEV: u16 = 7;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_SEQ: u16 = 12;
const NFULA_CT: u16 = 18;

/// A packet that a rule logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoggedPacket<'a> {
    /// The prefix of the rule, without the NUL.
    pub prefix: &'a [u8],
    /// The number of the packet among all of its group.
    pub sequence: Option<u32>,
    /// The time since 1970 at which the packet arrived; `None` if the kernel did not record it.
    pub since_epoch: Option<Duration>,
    /// The type of the frame (`ETH_P_*`).
    pub ether_type: u16,
    /// The hook of the rule (`NF_INET_*`).
    pub hook: u8,
    /// The packet mark.
    pub mark: u32,
    /// The index of the interface that received the packet.
    pub input: Option<u32>,
    /// The index of the interface to which the packet goes.
    pub output: Option<u32>,
    /// The port of a bridge that received the packet.
    pub input_port: Option<u32>,
    /// The port of a bridge to which the packet goes.
    pub output_port: Option<u32>,
    /// The first bytes of the packet, from the network header.
    pub payload: &'a [u8],
    /// The attributes of the packet's flow (`CTA_*`), if it is tracked.
    flow: Option<&'a [u8]>,
}

impl<'a> LoggedPacket<'a> {
    /// Parses a message of type `NFULNL_MSG_PACKET`.
    ///
    /// # Errors
    /// The message is malformed.
    pub(super) fn parse(message: &Message<'a>) -> Result<Self, Malformed> {
        let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
        let mut packet = LoggedPacket::default();
        for attribute in attributes {
            let attribute: Attribute<'a> = attribute?;
            match attribute.kind {
                NFULA_PACKET_HDR => (packet.ether_type, packet.hook) = header(&attribute)?,
                NFULA_MARK => packet.mark = attribute.u32_be()?,
                NFULA_TIMESTAMP => packet.since_epoch = timestamp(&attribute)?,
                NFULA_IFINDEX_INDEV => packet.input = Some(attribute.u32_be()?),
                NFULA_IFINDEX_OUTDEV => packet.output = Some(attribute.u32_be()?),
                NFULA_IFINDEX_PHYSINDEV => packet.input_port = Some(attribute.u32_be()?),
                NFULA_IFINDEX_PHYSOUTDEV => packet.output_port = Some(attribute.u32_be()?),
                NFULA_PAYLOAD => packet.payload = attribute.payload,
                NFULA_PREFIX => {
                    let end = attribute.payload.iter().position(|byte| *byte == 0);
                    packet.prefix = &attribute.payload[..end.unwrap_or(attribute.payload.len())];
                }
                NFULA_CT => packet.flow = Some(attribute.payload),
                NFULA_SEQ => packet.sequence = Some(attribute.u32_be()?),
                _ => {}
            }
        }
        Ok(packet)
    }

    /// Returns the time at which the packet arrived, or `now` if the kernel did not record it.
    pub fn time(&self, now: SystemTime) -> SystemTime {
        self.since_epoch.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).unwrap_or(now)
    }

    /// Returns the original direction of the packet's flow: its destination is that before NAT. `None` if the packet is not
    /// tracked, or the kernel has no nf_conntrack_netlink.
    pub fn original_tuple(&self) -> Option<Tuple> {
        conntrack::original_tuple(Attributes::new(self.flow?)).ok().flatten()
    }

    /// Returns the addresses and ports of the packet; `None` if it is neither IPv4 nor IPv6, or truncated.
    pub fn headers(&self) -> Option<PacketHeaders> {
        PacketHeaders::parse(self.payload)
    }
}

/// Reads `struct nfulnl_msg_packet_hdr`: the frame type, the hook and a byte of padding.
fn header(attribute: &Attribute<'_>) -> Result<(u16, u8), Malformed> {
    match attribute.payload {
        [high, low, hook, ..] => Ok((u16::from_be_bytes([*high, *low]), *hook)),
        short => Err(Malformed::Payload { kind: attribute.kind, expected: 4, present: short.len() }),
    }
}

/// Reads `struct nfulnl_msg_packet_timestamp`: seconds and microseconds, 64 bits each.
fn timestamp(attribute: &Attribute<'_>) -> Result<Option<Duration>, Malformed> {
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_be_bytes(attribute.payload.get(at..at + 8)?.try_into().ok()?))
    };
    let (Some(seconds), Some(microseconds)) = (number(0), number(8)) else {
        let present = attribute.payload.len();
        return Err(Malformed::Payload { kind: attribute.kind, expected: 16, present });
    };
    Ok(Duration::from_secs(seconds).checked_add(Duration::from_micros(microseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, Messages};

    fn message(fill: impl FnOnce(&mut crate::attribute::Writer<'_>)) -> Batch {
        Batch::with_message("test", 0x0400, 0, |message| {
            message.netfilter_resource(libc::AF_INET as u8, 7);
            fill(message);
        })
        .expect("short attributes")
    }

    fn parse(batch: &Batch) -> Result<LoggedPacket<'_>, Malformed> {
        LoggedPacket::parse(&Messages::new(batch.bytes()).next().expect("one").expect("whole"))
    }

    #[test]
    fn packet_is_read() {
        let sent = message(|out| {
            out.bytes(NFULA_PACKET_HDR, &[0x08, 0x00, 4, 0]).text(NFULA_PREFIX, "drop ingress");
            out.u32_be(NFULA_IFINDEX_INDEV, 3).u32_be(NFULA_IFINDEX_OUTDEV, 9).u32_be(NFULA_MARK, 0x4000);
            out.bytes(NFULA_TIMESTAMP, &[[0, 0, 0, 0, 0, 0, 0, 9], [0, 0, 0, 0, 0, 0, 0, 5]].concat());
            out.u32_be(NFULA_SEQ, 41).bytes(NFULA_PAYLOAD, &[1, 2, 3]);
        });
        let packet = parse(&sent).expect("well-formed");
        assert_eq!(
            packet,
            LoggedPacket {
                prefix: b"drop ingress",
                sequence: Some(41),
                since_epoch: Some(Duration::new(9, 5_000)),
                ether_type: 0x0800,
                hook: 4,
                mark: 0x4000,
                input: Some(3),
                output: Some(9),
                input_port: None,
                output_port: None,
                payload: &[1, 2, 3],
                flow: None,
            }
        );
    }

    #[test]
    fn malformed_attributes_are_errors() {
        let rows: [(&str, Batch); 3] = [
            ("header", message(|out| _ = out.bytes(NFULA_PACKET_HDR, &[8]))),
            ("timestamp", message(|out| _ = out.bytes(NFULA_TIMESTAMP, &[0; 15]))),
            ("sequence", message(|out| _ = out.bytes(NFULA_SEQ, &[0; 3]))),
        ];
        for (case, sent) in rows {
            assert!(matches!(parse(&sent), Err(Malformed::Payload { .. })), "{case}");
        }
    }
}
