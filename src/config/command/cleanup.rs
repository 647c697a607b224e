//! Arguments of `portcullis cleanup`.

use clap::Args;

use super::OutputFormat;

/// Remove the rules of all proxy modes from the kernel.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Remove the NetworkPolicy table even while another process enforces policies (`--force`).
    #[arg(skip)]
    pub force: bool,
    /// Print what would be removed, kept and left, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}
