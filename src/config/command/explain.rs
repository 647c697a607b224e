//! `portcullis explain`.

use clap::{Args, ValueEnum};

use super::AddressFamily;

/// Say whether a connection arrives, where, and by which rules. State (manifests or an API server) and settings
/// are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// The client: NAMESPACE/POD, node/NAME, or an address
    #[arg(long, value_name = "WHO")]
    pub from: String,
    /// The destination: NAMESPACE/POD, NAMESPACE/SERVICE, node/NAME or an address, with :PORT (a number or a
    /// name) and /PROTOCOL where they are needed; pod/… and service/… where both have the name
    #[arg(long, value_name = "WHERE")]
    pub to: String,
    /// The destination's port: a number or a name, as in 80, 53/udp, http
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// The protocol [default: what the destination has on that port, else tcp]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<ProtocolArgument>,
    /// Explain this address family only
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// The node whose rules lead a client that is on no node [default: this node]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// How to print the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

/// A protocol, as asked for on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolArgument {
    /// TCP
    #[value(alias = "TCP")]
    Tcp,
    /// UDP
    #[value(alias = "UDP")]
    Udp,
    /// SCTP
    #[value(alias = "SCTP")]
    Sctp,
}

/// How an answer is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}
