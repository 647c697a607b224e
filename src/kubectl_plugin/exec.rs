//! Runs a command in a pod with the terminal of this process.

use std::process::{ExitCode, ExitStatus, Stdio};

use super::PluginError;
use super::arguments::Arguments;
use super::kubectl::{self, KubectlError};
use super::pods::DaemonPod;

/// Runs a command, and returns its exit status. Output is passed on as it comes.
///
/// # Errors
/// kubectl cannot be started.
pub(super) fn run(arguments: &Arguments, pod: &DaemonPod) -> Result<ExitCode, PluginError> {
    let command = pod.exec_arguments(&arguments.command, &arguments.command_arguments, false);
    let mut child = kubectl::start(arguments, &command, Stdio::null(), Stdio::inherit())?;
    Ok(exit_code(child.wait().map_err(KubectlError::Start)?))
}

/// Returns the exit status of kubectl, which is that of the command, as an exit status of this process.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => ExitCode::from(code),
        None => ExitCode::from(crate::FAILED),
    }
}
