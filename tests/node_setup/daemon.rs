//! Runs the daemon on a node without Services, in the network namespace of the calling thread.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::http::get;
use crate::namespace;

/// Time limit for the daemon to do anything, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);
pub(crate) const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// A node with a folder for manifests and other files; the loopback interface is up.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        namespace::run("ip link set lo up");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        Node { folder }
    }

    /// Returns the program with manifests and these arguments.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(["--mode=nftables", "--manifests"])
            .arg(self.folder.path().join("manifests"))
            .args(arguments);
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Daemon {
        self.spawn(self.program(arguments))
    }

    /// Starts a daemon with an API server instead of manifests.
    pub(crate) fn start_following(&self, server: &str, arguments: &[&str]) -> Daemon {
        let mut command = program();
        command.args(["--mode=nftables", "--master", server]).args(arguments);
        self.spawn(command)
    }

    pub(crate) fn spawn(&self, command: Command) -> Daemon {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = self.folder.path().join(format!("log-{number}"));
        let stderr = fs::File::create(&log).unwrap();
        Daemon::spawn(command, stderr, log)
    }
}

/// Returns the program with the arguments that every node needs.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    // Tests share the folder of the default socket.
    command.args(["--hostname-override=node-a", "--socket="]);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A running daemon, which is killed on drop.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// Starts a daemon with this standard error.
    pub(crate) fn spawn(mut command: Command, stderr: impl Into<Stdio>, log: PathBuf) -> Self {
        let child = command.stderr(stderr).spawn().unwrap();
        Daemon { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a condition holds; the daemon must not exit meanwhile.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition() {
            assert!(self.child.try_wait().unwrap().is_none(), "ended before {what}:\n{}", self.log());
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `/healthz` succeeds.
    pub(crate) fn wait_healthy(&mut self) {
        self.wait_until("it is healthy", || {
            get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(" 200 "))
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the daemon exits by itself.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
