//! Arguments of `portcullis bundle`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Write a support archive about this node, without secrets. The settings are in the
/// [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Archive to write, or - for standard output [default: portcullis-NODE-TIME.tar.gz in the current folder]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// File of the daemon's log, or - for standard input; may be repeated [default: the journal]
    #[arg(long = "log-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_files: Vec<PathBuf>,
    /// Unit of the daemon in the journal
    #[arg(long, value_name = "UNIT", default_value = "portcullis.service")]
    pub unit: String,
}
