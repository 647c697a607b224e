//! `portcullis man`.

use std::path::PathBuf;

use clap::Args;

/// Print a page of the manual.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Man {
    /// The subcommand whose page it is, as in render, or policy matrix [default: portcullis itself, with all settings]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write all pages into a folder instead, as portcullis.1, portcullis-render.1 and so on
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub all_to: Option<PathBuf>,
}
