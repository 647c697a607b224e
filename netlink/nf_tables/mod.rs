//! nf_tables: rules, sets and maps, changed in transactions of which all or nothing happens.
//!
//! ```text
//! ManagedTable ── edits ──► Difference ──► Transaction ──► kernel
//!      │                        ▲                             │
//!      └── Table (as wanted) ───┴── Table (as it is) ◄─ dump ─┘     Events: who else changed something
//! ```
//! [`Table`], [`Chain`], [`Rule`], [`SetSpec`] and [`Element`] are values; printed, they read as `nft` lists them.

mod chains;
mod comment;
mod data;
mod data_type;
mod decode;
mod difference;
mod dump;
mod element;
mod encode;
mod events;
mod expression;
mod field;
mod generation;
mod journey;
mod managed;
mod packet;
mod print;
mod print_rule;
mod refusal;
mod rule;
mod set;
mod set_flags;
mod table;
mod trace;
mod transaction;
mod wire;
mod written;

pub use chains::{ChainUse, chains};
pub use data::{Register, Value, Verdict};
pub use data_type::DataType;
pub use difference::Extent;
pub use dump::{Foreign, read, read_counters, read_elements};
pub use element::{Element, ElementData, Key};
pub use events::{Batch as EventBatch, Events};
pub use expression::{Comparison, DynamicUpdate, Expression, LookupResult, RateUnit, Reject};
pub use field::{
    CT_STATUS_DNAT, Ct, CtState, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Field, Header, Meta, TCP_SYN,
    TCP_SYN_ECN,
};
pub use generation::{generation, open};
pub use journey::{Journey, Machine, Passage};
pub use managed::{Committed, ManagedTable};
pub use packet::Packet;
pub use rule::Rule;
pub use set::SetSpec;
pub use table::{BaseChain, Chain, ChainKind, Hook, Set, Table, TableFamily, delete_table};
pub use trace::{Fate, Trace};
pub use transaction::Transaction;
pub use written::Written;
