//! Arguments of `portcullis lab`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::ProxyMode;

/// Create a throwaway cluster in network namespaces.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Lab {
    /// Create the cluster of a folder of manifests, connect to every Service from every client, print the results, and
    /// delete the cluster
    Run(LabCluster),
    /// Create the cluster of a folder of manifests, and keep it
    Up {
        /// Name of the lab [default: generated]
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<String>,
        /// The cluster
        #[command(flatten)]
        cluster: LabCluster,
    },
    /// List the labs on this machine
    List,
    /// Process that `lab up` leaves running to keep the cluster
    #[command(hide = true)]
    Keep,
    /// Apply another version of the manifests to a running cluster
    Apply {
        /// The lab
        #[command(flatten)]
        lab: LabName,
        /// Folder of manifests
        folder: PathBuf,
    },
    /// Delete a running cluster
    Down(LabName),
    /// Print the log of the daemon on one node, or on all nodes
    Logs {
        /// The lab
        #[command(flatten)]
        lab: LabName,
        /// Name of the node
        node: Option<String>,
    },
    /// Run a command in a pod of a running cluster; exits with the status of the command, as a shell does
    Exec {
        /// The lab
        #[command(flatten)]
        lab: LabName,
        /// Pod (NAME or NAMESPACE/NAME), node, or "outside"
        pod: String,
        /// Command and arguments, after --
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
}

/// The cluster that `lab` creates.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LabCluster {
    /// Folder of manifests
    pub folder: PathBuf,
    /// Proxy mode of the nodes: iptables, ipvs or nftables
    #[arg(long, value_name = "MODE", default_value = "iptables", value_parser = mode)]
    pub mode: ProxyMode,
    /// Additional flags for the daemons, after --
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<String>,
}

/// Selects a lab by name.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct LabName {
    /// Name of the lab; required if several are running
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

fn name(name: &str) -> Result<String, String> {
    portcullis_lab::check_name(name).map(|()| name.to_owned())
}

fn mode(name: &str) -> Result<ProxyMode, String> {
    let known = || ProxyMode::ALL.map(ProxyMode::name).join(", ");
    ProxyMode::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}
