//! Subcommands, one a file.

pub mod cleanup;
pub mod diff;
pub mod explain;
pub mod lab;
pub mod migrate;
pub mod policy;
pub mod render;
mod unified;
mod world;
