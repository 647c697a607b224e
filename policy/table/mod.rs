//! Policies as an nf_tables table, and how it is kept in the kernel.
//!
//! One table `inet portcullis-policy` judges the first packet of each connection, where addresses of Services are
//! already replaced and the source is not yet masqueraded:
//!
//! ```text
//! postrouting (just before srcnat) ── established, related, neighbour discovery, this node's own: accept
//!   └► egress ── source is a judged pod ─► profile-out-… ─┬─ Admin rules ── Accept ┐   Deny: count, drop
//!        │                                                ├─ itself ───────────────┤
//!        │                                                ├─ a policy's rule ──────┤   no rule: count, drop
//!        ▼                                                └─ Baseline rules ───────┤
//!      ingress ◄────────────────────────────────────────────── goto ───────────────┘
//!        ├── destination is a judged pod ─► profile-in-… ── the same, and accept where it says goto
//!        └── accept
//! prerouting ── an interface of a judged pod, and a source that is none of the pod's ─► profile-out-…
//! input (behind IPVS) ── pods that ClusterNetworkPolicies judge ─► node-… ── their rules towards this node
//! ```
//! Pods that the same policies select share a profile. What a pod's start costs is elements: one in the map that leads
//! to its profile, one in each set of peers that it belongs to.

mod diff;
mod enforcer;
mod interfaces;
mod label;
mod layout;
mod names;
mod options;
mod profile_chain;
mod rules;
mod shared_sets;
mod tiers;

pub use diff::{TableDifference, differences};
pub use enforcer::{DropCounter, EnforceError, Enforcer, has_bridge_family, read, read_drop_counters};
pub use label::DropLabels;
pub use layout::PolicyTable;
pub use names::{INPUT_PRIORITY, POSTROUTING_PRIORITY, TABLE};
pub use options::{DropLog, PolicyOptions, UnknownPods};
