//! Events as they are read from the kernel, without names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_netlink::conntrack::{ConnectionEvent, FlowCounters, Tuple};
use portcullis_netlink::log::{LoggedPacket, PacketHeaders};
use portcullis_policy::Direction;

use super::document::Verdict;

/// An address with a port, if the protocol has ports.
pub(super) type End = (IpAddr, Option<u16>);

/// The rule that dropped a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum DropRule {
    /// The rule of the policy table with this counter.
    Policy {
        /// The direction that is denied.
        direction: Option<Direction>,
        /// The name of the counter.
        counter: Arc<str>,
        /// The packet was not dropped.
        is_audit: bool,
    },
    /// The source ranges of a Service.
    SourceRanges,
}

/// A packet or connection. Equal packets are one event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    /// The kind of event.
    pub(super) verdict: Verdict,
    /// The rule that dropped a packet.
    pub(super) rule: Option<DropRule>,
    /// The transport protocol; 0 for frames that are not IP.
    pub(super) protocol: u8,
    /// The source.
    pub(super) source: Option<End>,
    /// The destination, after DNAT if the packet or connection has passed it.
    pub(super) destination: Option<End>,
    /// The destination before DNAT.
    pub(super) original_destination: Option<End>,
    /// The index of the interface that received the packet; 0 if there is none.
    pub(super) input: u32,
    /// The index of the interface to which the packet goes; 0 if there is none.
    pub(super) output: u32,
    /// The flags of TCP.
    pub(super) tcp_flags: Option<u8>,
    /// Type and code of ICMP.
    pub(super) icmp: Option<(u8, u8)>,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RawEvent {
    pub(super) key: EventKey,
    /// The time of the first packet.
    pub(super) time: SystemTime,
    /// The length of the first packet.
    pub(super) bytes: Option<u32>,
    /// The number of packets.
    pub(super) count: u32,
    /// Counters of an ended connection.
    pub(super) counters: Option<FlowCounters>,
}

impl RawEvent {
    /// Returns the event of a logged packet.
    pub(super) fn from_packet(packet: &LoggedPacket<'_>, rule: DropRule, now: SystemTime) -> Self {
        let verdict = match &rule {
            DropRule::Policy { is_audit: true, .. } => Verdict::Audit,
            DropRule::Policy { .. } | DropRule::SourceRanges => Verdict::Dropped,
        };
        let headers = packet.headers();
        let ends = headers.as_ref().map(|headers| {
            let ports = headers.ports;
            let source = (headers.source, ports.map(|(source, _)| source));
            (source, (headers.destination, ports.map(|(_, destination)| destination)))
        });
        let original = packet.original_tuple();
        let key = EventKey {
            verdict,
            rule: Some(rule),
            protocol: headers.as_ref().map_or(0, |headers| headers.protocol),
            source: ends.map(|(source, _)| source),
            destination: ends.map(|(_, destination)| destination),
            original_destination: original
                .zip(headers)
                .and_then(|(tuple, headers)| original_end(&tuple, &headers)),
            input: packet.input_port.or(packet.input).unwrap_or(0),
            output: packet.output_port.or(packet.output).unwrap_or(0),
            tcp_flags: headers.and_then(|headers| headers.tcp_flags),
            icmp: headers.and_then(|headers| headers.icmp),
        };
        let bytes = headers.map(|headers| headers.length);
        RawEvent { key, time: packet.time(now), bytes, count: 1, counters: None }
    }

    /// Returns the event of a connection.
    pub(super) fn from_connection(event: &ConnectionEvent, now: SystemTime) -> Self {
        let flow = event.flow();
        let has_ports = !matches!(i32::from(flow.protocol), libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6);
        let port = |number: u16| has_ports.then_some(number);
        let (original, reply) = (&flow.original, &flow.reply);
        let destination = (reply.source, port(reply.source_port));
        let frontend = (original.destination, port(original.destination_port));
        let (verdict, counters) = match event {
            ConnectionEvent::New(_) => (Verdict::New, None),
            ConnectionEvent::Ended(_, counters) => (Verdict::Ended, Some(*counters)),
        };
        let [kind, code] = original.destination_port.to_be_bytes();
        let key = EventKey {
            verdict,
            rule: None,
            protocol: flow.protocol,
            source: Some((original.source, port(original.source_port))),
            destination: Some(destination),
            original_destination: (frontend != destination).then_some(frontend),
            input: 0,
            output: 0,
            tcp_flags: None,
            icmp: (!has_ports).then_some((kind, code)),
        };
        RawEvent { key, time: now, bytes: None, count: 1, counters }
    }

    /// Returns the addresses of which names are wanted.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let key = &self.key;
        [&key.source, &key.destination, &key.original_destination].into_iter().flatten().map(|(ip, _)| *ip)
    }

    /// Returns the address, protocol and port by which the frontend is looked up: the destination before DNAT, if there was
    /// DNAT, else the destination.
    pub(super) fn frontend(&self) -> Option<(IpAddr, u8, u16)> {
        let (ip, port) = self.key.original_destination.or(self.key.destination)?;
        Some((ip, self.key.protocol, port?))
    }
}

/// Returns the destination before DNAT, if it differs. The packet has the direction of the flow: replies are not evaluated.
fn original_end(original: &Tuple, headers: &PacketHeaders) -> Option<End> {
    let is_original = original.source == headers.source;
    let end = (original.destination, headers.ports.map(|_| original.destination_port));
    let destination = (headers.destination, headers.ports.map(|(_, port)| port));
    (is_original && end != destination).then_some(end)
}

/// Collects events. Equal packets are counted.
#[derive(Debug, Default)]
pub(super) struct EventBatch {
    events: Vec<RawEvent>,
    positions: HashMap<EventKey, usize>,
}

impl EventBatch {
    /// Adds a packet or connection.
    pub(super) fn add(&mut self, event: RawEvent) {
        if event.key.verdict.is_connection() {
            self.events.push(event);
            return;
        }
        match self.positions.get(&event.key) {
            Some(at) => self.events[*at].count = self.events[*at].count.saturating_add(event.count),
            None => {
                self.positions.insert(event.key.clone(), self.events.len());
                self.events.push(event);
            }
        }
    }

    /// Returns the number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Takes the events.
    pub(super) fn take(&mut self) -> Vec<RawEvent> {
        self.positions.clear();
        std::mem::take(&mut self.events)
    }
}

/// The greatest time that an event waits for equal ones.
pub(super) const BATCH_TIME: Duration = Duration::from_millis(100);
