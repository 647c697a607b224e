//! The packet tracer: the evaluation of rules for a packet without a kernel, for tests.
//!
//! ```text
//! TracedHost::paths ─► each hook and base chain ─► Branches ─► Evaluator: one rule, one packet
//! ```
//! Expressions are evaluated as the kernel does. Random numbers (`numgen`, `jhash`) branch a trace: each value is evaluated,
//! and branches with equal effects are merged after each rule. So a Service costs as many branches as it has endpoints, however
//! many random numbers its rules draw. A trace does not change sets: it lists the writes of `dynset` expressions, which
//! [`Table::apply`] performs.

mod branches;
mod evaluate;
mod packet;
mod packet_path;
mod set_write;

use std::net::IpAddr;
use std::sync::Arc;

pub use packet::Packet;
pub use packet_path::{ChainTraversal, PacketPath, TracedHost};
pub use set_write::SetWrite;

use self::branches::{Branches, RandomNumbers};
use super::expression::Reject;
use super::table::{BaseChain, Chain, Hook, Table};

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
    /// The translated destination address, and the port if that is translated too.
    pub dnat: Option<(IpAddr, Option<u16>)>,
    /// A `masquerade` expression translates the source.
    pub masqueraded: bool,
    /// The packet mark after the last rule.
    pub mark: u32,
    /// The packet priority after the last rule.
    pub priority: u32,
    /// The number of set lookups.
    pub lookups: usize,
    /// The rules that matched: the chain, and the index of the rule in it.
    pub rules: Vec<(Arc<str>, usize)>,
    /// The writes to sets, in order.
    pub set_writes: Vec<SetWrite>,
    /// The named counters that counted the packet.
    pub counters: Vec<Arc<str>>,
    /// The prefixes with which the packet was logged to NFLOG.
    pub log_prefixes: Vec<Arc<str>>,
}

/// A base chain with its name.
type NamedBaseChain<'a> = (&'a Arc<str>, &'a Chain, BaseChain);

/// A transaction that takes effect during a trace. The kernel switches the generation between two lookups: later lookups
/// see the new elements, while the rules stay those with which the packet began.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConcurrentCommit<'a> {
    /// The number of lookups that see the old elements.
    pub(super) lookups: usize,
    /// The table after the transaction.
    pub(super) table: &'a Table,
}

impl Trace {
    fn new(packet: &Packet) -> Self {
        Trace {
            fate: Fate::Accepted,
            dnat: None,
            masqueraded: false,
            mark: packet.mark,
            priority: packet.priority,
            lookups: 0,
            rules: Vec::new(),
            set_writes: Vec::new(),
            counters: Vec::new(),
            log_prefixes: Vec::new(),
        }
    }
}

impl Table {
    /// Traces a packet through all base chains of a hook. `random` returns a number below its argument.
    ///
    /// # Panics
    /// If chains jump in a loop, which the kernel rejects.
    pub fn trace(&self, hook: Hook, packet: &Packet, random: &mut dyn FnMut(u32) -> u32) -> Trace {
        let (mut packet, mut trace) = (packet.clone(), Trace::new(packet));
        let mut chains: Vec<_> = self.base_chains().filter(|(_, _, base)| base.hook == hook).collect();
        chains.sort_by_key(|(_, _, base)| base.priority);
        for (name, chain, _) in chains {
            let numbers = RandomNumbers::Chosen(random);
            let branches = Branches::trace(self, None, &packet, (name, chain), trace, numbers);
            trace = branches.into_iter().next().map(|(trace, _)| trace).expect("one branch without choices");
            if trace.fate != Fate::Accepted {
                break;
            }
            if let Some((address, port)) = trace.dnat {
                packet.apply_dnat(address, port);
            }
        }
        trace
    }

    /// Returns the base chains of all hooks.
    fn base_chains(&self) -> impl Iterator<Item = NamedBaseChain<'_>> {
        self.chains.iter().filter_map(|(name, chain)| Some((name, chain, chain.base?)))
    }
}
