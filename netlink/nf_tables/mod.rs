//! nf_tables: rules, sets and maps, changed in atomic transactions.
//!
//! ```text
//! DesiredTable ── edits ────► TableDiff ──► Transaction ──► kernel      RulesetEvents ◄── changes by other processes
//!      │                        ▲                             │
//!      └── Table (desired) ─────┴──── Table (found) ◄─ dump ──┘
//! ```
//! [`Table`], [`Chain`], [`Rule`], [`SetSpec`] and [`Element`] are plain values, which print as `nft` lists them.

mod blocking_objects;
mod chain_use;
mod comment;
mod commit;
mod constants;
mod data;
mod data_type;
mod decode;
mod decode_object;
mod desired_table;
mod dropping_chains;
mod dump;
mod element;
mod element_records;
mod elements;
mod encode;
mod event_pause;
mod events;
mod expression;
mod field;
mod generation;
mod own_commits;
mod packet_trace;
mod packets_in_progress;
mod print;
mod print_rule;
mod range_order;
mod reachable_chains;
mod rejected_object;
mod rule;
mod rule_listing;
mod set;
mod set_flags;
mod table;
mod table_diff;
#[cfg(any(test, feature = "trace"))]
mod trace;
mod transaction;

pub use blocking_objects::remove_blocking_objects;
pub use chain_use::{ChainUse, list_chains};
pub use commit::{CommitSummary, check_edits, check_replacement, commit, compare};
pub use data::{Register, Value, Verdict};
pub use data_type::DataType;
pub use desired_table::DesiredTable;
pub use dropping_chains::{DroppingChain, chains_that_end_with_a_drop, dropping_chains};
pub use dump::{UnknownObjects, has_table, read, read_counters, read_element_counters, read_elements};
pub use element::{Element, ElementData, Key};
pub use elements::{Elements, Iter as ElementsIter};
pub use events::{RulesetEvents, TransactionEvent};
pub use expression::{Comparison, DynsetOp, Expression, LookupResult, RateUnit, Reject};
pub use field::{
    CT_STATUS_DNAT, Ct, CtState, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Field, Header, Meta, TCP_SYN,
    TCP_SYN_ECN,
};
pub use generation::{generation, open};
pub use own_commits::committed_transactions;
pub use packet_trace::{
    Marker, PacketTracer, TraceEvent, TraceFamily, TraceStep, TraceVerdict, TracedAddresses, TracedDirection,
    TracedFlow,
};
pub use packets_in_progress::wait_for_packets;
pub use reachable_chains::reachable_chains;
pub use rule::Rule;
pub use rule_listing::{ListedRule, delete_rules, list_rules, rules_of_chain};
pub use set::SetSpec;
pub use table::{BaseChain, Chain, ChainKind, Hook, Set, Table, TableFamily, delete_table};
pub use table_diff::ChangeCounts;
#[cfg(any(test, feature = "trace"))]
pub use trace::{ChainTraversal, Fate, Packet, PacketPath, SetWrite, Trace, TracedHost};
pub use transaction::Transaction;
