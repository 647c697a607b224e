//! Arguments of `portcullis status`.

use std::time::Duration;

use clap::Args;

use super::OutputFormat;

/// Print the state of the daemon that runs on this node. Its socket is in the [configuration](crate::config::Config).
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Print it again every two seconds
    #[arg(long, short)]
    pub watch: bool,
    /// Print what happened since this time ago, such as 10m, in place of the state: syncs, failures, changes by other processes,
    /// isolated objects, and errors of the source. The daemon keeps the last 320 entries
    #[arg(long, value_name = "DURATION", value_parser = super::observe::duration, conflicts_with = "watch")]
    pub since: Option<Duration>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}
