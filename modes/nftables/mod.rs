//! nftables mode: Services by one flat table a family, `portcullis`, written over netlink.
//!
//! ```text
//! services ── daddr . proto . dport ─► @service-ips ──────► service-ips         tries one after another:
//!          └─ proto . dport ─────────► @service-nodeports ► service-nodeports
//!
//! service-3    dnat to  daddr . proto . dport . (random of 3)  map @service-3      all Services with three endpoints
//! external-3   the same, and mark
//! nodeport-3   dnat to  proto . dport . (random of 3)  map @nodeport-3, and mark
//! ```
//! A Service is elements of a few maps and no chain of its own, so what a change costs does not grow with the
//! cluster. See `docs/nftables.md`.

mod affinity;
mod base_chains;
mod difference;
mod dispatch;
mod entries;
mod family_sync;
mod family_table;
mod forget;
mod kernel;
mod loopback_guard;
mod names;
mod picking;
mod proxier;
mod render;
mod requirement;
mod search;
mod settings;

pub use difference::{Subject, TableDifference, table_differences};
pub use family_table::FamilyTable;
pub(crate) use loopback_guard::{GUARD_TABLE, add_table as add_guard_table};
pub use names::TABLE;
pub use proxier::Proxier;
pub use render::render;
pub use requirement::{RequirementError, check as check_requirements};
