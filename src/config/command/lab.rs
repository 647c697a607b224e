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
    Up(LabCluster),
    /// What `lab up` leaves behind to keep the cluster; ends with it
    #[command(hide = true)]
    Keep,
    /// Bring the cluster that is up to another state of its manifests
    Apply {
        /// The manifests
        folder: PathBuf,
    },
    /// Take down the cluster that is up
    Down,
    /// Run a command in a pod of the cluster that is up
    Exec {
        /// The pod: its name, or NAMESPACE/NAME
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
}

fn mode(name: &str) -> Result<ProxyMode, String> {
    let known = || ProxyMode::ALL.map(ProxyMode::name).join(", ");
    ProxyMode::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}
