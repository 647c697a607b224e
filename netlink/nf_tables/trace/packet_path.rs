//! The path of a new connection's first packet through all netfilter hooks of a host.
//!
//! ```text
//! received ── prerouting ─┬─ local destination ── input
//!                         └─ other destination ── forward ── postrouting ─► sent
//! local    ── output ── postrouting ─┬─ other destination ─► sent
//!                                    └─ local destination ── prerouting ── input
//! ```
//! After destination NAT, later hooks see the translated destination. Chains of type `nat` decide once per connection: a
//! packet from this host to itself traverses prerouting without them.

use std::net::IpAddr;
use std::sync::Arc;

use super::branches::{Branches, RandomNumbers};
use super::packet::Packet;
use super::{ConcurrentCommit, Fate, NamedBaseChain, Trace};
use crate::nf_tables::table::{BaseChain, ChainKind, Hook, Table};

/// Index and name of the loopback interface.
const LOOPBACK: (u32, &str) = (1, "lo");

/// A host: its tables and its addresses.
#[derive(Clone, Copy)]
pub struct TracedHost<'a> {
    /// The tables of the host. Base chains of equal priority are traversed in the order of their tables.
    pub tables: &'a [&'a Table],
    /// Returns true for an address of the host.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
}

/// The path of a packet through the hooks of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketPath {
    /// The fate of the packet after the last hook.
    pub fate: Fate,
    /// The packet after the last hook, with its translated destination and its mark.
    pub packet: Packet,
    /// The source is translated to an address of the host.
    pub masqueraded: bool,
    /// The base chains that the packet traversed, in order.
    pub chains: Vec<ChainTraversal>,
}

/// The traversal of one base chain, including the chains that it jumps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTraversal {
    /// The hook of the base chain.
    pub hook: Hook,
    /// The index of the table in [`TracedHost::tables`].
    pub table: usize,
    /// The name of the base chain.
    pub chain: Arc<str>,
    /// The rules that matched, and their effects.
    pub trace: Trace,
}

impl TracedHost<'_> {
    /// Traces a packet: one that the host receives if it has an input interface, else one that the host sends. Sets
    /// `source_is_local` and `destination_is_local` of the packet. Returns a path for each different effect of random
    /// numbers, with its probability.
    ///
    /// # Panics
    /// If chains jump in a loop, which the kernel rejects.
    pub fn paths(&self, packet: Packet) -> Vec<(PacketPath, f64)> {
        Walk::new(self, None).run(packet)
    }

    /// Traces a packet during which a transaction replaces the elements of all sets by those of `tables`: the first
    /// `lookups` set lookups see the old elements, later ones the new.
    ///
    /// # Panics
    /// If chains jump in a loop, or `tables` has another length than [`TracedHost::tables`].
    pub fn paths_during_commit(
        &self,
        packet: Packet,
        lookups: usize,
        tables: &[&Table],
    ) -> Vec<(PacketPath, f64)> {
        assert_eq!(tables.len(), self.tables.len(), "each table has a successor");
        Walk::new(self, Some(Commit { lookups, tables })).run(packet)
    }
}

impl PacketPath {
    /// Returns the number of set lookups.
    pub fn lookups(&self) -> usize {
        self.chains.iter().map(|chain| chain.trace.lookups).sum()
    }
}

/// A transaction that takes effect after a number of set lookups.
#[derive(Clone, Copy)]
struct Commit<'a> {
    lookups: usize,
    tables: &'a [&'a Table],
}

struct Walk<'a> {
    host: &'a TracedHost<'a>,
    commit: Option<Commit<'a>>,
    /// The base chains of all hooks in the order in which packets traverse them, each with the position of its table.
    base_chains: Vec<(usize, NamedBaseChain<'a>)>,
}

/// The paths so far, with their probabilities.
type Paths = Vec<(PacketPath, f64)>;

/// The base chains of a hook that a packet traverses.
#[derive(Clone, Copy, PartialEq)]
enum Chains {
    All,
    /// Those of type `filter`: NAT was decided before.
    Filters,
}

impl<'a> Walk<'a> {
    fn new(host: &'a TracedHost<'a>, commit: Option<Commit<'a>>) -> Self {
        let tables = host.tables.iter().enumerate();
        let base_chains = tables.flat_map(|(at, table)| table.base_chains().map(move |chain| (at, chain)));
        let mut base_chains: Vec<_> = base_chains.collect();
        base_chains.sort_by_key(|(_, (_, _, base))| base.priority);
        Walk { host, commit, base_chains }
    }

    fn run(&self, mut packet: Packet) -> Paths {
        packet.source_is_local = (self.host.is_local)(packet.source);
        let is_received = packet.input.is_some();
        let path = PacketPath { fate: Fate::Accepted, packet, masqueraded: false, chains: Vec::new() };
        let mut paths = vec![(path, 1.0)];
        if is_received {
            paths = self.traverse(Hook::Prerouting, Chains::All, paths);
            let (mut local, forwarded) = self.split_by_destination(paths);
            let forwarded = self.traverse(Hook::Forward, Chains::All, forwarded);
            local = self.traverse(Hook::Input, Chains::All, local);
            local.extend(self.traverse(Hook::Postrouting, Chains::All, forwarded));
            return local;
        }
        paths = self.traverse(Hook::Output, Chains::All, paths);
        paths = self.traverse(Hook::Postrouting, Chains::All, paths);
        let (mut local, mut sent) = self.split_by_destination(paths);
        let (index, name) = LOOPBACK;
        local.iter_mut().for_each(|(path, _)| path.packet.input = Some((index, name.into())));
        local = self.traverse(Hook::Prerouting, Chains::Filters, local);
        sent.extend(self.traverse(Hook::Input, Chains::All, local));
        sent
    }

    /// Returns the paths to addresses of the host, and all others.
    fn split_by_destination(&self, paths: Paths) -> (Paths, Paths) {
        paths.into_iter().partition(|(path, _)| (self.host.is_local)(path.packet.destination))
    }

    fn traverse(&self, hook: Hook, which: Chains, mut paths: Paths) -> Paths {
        if paths.is_empty() {
            return paths;
        }
        let is_traversed =
            |base: &BaseChain| base.hook == hook && (which == Chains::All || base.kind == ChainKind::Filter);
        for &(at, (name, chain, base)) in &self.base_chains {
            if !is_traversed(&base) {
                continue;
            }
            let table = self.host.tables[at];
            let mut next = Paths::new();
            for (mut path, probability) in paths {
                if path.fate != Fate::Accepted {
                    next.push((path, probability));
                    continue;
                }
                path.packet.destination_is_local = (self.host.is_local)(path.packet.destination);
                let commit = self.commit.map(|Commit { lookups, tables }| ConcurrentCommit {
                    lookups: lookups.saturating_sub(path.lookups()),
                    table: tables[at],
                });
                let (packet, trace) = (path.packet.clone(), Trace::new(&path.packet));
                let numbers = RandomNumbers::All;
                let mut branches = Branches::trace(table, commit, &packet, (name, chain), trace, numbers);
                let last = branches.pop();
                for (trace, share) in branches {
                    let branch = self.follow(path.clone(), hook, at, name, trace);
                    next.push((branch, probability * share));
                }
                next.extend(
                    last.map(|(trace, share)| {
                        (self.follow(path, hook, at, name, trace), probability * share)
                    }),
                );
            }
            paths = next;
        }
        paths
    }

    /// Appends the traversal of a base chain to a path.
    fn follow(
        &self,
        mut path: PacketPath,
        hook: Hook,
        table: usize,
        chain: &Arc<str>,
        trace: Trace,
    ) -> PacketPath {
        path.fate = trace.fate.clone();
        path.packet.mark = trace.mark;
        if let Some((address, port)) = trace.dnat {
            path.packet.apply_dnat(address, port);
            path.packet.destination_is_local = (self.host.is_local)(address);
        }
        path.masqueraded |= trace.masqueraded;
        path.chains.push(ChainTraversal { hook, table, chain: Arc::clone(chain), trace });
        path
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

    /// Translates packets to the Service to a target, and drops packets to an address in a later hook.
    fn table(target: &str, drops: (Hook, &str)) -> Table {
        let base = |kind, hook, priority, rule| Chain {
            base: Some(BaseChain { kind, hook, priority }),
            ..Chain::new(vec![rule])
        };
        let to = |address| Rule::new().is(Field::Destination(Family::V4), ip(address));
        let dnat = || {
            let (value, address) = (Value::from(ip(target)), Register(1));
            let load = Expression::Immediate { value, to: address };
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
    fn later_hooks_see_the_translated_destination() {
        use Hook::{Forward, Input, Output, Postrouting, Prerouting};
        let received = Some((7, "eth0".to_owned()));
        let rows = [
            ("forwarded after translation", &received, POD, (Forward, POD), Some(Forward)),
            ("forward does not see the old destination", &received, POD, (Forward, SERVICE), None),
            ("to this host", &received, OWN, (Input, OWN), Some(Input)),
            ("input packets are not forwarded", &received, OWN, (Postrouting, OWN), None),
            ("translated within the output hook", &None, POD, (Output, POD), Some(Output)),
            ("to itself over the loopback interface", &None, OWN, (Input, OWN), Some(Input)),
            (
                "filter chains of prerouting see loopback packets",
                &None,
                OWN,
                (Prerouting, OWN),
                Some(Prerouting),
            ),
            ("packets that are sent skip prerouting", &None, POD, (Prerouting, POD), None),
        ];
        for (name, input, target, drops, dropped) in rows {
            let table = table(target, drops);
            let host = TracedHost { tables: &[&table], is_local: &|address| address == ip(OWN) };
            let packet = Packet { input: input.clone(), ..Packet::new(ip(OWN), ip(SERVICE), 6, 80) };
            let paths = host.paths(packet);
            let [(path, _)] = &paths[..] else { panic!("{name}: no random number is drawn") };
            let end = path.chains.last().map(|chain| chain.hook);
            assert_eq!(path.fate == Fate::Dropped, dropped.is_some(), "{name}: {path:?}");
            assert!(dropped.is_none() || end == dropped, "{name}: {path:?}");
            assert_eq!(path.packet.destination, ip(target), "{name}");
        }
    }
}
