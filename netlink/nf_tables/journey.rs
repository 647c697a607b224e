//! A new connection's first packet on its whole way through a machine: every hook, in the kernel's order.
//!
//! ```text
//! comes in ── prerouting ─┬─ for this machine ── input
//!                         └─ for others ──────── forward ── postrouting ─► goes out
//! sent here ── output ── postrouting ─┬─ for others ─► goes out
//!                                     └─ for this machine ── prerouting ── input
//! ```
//! Where its destination is translated, all that follows sees the new one. Chains of kind `nat` are asked once: what
//! this machine sends to itself passes prerouting a second time without them.

use std::net::IpAddr;
use std::sync::Arc;

use super::packet::Packet;
use super::table::{ChainKind, Hook, Table};
use super::trace::{Fate, Meanwhile, Trace};

/// The interface by which a machine talks to itself.
const LOOPBACK: (u32, &str) = (1, "lo");

/// A machine: its rules, and its addresses.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Its tables. Of base chains with one priority, those of the first table come first.
    pub tables: &'a [&'a Table],
    /// Whether an address is the machine's own.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
}

/// What became of a packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// Whether it arrived, or went out.
    pub fate: Fate,
    /// The packet at the end: where it goes after translation, and with what mark.
    pub packet: Packet,
    /// Its source becomes this machine's.
    pub masqueraded: bool,
    /// The base chains that it passed, in order.
    pub passages: Vec<Passage>,
}

/// A packet's way through one base chain, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Where in the kernel.
    pub hook: Hook,
    /// The table's place among those of the machine.
    pub table: usize,
    /// The base chain.
    pub chain: Arc<str>,
    /// What happened there.
    pub trace: Trace,
}

impl Machine<'_> {
    /// Sends a packet through: one that comes in if it has an interface that it came in by, or else one that this
    /// machine sends. Which addresses are local is filled in. `random` draws a number below its argument.
    ///
    /// # Panics
    /// If rules lead in a circle, which the kernel refuses.
    pub fn send(&self, packet: Packet, random: &mut dyn FnMut(u32) -> u32) -> Journey {
        self.walk(packet, None, random)
    }

    /// Sends a packet through that is under way while the kernel changes the elements of sets to those of other `tables`,
    /// in the same order: what is looked up after so many `lookups` is looked up in these.
    ///
    /// # Panics
    /// If rules lead in a circle, or there are not as many tables.
    pub fn send_while(
        &self,
        packet: Packet,
        lookups: usize,
        tables: &[&Table],
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Journey {
        assert_eq!(tables.len(), self.tables.len(), "each table becomes another one");
        self.walk(packet, Some(Commit { lookups, tables }), random)
    }

    fn walk(
        &self,
        packet: Packet,
        commit: Option<Commit<'_>>,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Journey {
        let journey = Journey { fate: Fate::Accepted, packet, masqueraded: false, passages: Vec::new() };
        let mut walk = Walk { machine: self, commit, random, journey };
        walk.go();
        walk.journey
    }
}

impl Journey {
    /// How often something was looked up in a set.
    pub fn lookups(&self) -> usize {
        self.passages.iter().map(|passage| passage.trace.lookups).sum()
    }
}

/// What happens while a packet is under way.
#[derive(Clone, Copy)]
struct Commit<'a> {
    lookups: usize,
    tables: &'a [&'a Table],
}

struct Walk<'a> {
    machine: &'a Machine<'a>,
    commit: Option<Commit<'a>>,
    random: &'a mut dyn FnMut(u32) -> u32,
    journey: Journey,
}

/// Which chains of a hook a packet passes.
#[derive(Clone, Copy, PartialEq)]
enum Chains {
    All,
    /// Translation was decided on before.
    Filters,
}

impl Walk<'_> {
    fn go(&mut self) {
        let packet = &mut self.journey.packet;
        packet.source_is_local = (self.machine.is_local)(packet.source);
        if packet.input.is_some() {
            self.hook(Hook::Prerouting, Chains::All);
            if !self.is_for_this_machine() {
                self.hook(Hook::Forward, Chains::All);
                self.hook(Hook::Postrouting, Chains::All);
                return;
            }
        } else {
            self.hook(Hook::Output, Chains::All);
            self.hook(Hook::Postrouting, Chains::All);
            if !self.is_for_this_machine() {
                return;
            }
            let (index, name) = LOOPBACK;
            self.journey.packet.input = Some((index, name.into()));
            self.hook(Hook::Prerouting, Chains::Filters);
        }
        self.hook(Hook::Input, Chains::All);
    }

    fn is_for_this_machine(&self) -> bool {
        (self.machine.is_local)(self.journey.packet.destination)
    }

    fn hook(&mut self, hook: Hook, which: Chains) {
        let tables = self.machine.tables.iter().enumerate();
        let mut chains: Vec<_> = tables
            .flat_map(|(at, table)| table.base_chains(hook).into_iter().map(move |chain| (at, *table, chain)))
            .filter(|(_, _, (_, _, base))| which == Chains::All || base.kind == ChainKind::Filter)
            .collect();
        chains.sort_by_key(|(_, _, (_, _, base))| base.priority);
        for (at, table, (name, chain, _)) in chains {
            let done = self.journey.lookups();
            let meanwhile = self.commit.map(|Commit { lookups, tables }| Meanwhile {
                lookups: lookups.saturating_sub(done),
                table: tables[at],
            });
            let Journey { fate, packet, .. } = &mut self.journey;
            if *fate != Fate::Accepted {
                return;
            }
            packet.destination_is_local = (self.machine.is_local)(packet.destination);
            let trace = table.pass((name, chain), meanwhile, packet, self.random);
            *fate = trace.fate.clone();
            packet.mark = trace.mark;
            if let Some((address, port)) = trace.translated {
                packet.translate(address, port);
                packet.destination_is_local = (self.machine.is_local)(address);
            }
            self.journey.masqueraded |= trace.masqueraded;
            self.journey.passages.push(Passage { hook, table: at, chain: Arc::clone(name), trace });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::nf_tables::{
        BaseChain, Chain, Expression, Field, Hook, Register, Rule, TableFamily, Value, Verdict,
    };

    const SERVICE: &str = "10.96.0.1";
    const POD: &str = "10.244.0.1";
    const OWN: &str = "192.168.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Sends what is for the service to a target, and drops what reaches a place in a later chain.
    fn table(target: &str, drops: (Hook, &str)) -> Table {
        let base = |kind, hook, priority, rule| Chain {
            base: Some(BaseChain { kind, hook, priority }),
            ..Chain::of(vec![rule])
        };
        let to = |address| Rule::new().is(Field::Destination(Family::V4), ip(address));
        let dnat = || {
            let (value, address) = (Value::from(ip(target)), Register(1));
            let load = Expression::Load { value, to: address };
            to(SERVICE).push(load).push(Expression::Dnat { family: Family::V4, address, port: None })
        };
        let mut table = Table::new(TableFamily::Ip, "t");
        let chains = [
            ("in", base(ChainKind::Nat, Hook::Prerouting, -100, dnat())),
            ("out", base(ChainKind::Nat, Hook::Output, -100, dnat())),
            ("drop", base(ChainKind::Filter, drops.0, 0, to(drops.1).then(Verdict::Drop))),
        ];
        table.chains.extend(chains.map(|(name, chain)| (name.into(), chain)));
        table
    }

    #[test]
    fn later_hooks_see_what_earlier_ones_made_of_it() {
        use Hook::{Forward, Input, Output, Postrouting, Prerouting};
        let comes_in = Some((7, "eth0".to_owned()));
        let rows = [
            ("translated before it is forwarded", &comes_in, POD, (Forward, POD), Some(Forward)),
            ("so its old destination is not seen", &comes_in, POD, (Forward, SERVICE), None),
            ("to this machine", &comes_in, OWN, (Input, OWN), Some(Input)),
            ("which is not forwarded", &comes_in, OWN, (Postrouting, OWN), None),
            ("translated within the output hook", &None, POD, (Output, POD), Some(Output)),
            ("to oneself by way of the loopback link", &None, OWN, (Input, OWN), Some(Input)),
            ("where filters see it come in again", &None, OWN, (Prerouting, OWN), Some(Prerouting)),
            ("and what goes elsewhere does not come in", &None, POD, (Prerouting, POD), None),
        ];
        for (what, input, target, drops, dropped) in rows {
            let table = table(target, drops);
            let machine = Machine { tables: &[&table], is_local: &|address| address == ip(OWN) };
            let packet = Packet { input: input.clone(), ..Packet::new(ip(OWN), ip(SERVICE), 6, 80) };
            let journey = machine.send(packet, &mut |_| 0);
            let end = journey.passages.last().map(|passage| passage.hook);
            assert_eq!(journey.fate == Fate::Dropped, dropped.is_some(), "{what}: {journey:?}");
            assert!(dropped.is_none() || end == dropped, "{what}: {journey:?}");
            assert_eq!(journey.packet.destination, ip(target), "{what}");
        }
    }
}
