//! `portcullis lab`.

use std::path::PathBuf;

use clap::Subcommand;

/// Build a throwaway cluster in network namespaces.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Lab {
    /// Build the cluster of a folder of manifests, try every Service from everywhere, print who answered, and take it down
    Run {
        /// The manifests
        folder: PathBuf,
    },
    /// Build the cluster of a folder of manifests, and keep it
    Up {
        /// The manifests
        folder: PathBuf,
    },
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
