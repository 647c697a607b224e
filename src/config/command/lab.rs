//! `portcullis lab`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::ProxyMode;

/// Build a throwaway cluster in network namespaces.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Lab {
    /// Build the cluster of a folder of manifests, try every Service from everywhere, print who answered, and take it down
    Run(LabCluster),
    /// Build the cluster of a folder of manifests, and keep it
    Up {
        /// The name of the lab; without one, some letters and digits
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<String>,
        /// What is built
        #[command(flatten)]
        cluster: LabCluster,
    },
    /// List the labs of this machine
    List,
    /// What `lab up` leaves behind to keep the cluster; ends with it
    #[command(hide = true)]
    Keep,
    /// Bring the cluster that is up to another state of its manifests
    Apply {
        /// Which lab
        #[command(flatten)]
        lab: LabName,
        /// The manifests
        folder: PathBuf,
    },
    /// Take down the cluster that is up
    Down(LabName),
    /// Print the log of the daemon of a node, or of all nodes
    Logs {
        /// Which lab
        #[command(flatten)]
        lab: LabName,
        /// The node
        node: Option<String>,
    },
    /// Run a command in a pod of the cluster that is up, with the exit status that a shell gives
    Exec {
        /// Which lab
        #[command(flatten)]
        lab: LabName,
        /// The pod: its name, or NAMESPACE/NAME; or a node, or "outside"
        pod: String,
        /// The command with its arguments, after --
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
}

/// What `lab` builds.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LabCluster {
    /// The manifests
    pub folder: PathBuf,
    /// How its nodes serve Services: iptables, ipvs or nftables
    #[arg(long, value_name = "MODE", default_value = "iptables", value_parser = mode)]
    pub mode: ProxyMode,
    /// More flags for the daemons, after --
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<String>,
}

/// The lab that a command is about.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct LabName {
    /// The name of the lab; needed if several are up
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
