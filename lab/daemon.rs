//! The daemon under test, one a node.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netns::NetNs;

/// How to start the daemon of a node. The lab adds `--manifests` and `--hostname-override`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DaemonSpec {
    /// The program.
    pub binary: PathBuf,
    /// More arguments, e.g. `--mode=iptables`.
    pub args: Vec<String>,
    /// More environment variables.
    pub env: Vec<(String, String)>,
}

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    node: String,
    child: Child,
    log: PathBuf,
    started: f64,
}

impl Daemon {
    /// Starts it inside the node; its log goes to a file of the lab's folder. `now` is in seconds since 1970.
    pub(crate) fn start(
        spec: &DaemonSpec,
        node: &str,
        netns: &NetNs,
        folder: &Path,
        now: f64,
    ) -> Result<Self> {
        let log = folder.join("logs").join(format!("{node}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(Error::file("cannot write", &log))?;
        let errors = output.try_clone().map_err(Error::file("cannot write", &log))?;
        let mut command = netns.command(&spec.binary);
        command.arg("--manifests").arg(folder.join("manifests")).args(["--hostname-override", node]);
        command.args(&spec.args).envs(spec.env.iter().map(|(name, value)| (name, value)));
        // Nodes are machines: the lock of their iptables is not shared.
        command.env("XTABLES_LOCKFILE", folder.join(format!("{node}.xtables.lock")));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(|error| {
            Error::Command { command: spec.binary.display().to_string(), message: error.to_string() }
        })?;
        Ok(Self { node: node.to_owned(), child, log, started: now })
    }

    /// Since when it must have synced to have followed a change; and whether it must also have queued that sync since,
    /// which one that was started after the change need not have.
    pub(crate) fn must_follow(&self, changed: f64) -> (f64, bool) {
        (self.started.max(changed), self.started < changed)
    }

    /// The process; `ip netns exec` becomes the program, so it is the daemon's own.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log's file.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// An error when the daemon is no longer there.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("ended with {status}"))),
            Err(error) => Err(self.error(format!("cannot be waited for: {error}"))),
        }
    }

    /// Asks it to end by SIGTERM, and waits; after the time it is killed, which is an error.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<()> {
        let pid = libc::pid_t::try_from(self.pid()).expect("a process id fits");
        // SAFETY: the process is a child that was not waited for yet, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It may end by itself just now.
        let _ = self.child.kill();
        self.reap();
        Err(self.error(format!("did not end within {patience:?} of SIGTERM")))
    }

    /// Collects a process that is dead or dying.
    pub(crate) fn reap(&mut self) {
        // Only fails for a process that was collected already.
        let _ = self.child.wait();
    }

    /// An error about this daemon, with the end of its log.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        let tail = tail(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        Error::Daemon { node: self.node.clone(), message: message.into(), log: self.log.clone(), tail }
    }
}

/// The last 4 KiB of a file, from the start of a line.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let from = if length > 4096 { text.find('\n').map_or(0, |at| at + 1) } else { 0 };
    Ok(text[from..].trim_end().to_owned())
}
