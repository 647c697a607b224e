//! `portcullis render`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Print the rules for a state of the cluster. State and settings are in the
/// [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Render {
    /// The node's interfaces and addresses, in YAML; without it, those of this machine
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// Print the rules of this address family only, and not the table of policies, which is for both
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Print the table of policies only, as nft takes it (needs --network-policy)
    #[arg(long, conflicts_with = "family")]
    pub only_policies: bool,
}

/// An address family, as asked for on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4
    #[value(name = "ipv4", alias = "v4", alias = "4")]
    Ipv4,
    /// IPv6
    #[value(name = "ipv6", alias = "v6", alias = "6")]
    Ipv6,
}
