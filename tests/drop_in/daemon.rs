//! The daemon, with the flags and configuration of kube-proxy.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::api_server::ApiServer;
use crate::http;
use crate::services::Case;

/// The metrics address in the configurations of the cases.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// The metric with the time of each family's last sync, in seconds since 1970.
const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{";

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon as kube-proxy: with a configuration file that has a kubeconfig. Without `has_tools`, PATH contains no
    /// tools.
    pub(crate) fn start(case: &Case, server: &ApiServer, folder: &Path, has_tools: bool) -> Daemon {
        let kubeconfig = server.kubeconfig(folder, "token");
        let text = fs::read_to_string(case.folder.join("config.yaml")).expect("the case has a configuration");
        let text = text.replace("mode: ''", &format!("mode: {}", case.mode.name()));
        let config = folder.join("config.yaml");
        let text = format!("{text}clientConnection:\n  kubeconfig: {}\n", kubeconfig.display());
        fs::write(&config, text).expect("the folder can be written to");
        let log = folder.join("log");
        let output = fs::File::create(&log).expect("the folder can be written to");
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .arg("--config")
            .arg(&config)
            .arg("--socket=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        if !has_tools {
            command.env("PATH", folder);
        }
        Daemon { child: command.spawn().expect("the binary is built"), log }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Terminates the daemon with SIGTERM, and returns its exit status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        end(&mut self.child)
    }
}

/// Returns the end of the daemon's last sync of both families, from its metrics; 1970 before the first one.
pub(crate) fn last_sync() -> SystemTime {
    let text = http::get(METRICS, "/metrics").unwrap_or_default();
    let of_family =
        text.lines().filter_map(|line| line.strip_prefix(LAST_SYNC)?.rsplit(' ').next()?.parse().ok());
    let seconds = of_family.reduce(f64::min).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// Terminates a child process with SIGTERM, and returns its exit status.
pub(crate) fn end(child: &mut Child) -> Option<i32> {
    let pid = child.id() as libc::pid_t;
    // SAFETY: kill takes no pointers; the process is our child and not yet waited for, so the pid is valid.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    child.wait().expect("it is our child").code()
}

/// Returns the command for the binary with a folder of manifests, without output.
pub(crate) fn portcullis(arguments: &[&str], manifests: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    // Tests share the folder of the default socket.
    command
        .args(arguments)
        .args(["--hostname-override=node-a", "--socket="])
        .arg("--manifests")
        .arg(manifests);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It still runs after a failed assertion.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
