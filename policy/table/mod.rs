//! Policies as nf_tables tables, and their enforcer.
//!
//! The table `inet portcullis-policy` evaluates the first packet of each connection, after DNAT and before masquerading:
//!
//! ```text
//! postrouting (just before srcnat) ── established, related, neighbour discovery, this node's own: accept
//!   └► egress ── source has a profile ─► profile-out-… ─┬─ Admin rules ── Accept ┐   Deny: count, drop
//!        │                                              ├─ itself ───────────────┤
//!        │                                              ├─ a policy's rule ──────┤   no match: count, drop
//!        ▼                                              └─ Baseline rules ───────┤
//!      ingress ◄──────────────────────────────────────────── goto ───────────────┘
//!        ├── destination has a profile ─► profile-in-… ── the same, with accept in place of goto
//!        └── accept
//! prerouting ── interface of a pod, and a source that is not the pod's address ─► profile-out-…
//! input (after IPVS) ── source has ClusterNetworkPolicies ─► node-… ── their rules for connections to this node
//! ```
//! Pods that the same policies select share a profile. A new pod costs elements only: one in the map of profiles, and one
//! in each peer set that contains it.
//!
//! [`PolicyTable`] is the only writer of the desired tables. The other modules are pure functions from compiled policies
//! to chains, sets and elements.

mod base_chains;
mod base_sets;
mod bridge_table;
mod classes;
mod diff;
mod edit;
mod enforcer;
mod group_sets;
mod interface_elements;
mod interfaces;
mod label;
mod layouts;
mod lookups;
mod member_sets;
mod names;
mod numbers;
mod observed;
mod options;
mod peer_phases;
mod peers;
mod pending_removals;
mod pod_elements;
mod policy_table;
mod priority;
mod profile_chain;
mod profile_numbers;
mod rejected_policies;
mod rules;
mod shared_sets;
mod tiers;

pub use diff::{TableDifference, differences};
pub use enforcer::{DropCounter, EnforceError, Enforcer, has_bridge_family, read, read_drop_counters};
pub use label::DropLabels;
pub use layouts::EvaluationCounts;
pub use lookups::LookedUp;
pub use names::{
    CUT, INPUT_PRIORITY, OTHER_PROTOCOLS, POSTROUTING_PRIORITY, ROUTER_ADVERTISEMENTS, TABLE, UNKNOWN_PODS,
};
pub use observed::ObservedDrop;
pub use options::{DropLog, PolicyOptions, UnknownPods};
pub use policy_table::PolicyTable;
pub use rejected_policies::{RejectedPolicies, SearchStep};
