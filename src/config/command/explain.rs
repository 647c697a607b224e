//! Arguments of `portcullis explain`.

use clap::{Args, ValueEnum};

use super::AddressFamily;

/// Explain whether a connection is delivered, where, and by which rules. The source of the cluster state (manifests or
/// an API server) and the settings are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// Client: NAMESPACE/POD, node/NAME, or an IP address
    #[arg(long, value_name = "CLIENT")]
    pub from: String,
    /// Destination: NAMESPACE/POD, NAMESPACE/SERVICE, node/NAME or an IP address, optionally with :PORT (a number or a
    /// name) and /PROTOCOL; the prefixes pod/ and service/ distinguish a pod and a Service of the same name
    #[arg(long, value_name = "DESTINATION")]
    pub to: String,
    /// Destination port: a number or a name, such as 80, 53/udp, http
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Protocol [default: the destination's protocol on that port, else tcp]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<ProtocolArgument>,
    /// Explain only this IP family
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Node that receives the connection of a client outside of the cluster [default: this node]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

/// A protocol on the command line.
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

/// Output format.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// Text for people
    Text,
    /// JSON for programs
    Json,
}
