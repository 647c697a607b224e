//! The reaper: a shell process that removes the lab when its owner exits.
//!
//! The reaper reads from a pipe whose write end the owner holds. The kernel closes the pipe when the owner dies, also by
//! SIGKILL; the owner closes it for a normal shutdown. Both cases run the same script, so every test also covers the
//! crash case.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::error::{Error, Result};

const SCRIPT: &str = include_str!("reaper.sh");

/// Handle of a reaper process, with the write end of its pipe.
#[derive(Debug)]
pub(crate) struct Reaper {
    child: Mutex<Option<Child>>,
}

impl Reaper {
    /// Starts a process that will remove all network namespaces with a prefix, and a folder.
    ///
    /// # Errors
    /// `sh` cannot be started.
    pub(crate) fn start(prefix: &str, folder: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "portcullis-lab-reaper", prefix]).arg(folder);
        command.arg(std::process::id().to_string());
        // A process group of its own: Ctrl-C in a terminal must not reach the reaper.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| Error::Command { command: "sh".into(), message: error.to_string() })?;
        Ok(Self { child: Mutex::new(Some(child)) })
    }

    /// Removes the lab now and waits until it is removed. A second call does nothing.
    ///
    /// # Errors
    /// The reaper failed or wrote to standard error.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut slot = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(mut child) = slot.take() else { return Ok(()) };
        drop(child.stdin.take());
        let failed = |message: String| Error::Command { command: "the lab's reaper".into(), message };
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // A failed read leaves the exit status to decide.
            let _ = stderr.read_to_string(&mut errors);
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() && errors.trim().is_empty() {
            Ok(())
        } else {
            Err(failed(format!("{status}: {}", errors.trim())))
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "lab was not removed completely");
        }
    }
}
