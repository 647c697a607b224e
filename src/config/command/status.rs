//! Arguments of `portcullis status`.

use clap::{Args, ValueEnum};

/// Print the state of the daemon that runs on this node. Its socket is in the [configuration](crate::config::Config).
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Print it again every two seconds
    #[arg(long, short)]
    pub watch: bool,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: DocumentFormat,
}

/// Output format of commands that print a document of the local API.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// Text for people
    Text,
    /// JSON for programs
    Json,
    /// YAML
    Yaml,
}
