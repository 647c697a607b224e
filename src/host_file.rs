//! A file that describes a node's interfaces, to render the rules of another machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use crate::bounded_file::{self, MAX_CONFIGURATION};
use crate::config::{limit_message, yaml_options};

/// The interfaces of a node, and the features of its tools.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// The interfaces, in the kernel's order.
    pub interfaces: Vec<Interface>,
    /// Commands that set up the host; for readers of the file only.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Its iptables can masquerade with `--random-fully`.
    #[serde(default = "yes")]
    pub random_fully: bool,
    /// Its kernel has nfacct.
    #[serde(default = "yes")]
    pub nfacct: bool,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, each with the length of its prefix.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// It is a bridge.
    #[serde(default)]
    pub bridge: bool,
}

/// Why a host file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is invalid.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The error, with its line.
        message: String,
    },
}

impl HostFile {
    /// Reads a file, in YAML.
    ///
    /// # Errors
    /// The file cannot be read, or has unknown fields or invalid addresses.
    pub fn read(path: &Path) -> Result<HostFile, HostFileError> {
        let text = bounded_file::read_to_string(path, MAX_CONFIGURATION)
            .map_err(|source| HostFileError::Io { path: path.to_owned(), source })?;
        serde_saphyr::from_str_with_options(&text, yaml_options()).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            let limit = limit_message(&error).map(|message| format!("line {line}: {message}"));
            HostFileError::Content {
                path: path.to_owned(),
                message: limit.unwrap_or_else(|| error.to_string()),
            }
        })
    }

    /// Returns the addresses of all interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interfaces.iter().flat_map(|i| &i.addresses).map(IpNet::addr)
    }
}

fn yes() -> bool {
    true
}
