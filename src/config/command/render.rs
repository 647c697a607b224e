//! Arguments of `portcullis render`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::OutputFormat;

/// Print the rules for a cluster state. The source of the state and the settings are in the
/// [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Render {
    /// YAML file with the node's interfaces and addresses [default: those of this machine]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub host: Option<PathBuf>,
    /// Print only the rules of this IP family, without the NetworkPolicy table, which is for both families
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Print only the NetworkPolicy table, in nft syntax (requires --network-policy)
    #[arg(long, conflicts_with = "family")]
    pub only_policies: bool,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

/// An IP family on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4
    #[value(name = "ipv4", alias = "v4", alias = "4")]
    Ipv4,
    /// IPv6
    #[value(name = "ipv6", alias = "v6", alias = "6")]
    Ipv6,
}
