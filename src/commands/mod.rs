//! Subcommands, one a file.

pub mod cleanup;
pub mod diff;
pub mod lab;
pub mod render;
mod unified;
