//! `portcullis diff`.

use std::path::PathBuf;

use clap::Args;

use super::AddressFamily;

/// Print how the kernel differs from what a state of the cluster asks for. State (manifests or an API
/// server) and settings are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The node's interfaces and addresses, in YAML; without it, those of this machine
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// Compare the rules of this address family only, and not the table of policies, which is for both
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
}
