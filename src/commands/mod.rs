//! The subcommands, one per file.

pub mod cleanup;
mod cluster_lookup;
pub mod completions;
pub mod diff;
pub mod explain;
pub mod lab;
pub mod man;
pub mod migrate;
pub mod policy;
pub mod render;
pub mod status;
mod unified_diff;
