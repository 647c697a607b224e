//! The reaper: a tiny process that takes the lab down when its owner is gone.
//!
//! It waits at the end of a pipe that the owner holds. The kernel closes the pipe when the owner dies, also by
//! SIGKILL; the owner closes it when it is done. Both ways end in the same script, so the way that matters most is
//! the one that every test takes.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::error::{Error, Result};

const SCRIPT: &str = include_str!("reaper.sh");

/// The owner's end of the pipe.
#[derive(Debug)]
pub(crate) struct Reaper {
    child: Mutex<Option<Child>>,
}

impl Reaper {
    /// Starts the reaper of all namespaces with a prefix, and of a folder.
    ///
    /// # Errors
    /// When there is no shell.
    pub(crate) fn start(prefix: &str, folder: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "portcullis-lab-reaper", prefix]).arg(folder);
        command.arg(std::process::id().to_string());
        // A process group of its own: Ctrl-C in a terminal is for the owner alone.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| Error::Command { command: "sh".into(), message: error.to_string() })?;
        Ok(Self { child: Mutex::new(Some(child)) })
    }

    /// Takes the lab down now, and returns when it is gone. A second call does nothing.
    ///
    /// # Errors
    /// What the reaper complained of.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut slot = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(mut child) = slot.take() else { return Ok(()) };
        drop(child.stdin.take());
        let failed = |message: String| Error::Command { command: "the lab's reaper".into(), message };
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // What it says is only for the message below; its exit code decides.
            let _ = stderr.read_to_string(&mut said);
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() && said.trim().is_empty() {
            Ok(())
        } else {
            Err(failed(format!("{status}: {}", said.trim())))
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "the lab may have left something behind");
        }
    }
}
