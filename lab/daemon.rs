//! The daemon under test, one per node.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::pod_network::PodNetworkMode;

/// Command line and environment of a node's daemon. The lab adds `--manifests`, `--hostname-override` and `--socket`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DaemonSpec {
    /// The program.
    pub binary: PathBuf,
    /// Additional arguments, e.g. `--mode=iptables`.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// The pod network that connects the pods; `None` if the lab connects them.
    #[serde(default)]
    pub pod_network: Option<PodNetworkMode>,
}

/// The longest path of a socket that the daemon accepts.
const MAX_SOCKET_PATH: usize = 100;

/// Returns the path of the daemon's local API: the nodes have one file system. Empty, which disables it, if the path is too long.
pub(crate) fn socket_path(folder: &Path, node: &str) -> PathBuf {
    let path = folder.join(format!("{node}.sock"));
    if path.as_os_str().len() > MAX_SOCKET_PATH { PathBuf::new() } else { path }
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    node: String,
    child: Child,
    log: PathBuf,
    started: f64,
}

impl Daemon {
    /// Starts the daemon in the node's namespace. Its log is a file in the lab's folder. `now` is in seconds since 1970.
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
        command.arg("--socket").arg(socket_path(folder, node));
        command.args(&spec.args).envs(spec.env.iter().map(|(name, value)| (name, value)));
        // Each node has its own xtables lock, as separate machines do.
        command.env("XTABLES_LOCKFILE", folder.join(format!("{node}.xtables.lock")));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(|error| {
            Error::Command { command: spec.binary.display().to_string(), message: error.to_string() }
        })?;
        Ok(Self { node: node.to_owned(), child, log, started: now })
    }

    /// Returns the time after which the daemon must have synced to have applied a change, and whether it must also have
    /// queued that sync after this time. A daemon that was started after the change need not queue another sync.
    pub(crate) fn required_sync(&self, changed: f64) -> (f64, bool) {
        (self.started.max(changed), self.started < changed)
    }

    /// The daemon's process id. `ip netns exec` replaces itself with the program, so the child is the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log file.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Returns an error if the daemon has exited.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("exited with {status}"))),
            Err(error) => Err(self.error(format!("cannot be waited for: {error}"))),
        }
    }

    /// Sends SIGTERM and waits for the exit. After the timeout, kills the daemon and returns an error.
    pub(crate) fn stop(&mut self, timeout: Duration) -> Result<()> {
        let pid = libc::pid_t::try_from(self.pid()).expect("a process id fits");
        // SAFETY: the process is a child that was not waited for yet, so its id was not reused.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let until = Instant::now() + timeout;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Fails if the process exits at this moment.
        let _ = self.child.kill();
        self.reap();
        Err(self.error(format!("did not exit within {timeout:?} of SIGTERM")))
    }

    /// Waits for a process that has exited or is exiting.
    pub(crate) fn reap(&mut self) {
        // Fails only if the process was waited for before.
        let _ = self.child.wait();
    }

    /// Returns an error about this daemon, with the last lines of its log.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        let tail = tail(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        Error::Daemon { node: self.node.clone(), message: message.into(), log: self.log.clone(), tail }
    }
}

/// Returns the last 4 KiB of a file, from the start of a line.
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
