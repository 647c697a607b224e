//! The evaluation of one rule.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::packet::Packet;
use super::set_write::SetWrite;
use super::{ConcurrentCommit, Fate, Trace};
use crate::Family;
use crate::nf_tables::data::{Register, Value, Verdict};
use crate::nf_tables::element::{Element, ElementData, Key};
use crate::nf_tables::expression::{Comparison, Expression, LookupResult};
use crate::nf_tables::field::{Ct, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Header, Meta};
use crate::nf_tables::rule::Rule;
use crate::nf_tables::set::SetSpec;
use crate::nf_tables::table::{Set, Table};

/// The result of an expression or a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// `NFT_CONTINUE`
    Continue,
    /// `NFT_BREAK`: the rule does not match.
    Break,
    Verdict(Verdict),
    /// A statement that ends the base chain: NAT or reject.
    Final,
}

type Registers = [u8; 80];

/// Evaluates rules of a table for a packet.
pub(super) struct Evaluator<'a> {
    pub(super) table: &'a Table,
    pub(super) commit: Option<ConcurrentCommit<'a>>,
    pub(super) packet: &'a Packet,
}

impl Evaluator<'_> {
    /// Evaluates a rule and adds its effects to the trace. `random` returns a number below its argument.
    pub(super) fn rule(&self, rule: &Rule, trace: &mut Trace, random: &mut dyn FnMut(u32) -> u32) -> Step {
        let mut registers: Registers = [0; 80];
        for expression in rule.expressions() {
            match self.expression(expression, &mut registers, trace, random) {
                Step::Continue => {}
                end => return end,
            }
        }
        Step::Continue
    }

    fn expression(
        &self,
        expression: &Expression,
        registers: &mut Registers,
        trace: &mut Trace,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Step {
        let matches = |holds: bool| if holds { Step::Continue } else { Step::Break };
        match expression {
            Expression::Payload { header, offset, length, to } => {
                let Some(bytes) = self.payload(*header, *offset, *length) else { return Step::Break };
                put(registers, *to, bytes.bytes());
            }
            Expression::Meta { key, to } => put(registers, *to, self.meta(*key, trace).bytes()),
            Expression::SetMeta { key: Meta::Mark, from } => {
                trace.mark = u32::from_ne_bytes(get(registers, *from, 4).try_into().expect("4 bytes"));
            }
            Expression::SetMeta { key: Meta::Priority, from } => {
                trace.priority = u32::from_ne_bytes(get(registers, *from, 4).try_into().expect("4 bytes"));
            }
            Expression::SetMeta { .. } | Expression::Counter | Expression::Notrack => {}
            Expression::Ct { key, to } => {
                let Packet { state, status, .. } = &self.packet;
                let (original, original_port) = self.packet.original_destination();
                match key {
                    Ct::State => put(registers, *to, &state.to_ne_bytes()),
                    Ct::Status => put(registers, *to, &status.to_ne_bytes()),
                    Ct::Direction => put(registers, *to, &[0]),
                    Ct::Mark => put(registers, *to, &[0; 4]),
                    Ct::OriginalDestinationPort => put(registers, *to, &original_port.to_be_bytes()),
                    Ct::OriginalIpv4Destination | Ct::OriginalIpv6Destination => {
                        put(registers, *to, Value::from(original).bytes());
                    }
                }
            }
            // Routes are not known here: all sources are taken for reachable.
            Expression::Fib { of: Fib::SourceRoute, to } => put(registers, *to, &[1]),
            Expression::Fib { of, to } => {
                let (local, address) = match *of == Fib::SourceType {
                    true => (self.packet.source_is_local, self.packet.source),
                    false => (self.packet.destination_is_local, self.packet.destination),
                };
                // `RTN_UNICAST` otherwise. The broadcast addresses of networks are not known here.
                let kind = match address {
                    _ if local => FIB_LOCAL,
                    address if address.is_multicast() => FIB_MULTICAST,
                    IpAddr::V4(Ipv4Addr::BROADCAST) => FIB_BROADCAST,
                    _ => 1,
                };
                put(registers, *to, &kind.to_ne_bytes());
            }
            Expression::Random { modulus, offset, to } => {
                put(registers, *to, &(offset + random(*modulus)).to_ne_bytes());
            }
            // The hash is not computed: its value is as good as random.
            Expression::Hash { modulus, to, .. } => {
                put(registers, *to, &random(*modulus).to_ne_bytes());
            }
            Expression::Immediate { value, to } => put(registers, *to, value.bytes()),
            Expression::Verdict(verdict) => return Step::Verdict(verdict.clone()),
            Expression::Compare { from, op, with } => {
                let with = with.bytes();
                return matches(op.holds(get(registers, *from, with.len()), with));
            }
            Expression::Range { from, negated, first, last } => {
                let value = get(registers, *from, first.bytes().len());
                return matches((first.bytes()..=last.bytes()).contains(&value) != *negated);
            }
            Expression::Bitwise { register, length, mask, xor } => {
                let mut masked: Registers = [0; 80];
                let length = *length as usize;
                let bytes = get(registers, *register, length).iter();
                let masks = mask.bytes().iter().zip(xor.bytes());
                for (masked, (byte, (mask, xor))) in masked.iter_mut().zip(bytes.zip(masks)) {
                    *masked = byte & mask ^ xor;
                }
                put(registers, *register, &masked[..length.min(mask.bytes().len())]);
            }
            Expression::Lookup { set, key, result } => {
                return self.look_up(set, *key, *result, registers, trace);
            }
            Expression::Dynset { set, op, key, data, timeout } => {
                if let Some(Set { spec, .. }) = self.table.sets.get(set) {
                    let bytes =
                        |at, length: usize| Key::new().part(get(registers, at, length.next_multiple_of(4)));
                    trace.set_writes.push(SetWrite {
                        set: Arc::clone(set),
                        op: *op,
                        key: bytes(*key, spec.key_length()),
                        data: data.map(|data| bytes(data, spec.data_length())),
                        timeout: *timeout,
                    });
                }
            }
            Expression::NamedCounter(name) => trace.counters.push(Arc::clone(name)),
            Expression::Limit { .. } => {}
            Expression::Log { prefix, .. } => trace.log_prefixes.push(Arc::clone(prefix)),
            Expression::Reject(with) => {
                trace.fate = Fate::Rejected(*with);
                return Step::Final;
            }
            Expression::Dnat { family, address, port } => {
                let length = if *family == Family::V4 { 4 } else { 16 };
                let bytes = get(registers, *address, length);
                let address: IpAddr = match <[u8; 4]>::try_from(bytes) {
                    Ok(v4) => v4.into(),
                    Err(_) => <[u8; 16]>::try_from(bytes).expect("the length of an address").into(),
                };
                let port = port
                    .map(|port| u16::from_be_bytes(get(registers, port, 2).try_into().expect("two bytes")));
                trace.dnat = Some((address, port));
                return Step::Final;
            }
            Expression::Masquerade { .. } => {
                trace.masqueraded = true;
                return Step::Final;
            }
            Expression::Unknown(_) => return Step::Break,
        }
        Step::Continue
    }

    fn look_up(
        &self,
        name: &Arc<str>,
        key: Register,
        result: LookupResult,
        registers: &mut Registers,
        trace: &mut Trace,
    ) -> Step {
        let table = match self.commit {
            Some(ConcurrentCommit { lookups, table }) if trace.lookups >= lookups => table,
            _ => self.table,
        };
        trace.lookups += 1;
        let found = table.sets.get(name).and_then(|set| find(set, key_at(registers, key, &set.spec)));
        match (result, found.map(|element| element.data)) {
            (LookupResult::NotFound, None) | (LookupResult::Found, Some(_)) => Step::Continue,
            (LookupResult::Verdict, Some(Some(ElementData::Verdict(verdict)))) => Step::Verdict(verdict),
            (LookupResult::Data(to), Some(Some(ElementData::Value(value)))) => {
                put(registers, to, value.bytes());
                Step::Continue
            }
            _ => Step::Break,
        }
    }

    fn payload(&self, header: Header, offset: u32, length: u32) -> Option<Value> {
        let Packet { source, destination, .. } = &self.packet;
        let icmp = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&self.packet.protocol.into());
        let address = |address: &IpAddr| match address {
            IpAddr::V4(v4) => Value::new(&v4.octets()),
            IpAddr::V6(v6) => Value::new(&v6.octets()),
        };
        Some(match (header, offset, length, source.is_ipv4()) {
            (Header::Link, 12, 2, v4) => {
                Value::from(if v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16)
            }
            (Header::Network, 12, 4, true) | (Header::Network, 8, 16, false) => address(source),
            (Header::Network, 16, 4, true) | (Header::Network, 24, 16, false) => address(destination),
            (Header::Transport, 13, 1, _) if i32::from(self.packet.protocol) == libc::IPPROTO_TCP => {
                Value::from(self.packet.tcp_flags)
            }
            (Header::Transport, 0, 1, _) if icmp => Value::from(self.packet.icmp_type),
            (Header::Transport, 0, 2, _) if !icmp => Value::from(self.packet.source_port),
            (Header::Transport, 2, 2, _) if !icmp => Value::from(self.packet.destination_port),
            _ => return None,
        })
    }

    fn meta(&self, key: Meta, trace: &Trace) -> Value {
        let Packet { input, output, source, protocol, .. } = &self.packet;
        let native = |number: u32| Value::new(&number.to_ne_bytes());
        let index =
            |interface: &Option<(u32, String)>| native(interface.as_ref().map_or(0, |(index, _)| *index));
        let name = |interface: &Option<(u32, String)>| {
            let mut bytes = [0; 16];
            if let Some((_, name)) = interface {
                let length = name.len().min(16);
                bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
            }
            Value::new(&bytes)
        };
        match key {
            Meta::Priority => native(trace.priority),
            Meta::Mark => native(trace.mark),
            Meta::Iif => index(input),
            Meta::Oif => index(output),
            Meta::IifName => name(input),
            Meta::OifName => name(output),
            Meta::NfProto => Value::from(Family::from_address(*source).number()),
            Meta::L4Proto => Value::from(*protocol),
        }
    }
}

impl Comparison {
    fn holds(self, value: &[u8], with: &[u8]) -> bool {
        match self {
            Comparison::Equal => value == with,
            Comparison::NotEqual => value != with,
            Comparison::Less => value < with,
            Comparison::AtMost => value <= with,
            Comparison::Greater => value > with,
            Comparison::AtLeast => value >= with,
        }
    }
}

/// Writes a value and pads its last register with zeros, as the kernel does.
fn put(registers: &mut Registers, to: Register, bytes: &[u8]) {
    let at = usize::from(to.0) * 4;
    let end = at + bytes.len().next_multiple_of(4);
    if let Some(place) = registers.get_mut(at..end) {
        place.fill(0);
        place[..bytes.len()].copy_from_slice(bytes);
    }
}

fn get(registers: &Registers, from: Register, length: usize) -> &[u8] {
    let at = usize::from(from.0) * 4;
    registers.get(at..at + length).unwrap_or_default()
}

fn key_at<'a>(registers: &'a Registers, from: Register, spec: &SetSpec) -> &'a [u8] {
    get(registers, from, spec.key_length().next_multiple_of(4))
}

/// Returns the element that contains a key.
fn find(set: &Set, key: &[u8]) -> Option<Element> {
    if !set.spec.interval {
        return set.elements.get_bytes(key);
    }
    let contains = |first: &Key, last: &Key| {
        let mut at = 0;
        set.spec.key.iter().all(|part| {
            let range = at..at + part.length();
            at += part.length().next_multiple_of(4);
            let [first, key, last] = [first.bytes(), key, last.bytes()].map(|key| key.get(range.clone()));
            first <= key && key <= last
        })
    };
    let mut elements = set.elements.iter();
    elements
        .find(|(first, element)| contains(first, element.last.as_ref().unwrap_or(first)))
        .map(|(_, element)| element)
}
