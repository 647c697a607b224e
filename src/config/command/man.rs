//! `portcullis man`.

use clap::Args;

/// Print a page of the manual.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Man {
    /// The subcommand whose page it is, as in render, or policy matrix [default: portcullis itself, with all settings]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
}
