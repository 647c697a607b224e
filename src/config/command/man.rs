//! Arguments of `portcullis man`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Print a manual page.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Man {
    /// Subcommand, such as render or policy matrix [default: the page of portcullis, with all settings]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write all pages to a folder instead, as portcullis.1, portcullis-render.1 and so on
    #[arg(long, value_name = "FOLDER", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    pub all_to: Option<PathBuf>,
}
