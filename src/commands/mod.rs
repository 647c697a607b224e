//! Subcommands, one a file.

pub mod cleanup;
pub mod completions;
pub mod diff;
pub mod explain;
pub mod lab;
pub mod man;
pub mod migrate;
pub mod policy;
pub mod render;
mod unified;
mod world;
