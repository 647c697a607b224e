//! The `portcullis-lab` program: builds throwaway clusters from manifests, with a Portcullis daemon on every node.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
