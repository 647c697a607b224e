//! Arguments of `portcullis services`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Show the Services of this node: frontends, endpoints, and why a Service does not answer.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Show the details of this Service: NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Namespace [default: with an API server that of the kubeconfig's context or the service account, else "default"]
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Show the Services of all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Show only errors and warnings; the exit status is 1 if there are any
    #[arg(long)]
    pub problems: bool,
    /// Show only Services with this text in their name, or with this address, port or node port
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Node that serves the Services, as the cluster's objects say; the running daemon is not asked [default: this node]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// YAML file with the interfaces and addresses of that node [default: those of this machine or of the Node object]
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: ServicesFormat,
    /// The command line names a source of the cluster state, so the running daemon is not asked.
    #[arg(skip)]
    pub has_source: bool,
}

/// Output format of `portcullis services`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServicesFormat {
    /// Text for people
    #[default]
    Text,
    /// Text with more columns
    Wide,
    /// JSON for programs
    Json,
    /// YAML for programs
    Yaml,
}
