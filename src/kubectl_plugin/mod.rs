//! `kubectl portcullis`: the commands of this program for a node of a cluster, run in the pod of its daemon.
//!
//! ```text
//! kubectl portcullis --node NODE COMMAND … ─► kubectl get pods ─► kubectl exec POD -- portcullis COMMAND <settings of the daemon> …
//! kubectl portcullis status ─────────────────► the same on all nodes ─► one line for each node, worst first
//! ```
//!
//! It is this program under the name `kubectl-portcullis`, which kubectl finds on `PATH`.

mod arguments;
mod bundle;
mod exec;
mod kubectl;
mod overview;
mod pods;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use self::arguments::Arguments;
use self::kubectl::KubectlError;
use self::pods::DaemonPods;

/// The name under which kubectl finds the program.
const NAME: &str = "kubectl-portcullis";

/// An error of the plugin itself.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    /// kubectl failed.
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    /// No pod runs the daemon.
    #[error(
        "no pod has the labels {0}; pass those of the DaemonSet with --selector, and its namespace with --daemon-namespace"
    )]
    NoPods(String),
    /// No pod of the daemon is on the node.
    #[error("no pod of the daemon runs on node {node}; there are some on {known}")]
    NoPodOnNode {
        /// The node.
        node: String,
        /// The nodes with pods.
        known: String,
    },
    /// The command is for one node.
    #[error("{command} is for one node; expected --node NODE before it, one of {known}")]
    NodeRequired {
        /// The command.
        command: String,
        /// The nodes with pods.
        known: String,
    },
    /// A local file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Returns true if kubectl started the program as its plugin.
pub fn is_invoked_as_plugin(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Runs the plugin with a command line, including the program name. Exits after printing the help or a usage error.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => crate::config::exit(&error),
    };
    perform(&arguments).unwrap_or_else(|error| {
        crate::logging::final_message(&format!("{NAME}: {}", crate::error_chain::describe(&error)));
        ExitCode::from(crate::FAILED)
    })
}

fn perform(arguments: &Arguments) -> Result<ExitCode, PluginError> {
    let pods = DaemonPods::find(arguments)?;
    let Some(node) = &arguments.node else {
        if arguments.command == "status" {
            return overview::run(arguments, &pods);
        }
        return Err(PluginError::NodeRequired {
            command: arguments.command.clone(),
            known: pods.node_names(),
        });
    };
    let pod = pods.on_node(node)?;
    match arguments.command.as_str() {
        "bundle" => bundle::run(arguments, pod),
        _ => exec::run(arguments, pod),
    }
}
