//! Arguments of `portcullis policy`.

use std::net::IpAddr;

use clap::Args;

use super::{AddressFamily, OutputFormat};

/// Evaluate network policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Print the connectivity matrix.
    Matrix(Matrix),
}

/// Print which pods can connect to which. The source of the cluster state (manifests or an API server) and the settings
/// are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Only pods in this namespace; may be repeated
    #[arg(long = "namespace", short = 'n', value_name = "NAME")]
    pub namespaces: Vec<String>,
    /// Only pods with these labels: KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by commas
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub selector: Option<String>,
    /// Port to evaluate, such as 80 or 53/udp; may be repeated [default: all named ports of pods and target ports of
    /// Services]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<String>,
    /// Add an IP address outside of the cluster as client and destination; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub external: Vec<IpAddr>,
    /// Evaluate only this IP family
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Print one row and column per pod; do not group pods with the same connectivity
    #[arg(long)]
    pub no_group: bool,
    /// Output format; json and yaml never group pods
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

impl Matrix {
    /// Returns the arguments for the pods of a namespace, grouped; `port`: only this one.
    pub(crate) fn of_namespace(namespace: &str, port: Option<&str>) -> Self {
        Matrix {
            namespaces: vec![namespace.to_owned()],
            selector: None,
            ports: port.into_iter().map(str::to_owned).collect(),
            external: Vec::new(),
            family: None,
            no_group: false,
            output: OutputFormat::Text,
        }
    }
}
