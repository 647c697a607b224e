//! A node with a container runtime: containerd and runc in PID, mount and network namespaces of their own.
//!
//! All processes of the node end with its process 1, and that one with this thread, also if the test is killed; the namespaces, and
//! what is mounted and wired in them, end with the processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SCRIPT: &str = include_str!("node.sh");

/// The time that anything may take on a loaded machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    folder: TempDir,
    unshare: Child,
    /// Process 1 of the node, by its ID outside.
    process: u32,
}

impl Node {
    /// Starts a node whose containers get a network by a configuration, a list of plugins. If it is empty, the node has neither the
    /// plugin nor a configuration.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_runtime(configuration, "")
    }

    /// Starts a node whose runtime serves the kubelet as well, with a sandbox image.
    pub(crate) fn start_with_cri(configuration: &str, sandbox_image: &str) -> Self {
        Self::start_runtime(configuration, sandbox_image)
    }

    fn start_runtime(configuration: &str, sandbox_image: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pod-runtime-").tempdir().expect("a temporary folder");
        make_root_file_system(&folder.path().join("rootfs"));
        let unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", SCRIPT, "node"])
            .args([
                folder.path().as_os_str(),
                PROGRAM.as_ref(),
                configuration.as_ref(),
                sandbox_image.as_ref(),
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv runs");
        let mut node = Self { folder, process: 0, unshare };
        let children = format!("/proc/{0}/task/{0}/children", node.unshare.id());
        node.process =
            wait_until("process 1 of the node", || fs::read_to_string(&children).ok()?.trim().parse().ok());
        wait_until("containerd", || {
            if let Some(status) = node.unshare.try_wait().expect("a child") {
                let log = fs::read_to_string(node.folder().join("containerd.log")).unwrap_or_default();
                panic!("the node ended: {status}\n{log}");
            }
            node.ctr(&["version"]).output().is_ok_and(|output| output.status.success()).then_some(())
        });
        node
    }

    /// Returns the folder of the node, which has the same path inside and outside.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the root file system of all containers.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    /// Returns the ID of process 1 of the node.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Returns a path of the node as this process sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.process))
    }

    /// Returns a command that runs on the node.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process.to_string(), "--mount", "--net", "--pid", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Returns a command of the client of containerd.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("ctr");
        command.arg("--address").arg(self.folder().join("containerd.sock")).args(arguments);
        command
    }

    /// Runs a shell script on the node, and returns its output.
    pub(crate) fn shell(&self, script: &str) -> String {
        succeed(self.command("sh").args(["-c", script]).output().expect("nsenter runs"), script)
    }

    /// Returns the names of the node's interfaces, without `lo`.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let lines = self.shell("ip -o link show");
        let names = lines.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The kernel kills all processes of the PID namespace before the first one is reaped.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let process = format!("/proc/{}", self.process);
        let start = Instant::now();
        while self.process != 0 && Path::new(&process).exists() && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns the output of a command, which must have succeeded.
pub(crate) fn succeed(output: Output, what: &str) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Waits until a function returns a value.
pub(crate) fn wait_until<T>(what: &str, mut function: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = function() {
            return value;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Creates a root file system with the program, its libraries and busybox.
fn make_root_file_system(folder: &Path) {
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "lib64", "www"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    fs::write(folder.join("www/index.html"), "hello\n").expect("written");
    let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().expect("sh runs");
    let busybox = succeed(busybox, "busybox-static is not installed");
    fs::copy(busybox.trim(), folder.join("bin/busybox")).expect("copied");
    // A debug build is large, and file systems such as btrfs and XFS share the blocks of a copy.
    let copied =
        Command::new("cp").arg("--reflink=auto").arg(PROGRAM).arg(folder.join("bin/portcullis")).output();
    succeed(copied.expect("cp runs"), "cp");
    let libraries = succeed(Command::new("ldd").arg(PROGRAM).output().expect("ldd runs"), "ldd");
    for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let path = folder.join(&word[1..]);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
        fs::copy(word, path).expect("copied");
    }
}
