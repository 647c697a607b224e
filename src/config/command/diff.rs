//! Arguments of `portcullis diff`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{AddressFamily, OutputFormat};

/// Print the differences between the kernel's rules and the rules for a cluster state. The source of the state
/// (manifests or an API server) and the settings are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// YAML file with the node's interfaces and addresses [default: those of this machine]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub host: Option<PathBuf>,
    /// Compare only the rules of this IP family, without the NetworkPolicy table, which is for both families
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}
