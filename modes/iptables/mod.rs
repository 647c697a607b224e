//! iptables mode: the rules of kube-proxy v1.36, with the same names.
//!
//! ```text
//! Desired ─► service_renderer, base_rules ─► text ─► family_proxier ─► kernel (iptables-restore)
//!                                            └──► rule_set (render, diff)
//! ```

mod base_rules;
mod batches;
mod blocking_rules;
mod bulk;
mod chain;
mod chains_in_use;
mod compose;
mod confirmation;
mod diff;
mod drift;
mod error;
mod family_proxier;
mod features;
mod incremental;
mod kernel;
mod nfacct;
mod nft_tables;
mod own_writes;
mod plan;
mod proxier;
mod rejection_search;
mod rule;
mod rule_kinds;
mod rule_set;
pub(crate) mod saved_rule;
mod script;
mod service_renderer;
mod service_rules;
mod shared_order;
mod snapshot;
mod tool;
mod tool_kernel;
mod unmarked_return;

pub use blocking_rules::remove_blocking_rules;
pub use chain::{ChainName, Table, is_service_chain};
pub use diff::{ChainDiff, RuleDiff, RuleLine, RuleOwner, compare_rules};
pub use error::ToolError;
pub use features::IptablesFeatures;
pub use kernel::{Fingerprint, Flavour, IptablesKernel};
pub use nfacct::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
pub use proxier::IptablesProxier;
pub use rule_set::RuleSet;
pub use tool::Tools;
pub use unmarked_return::restore_unmarked_return;

pub(crate) use base_rules::{BaseChain, Jump, guard_loopback, jumps, write_loopback_guard};
pub(crate) use kernel::has_synced_since;
pub(crate) use own_writes::{OwnWrites, WriteInterval};
pub(crate) use plan::base_differs;
pub(crate) use rule::{Rule, host};
pub(crate) use rule_set::is_ours;
pub(crate) use service_renderer::loopback_block;
pub(crate) use snapshot::Snapshot;
pub(crate) use tool::in_netlink;
