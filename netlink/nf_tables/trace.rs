//! What a table does to a packet, without a kernel: its chains worked through as the kernel does.
//!
//! Sets that rules write to are read only: what a packet would write is told, not written ([`Table::write`] does it).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::data::{Register, Verdict};
use super::element::{ElementData, Key};
use super::expression::{Comparison, Expression, LookupResult, Reject};
use super::field::{Ct, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Header, Meta};
use super::packet::Packet;
use super::rule::Rule;
use super::set::SetSpec;
use super::table::{BaseChain, Chain, Hook, Set, Table};
use super::written::Written;
use crate::Family;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Accepted,
    /// It is dropped.
    Dropped,
    /// It is dropped, and its sender is told.
    Rejected(Reject),
}

/// A packet's way through the chains of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What becomes of it.
    pub fate: Fate,
    /// The rules that had an effect: chain and position in it.
    pub rules: Vec<(Arc<str>, usize)>,
    /// Where it is sent instead, if its destination is translated: the address, and the port if that is too.
    pub translated: Option<(IpAddr, Option<u16>)>,
    /// Its source is translated.
    pub masqueraded: bool,
    /// What it would have written to sets, in order.
    pub written: Vec<Written>,
    /// The packet mark at the end.
    pub mark: u32,
    /// The packet's priority at the end.
    pub priority: u32,
    /// Named counters that counted it.
    pub counted: Vec<Arc<str>>,
    /// NFLOG prefixes that it was handed on with.
    pub logged: Vec<Arc<str>>,
    /// How often something was looked up in a set.
    pub lookups: usize,
}

/// A transaction that takes effect while a packet is under way. The kernel takes notice between two rules or even within
/// one: what is looked up from then on is looked up in what there is then. The rules stay those by which it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meanwhile<'a> {
    /// So many times something is looked up before.
    pub(super) lookups: usize,
    /// The table as it is then.
    pub(super) table: &'a Table,
}

/// More rules than any packet passes: a loop, which a kernel refuses.
const STEPS: usize = 100_000;

impl Table {
    /// Sends a packet through all base chains of a hook. `random` draws a number below its argument.
    ///
    /// # Panics
    /// If rules lead in a circle, which the kernel refuses.
    pub fn trace(&self, hook: Hook, packet: &Packet, random: &mut dyn FnMut(u32) -> u32) -> Trace {
        let mut run = Run::new(self, None, packet.clone(), random);
        for (name, chain, _) in self.base_chains(hook) {
            run.chain(name, chain);
            if run.trace.fate != Fate::Accepted {
                break;
            }
            if let Some((address, port)) = run.trace.translated {
                run.packet.translate(address, port);
            }
        }
        run.trace
    }

    /// Sends a packet through one base chain.
    pub(super) fn pass(
        &self,
        (name, chain): (&Arc<str>, &Chain),
        meanwhile: Option<Meanwhile<'_>>,
        packet: &Packet,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Trace {
        let mut run = Run::new(self, meanwhile, packet.clone(), random);
        run.chain(name, chain);
        run.trace
    }

    /// The base chains of a hook, in the order in which packets pass them.
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

struct Run<'a> {
    table: &'a Table,
    meanwhile: Option<Meanwhile<'a>>,
    packet: Packet,
    random: &'a mut dyn FnMut(u32) -> u32,
    steps: usize,
    trace: Trace,
}

/// How a chain ended.
enum End {
    /// With a verdict for the packet.
    Decided,
    /// Without one: on behind the jump.
    Back,
}

/// How a rule ended.
enum RuleEnd {
    Next,
    Break,
    Verdict(Verdict),
    Decided,
}

type Registers = [u8; 80];

impl<'a> Run<'a> {
    fn new(
        table: &'a Table,
        meanwhile: Option<Meanwhile<'a>>,
        packet: Packet,
        random: &'a mut dyn FnMut(u32) -> u32,
    ) -> Self {
        let trace = Trace {
            fate: Fate::Accepted,
            rules: Vec::new(),
            translated: None,
            masqueraded: false,
            written: Vec::new(),
            mark: packet.mark,
            priority: packet.priority,
            counted: Vec::new(),
            logged: Vec::new(),
            lookups: 0,
        };
        Run { table, meanwhile, packet, random, steps: 0, trace }
    }

    fn chain(&mut self, name: &Arc<str>, chain: &Chain) -> End {
        for (position, rule) in chain.rules.iter().enumerate() {
            self.steps += 1;
            assert!(self.steps < STEPS, "rules lead in a circle through chain {name}");
            let verdict = match self.rule(rule) {
                RuleEnd::Break => continue,
                RuleEnd::Next => {
                    self.trace.rules.push((Arc::clone(name), position));
                    continue;
                }
                RuleEnd::Decided => {
                    self.trace.rules.push((Arc::clone(name), position));
                    return End::Decided;
                }
                RuleEnd::Verdict(verdict) => verdict,
            };
            self.trace.rules.push((Arc::clone(name), position));
            match verdict {
                Verdict::Accept => return End::Decided,
                Verdict::Drop => {
                    self.trace.fate = Fate::Dropped;
                    return End::Decided;
                }
                Verdict::Continue => {}
                Verdict::Return => return End::Back,
                Verdict::Jump(target) => match self.named(&target) {
                    End::Decided => return End::Decided,
                    End::Back => {}
                },
                Verdict::Goto(target) => return self.named(&target),
            }
        }
        End::Back
    }

    fn named(&mut self, name: &Arc<str>) -> End {
        match self.table.chains.get(name) {
            Some(chain) => self.chain(name, chain),
            None => End::Back,
        }
    }

    fn rule(&mut self, rule: &Rule) -> RuleEnd {
        let mut registers: Registers = [0; 80];
        for expression in rule.expressions() {
            match self.step(expression, &mut registers) {
                RuleEnd::Next => {}
                end => return end,
            }
        }
        RuleEnd::Next
    }

    fn step(&mut self, expression: &Expression, registers: &mut Registers) -> RuleEnd {
        let go_on = |holds: bool| if holds { RuleEnd::Next } else { RuleEnd::Break };
        match expression {
            Expression::Payload { header, offset, length, to } => {
                let Some(bytes) = self.payload(*header, *offset, *length) else { return RuleEnd::Break };
                put(registers, *to, &bytes);
            }
            Expression::Meta { key, to } => match self.meta(*key) {
                Some(bytes) => put(registers, *to, &bytes),
                None => return RuleEnd::Break,
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
                // `RTN_UNICAST` for all others. Which addresses are the broadcast ones of networks is not known here.
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
            // Which number comes of a hash is no more foreseen than a random one.
            Expression::Hash { modulus, to, .. } => {
                put(registers, *to, &(self.random)(*modulus).to_ne_bytes());
            }
            Expression::Load { value, to } => put(registers, *to, value.bytes()),
            Expression::Verdict(verdict) => return RuleEnd::Verdict(verdict.clone()),
            Expression::Compare { from, op, with } => {
                let with = with.bytes();
                return go_on(op.holds(get(registers, *from, with.len()), with));
            }
            Expression::Range { from, negated, first, last } => {
                let value = get(registers, *from, first.bytes().len());
                return go_on((first.bytes()..=last.bytes()).contains(&value) != *negated);
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
            Expression::Dynamic { set, op, key, data, timeout } => {
                if let Some(Set { spec, .. }) = self.table.sets.get(set) {
                    let bytes =
                        |at, length: usize| Key::new().part(get(registers, at, length.next_multiple_of(4)));
                    self.trace.written.push(Written {
                        set: Arc::clone(set),
                        op: *op,
                        key: bytes(*key, spec.key_length()),
                        data: data.map(|data| bytes(data, spec.data_length())),
                        timeout: *timeout,
                    });
                }
            }
            Expression::NamedCounter(name) => self.trace.counted.push(Arc::clone(name)),
            Expression::Limit { .. } => {}
            Expression::Log { prefix, .. } => self.trace.logged.push(Arc::clone(prefix)),
            Expression::Reject(with) => {
                self.trace.fate = Fate::Rejected(*with);
                return RuleEnd::Decided;
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
                self.trace.translated = Some((address, port));
                return RuleEnd::Decided;
            }
            Expression::Masquerade { .. } => {
                self.trace.masqueraded = true;
                return RuleEnd::Decided;
            }
            Expression::Other(_) => return RuleEnd::Break,
        }
        RuleEnd::Next
    }

    fn look_up(
        &mut self,
        name: &Arc<str>,
        key: Register,
        result: LookupResult,
        registers: &mut Registers,
    ) -> RuleEnd {
        let table = match self.meanwhile {
            Some(Meanwhile { lookups, table }) if self.trace.lookups >= lookups => table,
            _ => self.table,
        };
        self.trace.lookups += 1;
        let found = table
            .sets
            .get(name)
            .and_then(|set| set.find(&key_at(registers, key, &set.spec)).map(|element| element.data.clone()));
        match (result, found) {
            (LookupResult::NotFound, None) | (LookupResult::Found, Some(_)) => RuleEnd::Next,
            (LookupResult::Verdict, Some(Some(ElementData::Verdict(verdict)))) => RuleEnd::Verdict(verdict),
            (LookupResult::Data(to), Some(Some(ElementData::Value(value)))) => {
                put(registers, to, value.bytes());
                RuleEnd::Next
            }
            _ => RuleEnd::Break,
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

/// Writes a value, and fills its last register up, as the kernel does.
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
