//! The program: flags, configuration, sources, the loop, HTTP endpoints, subcommands.

pub mod config;
pub mod source;
