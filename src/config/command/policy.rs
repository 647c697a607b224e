//! `portcullis policy`.

use std::net::IpAddr;

use clap::Args;

use super::{AddressFamily, OutputFormat};

/// What policies come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Print who can talk to whom.
    Matrix(Matrix),
}

/// Print who can talk to whom. State (manifests or an API server) and settings are in the
/// [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Pods of this namespace only; may be repeated
    #[arg(long = "namespace", short = 'n', value_name = "NAME")]
    pub namespaces: Vec<String>,
    /// Pods with these labels only: KEY=VALUE, KEY!=VALUE, KEY or !KEY, several with commas between
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub selector: Option<String>,
    /// A port to ask for, as in 80, 53/udp; may be repeated [default: all ports that some pod names or some
    /// Service leads to]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<String>,
    /// Add a client and destination that is no pod; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub external: Vec<IpAddr>,
    /// Ask for this address family only
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// A line and a column for each pod, also for those that reach the same and are reached by the same
    #[arg(long)]
    pub no_group: bool,
    /// How to print the tables; json never groups pods
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}
