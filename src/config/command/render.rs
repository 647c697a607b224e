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
    /// Print the rules of this address family only
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
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
