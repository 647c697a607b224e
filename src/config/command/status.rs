//! Arguments of `portcullis status`.

use clap::Args;

use super::OutputFormat;

/// Print the state of the daemon that runs on this node. Its socket is in the [configuration](crate::config::Config).
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Print it again every two seconds
    #[arg(long, short)]
    pub watch: bool,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}
