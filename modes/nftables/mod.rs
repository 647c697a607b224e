//! nftables mode: Services by one flat table a family, `portcullis`, written over netlink.
//!
//! ```text
//! services ── daddr . proto . dport ─► @service-ips ─────── label 1 . 3 ─► service-3    as many endpoints as it says
//!          └─ proto . dport ─────────► @service-nodeports ── label 3 . 3 ─► nodeport-3   (shared by all such Services)
//!
//! service-3    dnat to  daddr . proto . dport . (random of 3)  map @endpoints
//! external-3   mark; the same
//! nodeport-3   mark; dnat to  proto . dport . (random of 3)  map @nodeport-endpoints
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
mod label;
mod names;
mod proxier;
mod render;
mod requirement;
mod settings;

pub use difference::{Subject, TableDifference, table_differences};
pub use family_table::FamilyTable;
pub use names::TABLE;
pub use proxier::Proxier;
pub use render::render;
pub use requirement::{RequirementError, check as check_requirements};
