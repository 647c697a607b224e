//! Subcommands, one a file.

pub mod lab;
pub mod render;
