//! The subcommands, one per file.

pub mod bundle;
pub mod cleanup;
mod cluster_lookup;
pub mod completions;
pub mod diff;
mod endpoints_v1;
pub(crate) mod exit_statuses;
pub mod explain;
pub mod lab;
pub mod man;
pub mod migrate;
pub mod observe;
pub mod pause;
pub mod policy;
pub mod render;
mod rules_printer;
pub mod services;
pub mod status;
mod unified_diff;
