//! The evaluation of a table's rules for a packet without a kernel.
//!
//! Expressions are evaluated as the kernel does. A trace does not change sets: it lists the writes of `dynset` expressions,
//! which [`Table::apply`] performs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::data::{Register, Verdict};
use super::element::{ElementData, Key};
use super::expression::{Comparison, Expression, LookupResult, Reject};
use super::field::{Ct, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Header, Meta};
use super::packet::Packet;
use super::rule::Rule;
use super::set::SetSpec;
use super::set_write::SetWrite;
use super::table::{BaseChain, Chain, Hook, Set, Table};
use crate::Family;

/// The fate of a packet after a base chain, as iptables(8) uses the word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Accepted: the packet continues to the next base chain.
    Accepted,
    /// Dropped silently.
    Dropped,
    /// Dropped, with an error to its sender.
    Rejected(Reject),
}

/// The effects of the rules of one or more base chains on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The fate of the packet.
    pub fate: Fate,
    /// The rules that matched: the chain, and the index of the rule in it.
    pub rules: Vec<(Arc<str>, usize)>,
    /// The translated destination address, and the port if that is translated too.
    pub dnat: Option<(IpAddr, Option<u16>)>,
    /// A `masquerade` expression translates the source.
    pub masqueraded: bool,
    /// The writes to sets, in order.
    pub set_writes: Vec<SetWrite>,
    /// The packet mark after the last rule.
    pub mark: u32,
    /// The packet priority after the last rule.
    pub priority: u32,
    /// The named counters that counted the packet.
    pub counters: Vec<Arc<str>>,
    /// The prefixes with which the packet was logged to NFLOG.
    pub log_prefixes: Vec<Arc<str>>,
    /// The number of set lookups.
    pub lookups: usize,
}

/// A transaction that takes effect during a trace. The kernel switches the generation between two lookups: later lookups
/// see the new elements, while the rules stay those with which the packet began.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConcurrentCommit<'a> {
    /// The number of lookups that see the old elements.
    pub(super) lookups: usize,
    /// The table after the transaction.
    pub(super) table: &'a Table,
}

/// More rules than any packet traverses: a loop, which the kernel rejects.
const MAX_RULES: usize = 100_000;

impl Table {
    /// Traces a packet through all base chains of a hook. `random` returns a number below its argument.
    ///
    /// # Panics
    /// If chains jump in a loop, which the kernel rejects.
    pub fn trace(&self, hook: Hook, packet: &Packet, random: &mut dyn FnMut(u32) -> u32) -> Trace {
        let mut tracer = Tracer::new(self, None, packet.clone(), random);
        for (name, chain, _) in self.base_chains(hook) {
            tracer.chain(name, chain);
            if tracer.trace.fate != Fate::Accepted {
                break;
            }
            if let Some((address, port)) = tracer.trace.dnat {
                tracer.packet.apply_dnat(address, port);
            }
        }
        tracer.trace
    }

    /// Traces a packet through one base chain.
    pub(super) fn trace_base_chain(
        &self,
        (name, chain): (&Arc<str>, &Chain),
        commit: Option<ConcurrentCommit<'_>>,
        packet: &Packet,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Trace {
        let mut tracer = Tracer::new(self, commit, packet.clone(), random);
        tracer.chain(name, chain);
        tracer.trace
    }

    /// Returns the base chains of a hook in the order in which packets traverse them.
    pub(super) fn base_chains(&self, hook: Hook) -> Vec<(&Arc<str>, &Chain, BaseChain)> {
        let of_hook = |(name, chain)| {
            let chain: &Chain = chain;
            Some((name, chain, chain.base.filter(|base| base.hook == hook)?))
        };
        let mut chains: Vec<_> = self.chains.iter().filter_map(of_hook).collect();
        chains.sort_by_key(|(_, _, base)| base.priority);
        chains
    }
}

struct Tracer<'a> {
    table: &'a Table,
    commit: Option<ConcurrentCommit<'a>>,
    packet: Packet,
    random: &'a mut dyn FnMut(u32) -> u32,
    rule_count: usize,
    trace: Trace,
}

/// The end of a chain.
enum ChainEnd {
    /// A verdict that ends the base chain.
    Final,
    /// None: evaluation continues after the jump.
    Return,
}

/// The result of an expression or a rule, as the verdict register holds it.
enum Step {
    /// `NFT_CONTINUE`
    Continue,
    /// `NFT_BREAK`: the rule does not match.
    Break,
    Verdict(Verdict),
    /// A statement that ends the base chain: NAT or reject.
    Final,
}

type Registers = [u8; 80];

impl<'a> Tracer<'a> {
    fn new(
        table: &'a Table,
        commit: Option<ConcurrentCommit<'a>>,
        packet: Packet,
        random: &'a mut dyn FnMut(u32) -> u32,
    ) -> Self {
        let trace = Trace {
            fate: Fate::Accepted,
            rules: Vec::new(),
            dnat: None,
            masqueraded: false,
            set_writes: Vec::new(),
            mark: packet.mark,
            priority: packet.priority,
            counters: Vec::new(),
            log_prefixes: Vec::new(),
            lookups: 0,
        };
        Tracer { table, commit, packet, random, rule_count: 0, trace }
    }

    fn chain(&mut self, name: &Arc<str>, chain: &Chain) -> ChainEnd {
        for (position, rule) in chain.rules.iter().enumerate() {
            self.rule_count += 1;
            assert!(self.rule_count < MAX_RULES, "chains jump in a loop through {name}");
            let verdict = match self.rule(rule) {
                Step::Break => continue,
                Step::Continue => {
                    self.trace.rules.push((Arc::clone(name), position));
                    continue;
                }
                Step::Final => {
                    self.trace.rules.push((Arc::clone(name), position));
                    return ChainEnd::Final;
                }
                Step::Verdict(verdict) => verdict,
            };
            self.trace.rules.push((Arc::clone(name), position));
            match verdict {
                Verdict::Accept => return ChainEnd::Final,
                Verdict::Drop => {
                    self.trace.fate = Fate::Dropped;
                    return ChainEnd::Final;
                }
                Verdict::Continue => {}
                Verdict::Return => return ChainEnd::Return,
                Verdict::Jump(target) => match self.jump(&target) {
                    ChainEnd::Final => return ChainEnd::Final,
                    ChainEnd::Return => {}
                },
                Verdict::Goto(target) => return self.jump(&target),
            }
        }
        ChainEnd::Return
    }

    fn jump(&mut self, name: &Arc<str>) -> ChainEnd {
        match self.table.chains.get(name) {
            Some(chain) => self.chain(name, chain),
            None => ChainEnd::Return,
        }
    }

    fn rule(&mut self, rule: &Rule) -> Step {
        let mut registers: Registers = [0; 80];
        for expression in rule.expressions() {
            match self.expression(expression, &mut registers) {
                Step::Continue => {}
                end => return end,
            }
        }
        Step::Continue
    }

    fn expression(&mut self, expression: &Expression, registers: &mut Registers) -> Step {
        let matches = |holds: bool| if holds { Step::Continue } else { Step::Break };
        match expression {
            Expression::Payload { header, offset, length, to } => {
                let Some(bytes) = self.payload(*header, *offset, *length) else { return Step::Break };
                put(registers, *to, &bytes);
            }
            Expression::Meta { key, to } => match self.meta(*key) {
                Some(bytes) => put(registers, *to, &bytes),
                None => return Step::Break,
            },
            Expression::SetMeta { key: Meta::Mark, from } => {
                self.trace.mark = u32::from_ne_bytes(get(registers, *from, 4).try_into().expect("4 bytes"));
            }
            Expression::SetMeta { key: Meta::Priority, from } => {
                self.trace.priority =
                    u32::from_ne_bytes(get(registers, *from, 4).try_into().expect("4 bytes"));
            }
            Expression::SetMeta { .. } | Expression::Counter | Expression::Notrack => {}
            Expression::Ct { key, to } => {
                let Packet { state, status, .. } = &self.packet;
                match key {
                    Ct::State => put(registers, *to, &state.to_ne_bytes()),
                    Ct::Status => put(registers, *to, &status.to_ne_bytes()),
                    Ct::Direction => put(registers, *to, &[0]),
                    Ct::Mark => put(registers, *to, &[0; 4]),
                }
            }
            Expression::Fib { of, to } => {
                let (local, address) = match of {
                    Fib::SourceType => (self.packet.source_is_local, self.packet.source),
                    Fib::DestinationType => (self.packet.destination_is_local, self.packet.destination),
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
                put(registers, *to, &(offset + (self.random)(*modulus)).to_ne_bytes());
            }
            // The hash is not computed: its value is as good as random.
            Expression::Hash { modulus, to, .. } => {
                put(registers, *to, &(self.random)(*modulus).to_ne_bytes());
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
                let masked: Vec<u8> = get(registers, *register, *length as usize)
                    .iter()
                    .zip(mask.bytes().iter().zip(xor.bytes()))
                    .map(|(byte, (mask, xor))| byte & mask ^ xor)
                    .collect();
                put(registers, *register, &masked);
            }
            Expression::Lookup { set, key, result } => return self.look_up(set, *key, *result, registers),
            Expression::Dynset { set, op, key, data, timeout } => {
                if let Some(Set { spec, .. }) = self.table.sets.get(set) {
                    let bytes =
                        |at, length: usize| Key::new().part(get(registers, at, length.next_multiple_of(4)));
                    self.trace.set_writes.push(SetWrite {
                        set: Arc::clone(set),
                        op: *op,
                        key: bytes(*key, spec.key_length()),
                        data: data.map(|data| bytes(data, spec.data_length())),
                        timeout: *timeout,
                    });
                }
            }
            Expression::NamedCounter(name) => self.trace.counters.push(Arc::clone(name)),
            Expression::Limit { .. } => {}
            Expression::Log { prefix, .. } => self.trace.log_prefixes.push(Arc::clone(prefix)),
            Expression::Reject(with) => {
                self.trace.fate = Fate::Rejected(*with);
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
                self.trace.dnat = Some((address, port));
                return Step::Final;
            }
            Expression::Masquerade { .. } => {
                self.trace.masqueraded = true;
                return Step::Final;
            }
            Expression::Unknown(_) => return Step::Break,
        }
        Step::Continue
    }

    fn look_up(
        &mut self,
        name: &Arc<str>,
        key: Register,
        result: LookupResult,
        registers: &mut Registers,
    ) -> Step {
        let table = match self.commit {
            Some(ConcurrentCommit { lookups, table }) if self.trace.lookups >= lookups => table,
            _ => self.table,
        };
        self.trace.lookups += 1;
        let found = table
            .sets
            .get(name)
            .and_then(|set| set.find(&key_at(registers, key, &set.spec)).map(|element| element.data.clone()));
        match (result, found) {
            (LookupResult::NotFound, None) | (LookupResult::Found, Some(_)) => Step::Continue,
            (LookupResult::Verdict, Some(Some(ElementData::Verdict(verdict)))) => Step::Verdict(verdict),
            (LookupResult::Data(to), Some(Some(ElementData::Value(value)))) => {
                put(registers, to, value.bytes());
                Step::Continue
            }
            _ => Step::Break,
        }
    }

    fn payload(&self, header: Header, offset: u32, length: u32) -> Option<Vec<u8>> {
        let Packet { source, destination, .. } = &self.packet;
        let icmp = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&self.packet.protocol.into());
        let address = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Some(match (header, offset, length, source.is_ipv4()) {
            (Header::Link, 12, 2, v4) => {
                (if v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16).to_be_bytes().to_vec()
            }
            (Header::Network, 12, 4, true) | (Header::Network, 8, 16, false) => address(source),
            (Header::Network, 16, 4, true) | (Header::Network, 24, 16, false) => address(destination),
            (Header::Transport, 13, 1, _) if i32::from(self.packet.protocol) == libc::IPPROTO_TCP => {
                vec![self.packet.tcp_flags]
            }
            (Header::Transport, 0, 1, _) if icmp => vec![self.packet.icmp_type],
            (Header::Transport, 0, 2, _) if !icmp => self.packet.source_port.to_be_bytes().to_vec(),
            (Header::Transport, 2, 2, _) if !icmp => self.packet.destination_port.to_be_bytes().to_vec(),
            _ => return None,
        })
    }

    fn meta(&self, key: Meta) -> Option<Vec<u8>> {
        let Packet { input, output, source, protocol, .. } = &self.packet;
        let index = |interface: &Option<(u32, String)>| {
            interface.as_ref().map_or(0, |(index, _)| *index).to_ne_bytes().to_vec()
        };
        let name = |interface: &Option<(u32, String)>| {
            let mut bytes = interface.as_ref().map(|(_, name)| name.as_bytes().to_vec()).unwrap_or_default();
            bytes.resize(16, 0);
            bytes
        };
        Some(match key {
            Meta::Priority => self.trace.priority.to_ne_bytes().to_vec(),
            Meta::Mark => self.trace.mark.to_ne_bytes().to_vec(),
            Meta::Iif => index(input),
            Meta::Oif => index(output),
            Meta::IifName => name(input),
            Meta::OifName => name(output),
            Meta::NfProto => vec![Family::from_address(*source).number()],
            Meta::L4Proto => vec![*protocol],
        })
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

fn key_at(registers: &Registers, from: Register, spec: &SetSpec) -> Key {
    Key::new().part(get(registers, from, spec.key_length().next_multiple_of(4)))
}
