//! Trace events of the kernel (`NFT_MSG_TRACE`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ACTION;
use super::hooks::Marker;
use crate::attribute::{Attribute, Malformed};
use crate::error::{During, Result};
use crate::message::Message;
use crate::netfilter::{self, Subsystem};

/// `NFT_MSG_TRACE`.
const TRACE: u8 = 17;

/// Attributes (`NFTA_TRACE_*`, `NFTA_VERDICT_*`).
mod a {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const RULE_HANDLE: u16 = 3;
    pub(super) const TYPE: u16 = 4;
    pub(super) const VERDICT: u16 = 5;
    pub(super) const ID: u16 = 6;
    pub(super) const NETWORK_HEADER: u16 = 8;
    pub(super) const TRANSPORT_HEADER: u16 = 9;
    pub(super) const IIF: u16 = 10;
    pub(super) const OIF: u16 = 12;
    pub(super) const MARK: u16 = 14;
    pub(super) const POLICY: u16 = 16;
    pub(super) const VERDICT_CODE: u16 = 1;
    pub(super) const VERDICT_CHAIN: u16 = 2;
}

/// `NFT_TRACETYPE_POLICY`.
const TYPE_POLICY: u32 = 1;
/// `NFT_TRACETYPE_RULE`.
const TYPE_RULE: u32 = 3;

/// The direction of a packet in its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TracedDirection {
    /// From the client.
    #[default]
    Original,
    /// To the client.
    Reply,
}

/// The family of a chain (`NFPROTO_*`), which may be one that this program never uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceFamily(pub u8);

impl TraceFamily {
    /// Bridged frames.
    pub const BRIDGE: TraceFamily = TraceFamily(7);
}

impl fmt::Display for TraceFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            number => return write!(f, "family {number}"),
        })
    }
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceVerdict {
    /// Accepted by this base chain.
    Accept,
    /// Dropped.
    Drop,
    /// Taken by the code of a rule.
    Stolen,
    /// Passed to a program.
    Queue,
    /// The next rule is evaluated.
    Continue,
    /// The calling chain continues.
    Return,
    /// Evaluation continues in another chain, and then here.
    Jump(String),
    /// Evaluation continues in another chain.
    Goto(String),
    /// Another number.
    Other(i32),
}

impl fmt::Display for TraceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceVerdict::Accept => f.write_str("accept"),
            TraceVerdict::Drop => f.write_str("drop"),
            TraceVerdict::Stolen => f.write_str("stolen"),
            TraceVerdict::Queue => f.write_str("queue"),
            TraceVerdict::Continue => f.write_str("continue"),
            TraceVerdict::Return => f.write_str("return"),
            TraceVerdict::Jump(chain) => write!(f, "jump {chain}"),
            TraceVerdict::Goto(chain) => write!(f, "goto {chain}"),
            TraceVerdict::Other(code) => write!(f, "verdict {code}"),
        }
    }
}

impl TraceVerdict {
    /// Returns true if the packet was dropped.
    pub fn is_drop(&self) -> bool {
        *self == TraceVerdict::Drop
    }

    fn new(code: i32, chain: Option<String>) -> Self {
        let chain = chain.unwrap_or_default();
        match code {
            -1 | -2 => TraceVerdict::Continue,
            -3 => TraceVerdict::Jump(chain),
            -4 => TraceVerdict::Goto(chain),
            -5 => TraceVerdict::Return,
            // The upper bits have the error of a drop or the number of a queue (`NF_VERDICT_MASK`).
            code => match code & 0xff {
                0 => TraceVerdict::Drop,
                1 => TraceVerdict::Accept,
                2 => TraceVerdict::Stolen,
                3 => TraceVerdict::Queue,
                _ => TraceVerdict::Other(code),
            },
        }
    }
}

/// A step of a packet in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// A rule matched.
    Rule {
        /// Its handle.
        handle: u64,
        /// Its verdict.
        verdict: TraceVerdict,
    },
    /// A chain ended without a verdict, and the calling chain continues.
    Return,
    /// A base chain ended without a verdict: its policy decides.
    Policy(TraceVerdict),
}

impl TraceStep {
    /// Returns the verdict.
    pub fn verdict(&self) -> &TraceVerdict {
        match self {
            TraceStep::Rule { verdict, .. } | TraceStep::Policy(verdict) => verdict,
            TraceStep::Return => &TraceVerdict::Return,
        }
    }
}

/// The addresses and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedAddresses {
    /// The source; port 0 for protocols without ports.
    pub source: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// The transport protocol (`IPPROTO_*`).
    pub protocol: u8,
}

/// A trace event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// The ID of the packet.
    pub packet: u32,
    /// Its direction.
    pub direction: TracedDirection,
    /// The family of the chain.
    pub family: TraceFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The step.
    pub step: TraceStep,
    /// The index of the input interface.
    pub input: Option<u32>,
    /// The index of the output interface.
    pub output: Option<u32>,
    /// The packet mark; 0 if the kernel reports none.
    pub mark: u32,
    /// The addresses, in the first event of each base chain.
    pub addresses: Option<TracedAddresses>,
    /// The marker, for a chain of the tracer.
    pub marker: Option<Marker>,
}

impl TraceEvent {
    /// Returns true for the end of a chain, which Linux 5.17 and later report like a rule, with handle 0, before the policy.
    pub(super) fn is_chain_end(&self) -> bool {
        self.step == TraceStep::Rule { handle: 0, verdict: TraceVerdict::Continue }
    }

    /// Parses a message; `None` if it is not a trace event.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>> {
        if message.kind != netfilter::kind(Subsystem::NfTables, TRACE) {
            return Ok(None);
        }
        let ([family, ..], attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        let mut event = TraceEvent {
            packet: 0,
            direction: TracedDirection::Original,
            family: TraceFamily(*family),
            table: String::new(),
            chain: String::new(),
            step: TraceStep::Return,
            input: None,
            output: None,
            mark: 0,
            addresses: None,
            marker: None,
        };
        let (mut handle, mut kind, mut verdict, mut policy) = (0, 0, None, None);
        let (mut network, mut transport): (&[u8], &[u8]) = (&[], &[]);
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            match attribute.kind {
                a::TABLE => event.table = attribute.text(),
                a::CHAIN => event.chain = attribute.text(),
                a::RULE_HANDLE => handle = attribute.u64_be().during(ACTION)?,
                a::TYPE => kind = attribute.u32_be().during(ACTION)?,
                a::VERDICT => verdict = Some(read_verdict(&attribute).during(ACTION)?),
                a::ID => event.packet = attribute.u32_be().during(ACTION)?,
                a::NETWORK_HEADER => network = attribute.payload,
                a::TRANSPORT_HEADER => transport = attribute.payload,
                a::IIF => event.input = Some(attribute.u32_be().during(ACTION)?),
                a::OIF => event.output = Some(attribute.u32_be().during(ACTION)?),
                a::MARK => event.mark = attribute.u32_be().during(ACTION)?,
                a::POLICY => policy = Some(attribute.u32_be().during(ACTION)?),
                _ => {}
            }
        }
        event.step = match kind {
            TYPE_RULE => TraceStep::Rule { handle, verdict: verdict.unwrap_or(TraceVerdict::Continue) },
            TYPE_POLICY => TraceStep::Policy(TraceVerdict::new(policy.unwrap_or(1) as i32, None)),
            _ => TraceStep::Return,
        };
        event.addresses = addresses(network, transport);
        Ok(Some(event))
    }
}

fn read_verdict(attribute: &Attribute<'_>) -> Result<TraceVerdict, Malformed> {
    let (mut code, mut chain) = (0, None);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            a::VERDICT_CODE => code = attribute.u32_be()? as i32,
            a::VERDICT_CHAIN => chain = Some(attribute.text()),
            _ => {}
        }
    }
    Ok(TraceVerdict::new(code, chain))
}

/// Reads the headers, of which the kernel reports the first 40 and 20 bytes. IPv6 extension headers are not followed.
fn addresses(network: &[u8], transport: &[u8]) -> Option<TracedAddresses> {
    let (source, destination, protocol): (IpAddr, IpAddr, u8) = match network.first()? >> 4 {
        4 => {
            let at = |offset: usize| Some(Ipv4Addr::from(*network.get(offset..)?.first_chunk::<4>()?));
            (at(12)?.into(), at(16)?.into(), *network.get(9)?)
        }
        6 => {
            let at = |offset: usize| Some(Ipv6Addr::from(*network.get(offset..)?.first_chunk::<16>()?));
            (at(8)?.into(), at(24)?.into(), *network.get(6)?)
        }
        _ => return None,
    };
    let has_ports = matches!(
        i32::from(protocol),
        libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_SCTP | libc::IPPROTO_UDPLITE
    );
    let port = |offset: usize| {
        let bytes = transport.get(offset..).and_then(|rest| rest.first_chunk::<2>());
        bytes.filter(|_| has_ports).map_or(0, |bytes| u16::from_be_bytes(*bytes))
    };
    Some(TracedAddresses {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    fn event(fill: impl FnOnce(&mut crate::attribute::Writer<'_>)) -> Result<Option<TraceEvent>> {
        let kind = netfilter::kind(Subsystem::NfTables, TRACE);
        let batch = crate::message::Batch::with_message("test", kind, 0, |message| {
            message.netfilter_resource(1, 0);
            fill(message);
        });
        let batch = batch.expect("a short message");
        let message = Messages::new(batch.bytes()).next().expect("one message").expect("well formed");
        TraceEvent::parse(&message)
    }

    #[test]
    fn verdicts_are_read() {
        use TraceVerdict::*;
        let rows: [(i32, Option<&str>, TraceVerdict); 8] = [
            (0, None, Drop),
            // A drop with an error.
            (0x0001_0000, None, Drop),
            (1, None, Accept),
            (3, None, Queue),
            (-1, None, Continue),
            (-3, Some("KUBE-SERVICES"), Jump("KUBE-SERVICES".into())),
            (-4, Some("x"), Goto("x".into())),
            (-5, None, Return),
        ];
        for (code, chain, expected) in rows {
            let read = event(|message| {
                message.u32_be(a::TYPE, TYPE_RULE).u64_be(a::RULE_HANDLE, 7);
                message.nested(a::VERDICT, |verdict| {
                    verdict.u32_be(a::VERDICT_CODE, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(a::VERDICT_CHAIN, chain);
                    }
                });
            });
            let read = read.expect("well formed").expect("a trace event");
            assert_eq!(read.step, TraceStep::Rule { handle: 7, verdict: expected }, "{code}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_headers() {
        let mut v4 = [0; 20];
        (v4[0], v4[9]) = (0x45, 6);
        v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let mut v6 = [0; 40];
        (v6[0], v6[6], v6[23], v6[39]) = (0x60, 17, 1, 2);
        let mut icmp = v4;
        icmp[9] = 1;
        let ports = [0x30, 0x39, 0, 80];
        // The headers, and the source and destination.
        type Row<'a> = (&'a [u8], &'a [u8], Option<(&'a str, &'a str)>);
        let rows: [Row<'_>; 6] = [
            (&v4, &ports, Some(("10.0.0.1:12345", "10.0.0.2:80"))),
            (&v6, &ports, Some(("[::1]:12345", "[::2]:80"))),
            (&icmp, &ports, Some(("10.0.0.1:0", "10.0.0.2:0"))),
            (&v4, &[], Some(("10.0.0.1:0", "10.0.0.2:0"))),
            (&v4[..15], &ports, None),
            (&[], &[], None),
        ];
        for (network, transport, expected) in rows {
            let found = addresses(network, transport)
                .map(|found| (found.source.to_string(), found.destination.to_string()));
            let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
            assert_eq!(found, expected, "{network:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(payload in proptest::collection::vec(0u8.., 0..120)) {
            let kind = netfilter::kind(Subsystem::NfTables, TRACE);
            let _ = TraceEvent::parse(&Message { kind, flags: 0, sequence: 0, payload: &payload });
            let (network, transport) = payload.split_at(payload.len() / 2);
            let _ = addresses(network, transport);
        }
    }
}
