//! nftables mode: one table per family, `portcullis`, written over netlink.
//!
//! ```text
//! services ── daddr . proto . dport ─► @service-ips ──────► chain service-ips         jumps to the chains below
//!          └─ proto . dport ─────────► @service-nodeports ► chain service-nodeports
//!
//! service-3    dnat to  daddr . proto . dport . (random of 3)  map @service-3      all Services with three endpoints
//! external-3   the same, and mark for masquerading
//! nodeport-3   dnat to  proto . dport . (random of 3)  map @nodeport-3, and mark for masquerading
//! ```
//! A Service is a few elements of shared maps and has no chain of its own, so the cost of a change does not grow with the
//! cluster. See `docs/nftables.md`.

mod affinity;
mod base_chains;
mod blocking_objects;
mod diff;
mod dispatch;
mod dispatch_by_count;
mod dispatch_steps;
mod endpoint_map;
mod loopback_guard;
mod names;
mod prerequisites;
mod proxier;
mod render;
mod service_counters;
mod service_elements;
mod service_table;
mod settings;
mod sync;

pub use blocking_objects::remove_blocking_objects;
pub use diff::{DiffOwner, ObjectDiff, diff_table, service_rules};
pub(crate) use loopback_guard::{GUARD_TABLE, add_table as add_guard_table};
pub use names::TABLE;
pub use prerequisites::{NftablesPrerequisiteError, check as check_prerequisites};
pub use proxier::NftablesProxier;
pub use render::render;
pub use service_counters::supports_service_counters;
pub(crate) use service_elements::merge_ranges;
pub use service_table::ServiceTable;
