//! The node under test: a lab of two nodes, of which one has a daemon that is connected to a test API server.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::{
    ClusterObjects, EchoPort, Lab, LabOptions, NetNs, PlanOptions, Prober, Protocol, Vantage,
};
use serde_json::Value;

use super::api_server::ApiServer;
use super::http;
use super::model::Client;
use super::objects;
use super::pools::{
    ALL_PODS, NODE, NODE_ECHO_PORT, OTHER_NODE, SCTP_PORT, SHARED_EXTERNAL_IPS, ServiceSlot, TCP_PORTS,
    UDP_PORT,
};
use super::scenario::Tools;
use super::step::{Mode, Signal};
use super::violation::{Invariant, Violation};

const HEALTH: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";

/// Time for the daemon to exit after SIGTERM.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct NodeUnderTest {
    pub(crate) lab: Lab,
    pub(crate) server: ApiServer,
    daemon: Option<Daemon>,
    tools: Tools,
    policies: bool,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

struct Daemon {
    child: Child,
    mode: Mode,
}

impl NodeUnderTest {
    /// Builds the lab, without a daemon and without objects in the API server.
    pub(crate) fn new(tools: Tools, policies: bool, arguments: &[&str]) -> Self {
        let plan = PlanOptions {
            clients: false,
            node_echo_ports: [EchoPort::tcp(NODE_ECHO_PORT)].into(),
            echo_ports: TCP_PORTS
                .map(EchoPort::tcp)
                .into_iter()
                .chain([
                    EchoPort { port: UDP_PORT, protocol: Protocol::Udp },
                    EchoPort { port: SCTP_PORT, protocol: Protocol::Sctp },
                ])
                .collect(),
            ..PlanOptions::default()
        };
        let mut lab = Lab::up(lab_objects(), LabOptions { plan, daemon: None }).expect("a lab can be built");
        for slot in ServiceSlot::all() {
            for ip in slot.load_balancer_ips.into_iter().chain(slot.external_ips) {
                lab.route_from_outside(ip, NODE).expect("a route can be added");
            }
        }
        for ip in SHARED_EXTERNAL_IPS {
            lab.route_from_outside(ip.parse().expect("an address"), NODE).expect("a route can be added");
        }
        let netns = lab.netns(&Vantage::node(NODE)).expect("the node exists");
        let server = netns.run(ApiServer::start).expect("the namespace exists");
        server.set_absent(&["adminnetworkpolicies", "baselineadminnetworkpolicies"]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        link_tools(&folder, tools);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        NodeUnderTest { lab, server, daemon: None, tools, policies, arguments, folder }
    }

    pub(crate) fn netns(&self) -> NetNs {
        self.lab.netns(&Vantage::node(NODE)).expect("the node exists")
    }

    pub(crate) fn prober(&self, client: Client, is_ipv4: bool) -> Prober {
        let vantage = match client {
            Client::Pod(index) => Vantage::pod(ALL_PODS[index].full_name()),
            Client::Node => Vantage::node(NODE),
            Client::Outside => Vantage::Outside,
        };
        let prober = self.lab.prober(vantage).expect("the client exists");
        match client {
            Client::Outside => prober.source(client.address(is_ipv4)),
            _ => prober,
        }
    }

    /// Returns the mode of the running daemon.
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.daemon.as_ref().map(|daemon| daemon.mode)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(|daemon| daemon.child.id())
    }

    /// Returns the arguments of the program for a mode, for the daemon and for subcommands.
    pub(crate) fn arguments(&self, mode: Mode) -> Vec<String> {
        let mut arguments: Vec<String> = [
            &format!("--hostname-override={NODE}"),
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
            "--conntrack-max-per-core=0",
            // Nodes of other tests share the folder of the default socket.
            "--socket=",
            &format!("--mode={}", mode.name()),
        ]
        .map(str::to_owned)
        .into();
        let prefix = if mode == Mode::Ipvs { "ipvs" } else { "iptables" };
        arguments.push(format!("--{prefix}-min-sync-period=0s"));
        arguments.extend(self.policies.then(|| "--network-policy".to_owned()));
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }

    /// Returns a command for the program on the node.
    pub(crate) fn program(&self) -> std::process::Command {
        let mut command = self.netns().command(program());
        command.env("PATH", self.path()).env("XTABLES_LOCKFILE", self.folder.path().join("xtables.lock"));
        command.env_remove("RUST_LOG");
        command
    }

    fn path(&self) -> String {
        format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap_or_default())
    }

    /// Starts the daemon unless it is running.
    pub(crate) fn start(&mut self, mode: Mode) {
        if self.daemon.is_some() {
            return;
        }
        let log =
            File::options().create(true).append(true).open(self.log_path()).expect("the folder is writable");
        let mut command = self.program();
        command.args(self.arguments(mode)).arg(format!("--master={}", self.server.url()));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("an open file")).stderr(log);
        self.daemon = Some(Daemon { child: command.spawn().expect("the program is built"), mode });
    }

    /// Ends the daemon if it is running.
    ///
    /// # Errors
    /// It does not exit in time after SIGTERM, or not with status 0.
    pub(crate) fn stop(&mut self, signal: Signal) -> Result<(), Violation> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if signal == Signal::Kill {
            daemon.child.kill().expect("it is our child");
            daemon.child.wait().expect("it is our child");
            return Ok(());
        }
        let pid = libc::pid_t::try_from(daemon.child.id()).expect("a process id fits");
        // SAFETY: kill takes no pointers; the process is a child that was not waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let until = Instant::now() + EXIT_LIMIT;
        while Instant::now() < until {
            match daemon.child.try_wait().expect("it is our child") {
                Some(status) if status.success() => return Ok(()),
                // The signal arrived before the program installed its handler.
                Some(status) if is_by_signal(status) => return Ok(()),
                Some(status) => {
                    let message = format!("the daemon exited with {status} after SIGTERM");
                    return Err(Violation::new(Invariant::Running, message));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        daemon.child.kill().expect("it is our child");
        daemon.child.wait().expect("it is our child");
        let message = format!("the daemon did not exit within {EXIT_LIMIT:?} of SIGTERM");
        Err(Violation::new(Invariant::Running, message))
    }

    /// Returns an error if the daemon has exited by itself.
    pub(crate) fn check_running(&mut self) -> Result<(), Violation> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        match daemon.child.try_wait().expect("it is our child") {
            None => Ok(()),
            Some(status) => {
                self.daemon = None;
                Err(Violation::new(Invariant::Running, format!("the daemon exited with {status}")))
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns the response of the health server with its headers.
    pub(crate) fn health(&self, path: &str) -> Option<String> {
        get(&self.netns(), HEALTH, path)
    }

    pub(crate) fn metrics(&self) -> Option<String> {
        get(&self.netns(), METRICS, "/metrics")
    }

    /// Returns the output of `portcullis diff` if it finds a difference or fails.
    pub(crate) fn diff(&self) -> Option<String> {
        let mut command = self.program();
        command.arg("diff").args(self.arguments(self.mode()?)).arg(format!("--master={}", self.server.url()));
        let output = command.output().expect("the program is built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (!output.status.success()).then(|| text(&output.stdout) + &text(&output.stderr))
    }

    pub(crate) fn tools(&self) -> Tools {
        self.tools
    }
}

impl Drop for NodeUnderTest {
    fn drop(&mut self) {
        drop(self.stop(Signal::Kill));
    }
}

/// Returns the path of the program: `CHAOS_PROGRAM`, such as a release build, or the one that Cargo has built.
fn program() -> std::ffi::OsString {
    std::env::var_os("CHAOS_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_portcullis").into())
}

fn is_by_signal(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGTERM)
}

pub(crate) fn get(netns: &NetNs, address: &str, path: &str) -> Option<String> {
    netns.run(|| http::get(address.parse().expect("an address"), path)).ok().flatten()
}

/// Returns the objects from which the lab is built: nodes and pods with their addresses.
fn lab_objects() -> ClusterObjects {
    let nodes = [NODE, OTHER_NODE].map(|name| objects::node(name, None));
    let pods = ALL_PODS.iter().map(|slot| objects::pod(*slot, "lab"));
    let objects: Vec<Value> = nodes.into_iter().chain(pods).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    ClusterObjects::parse(&list.to_string()).expect("the objects are valid")
}

/// Makes the variant of the iptables tools the node's default.
fn link_tools(folder: &tempfile::TempDir, tools: Tools) {
    let variant = if tools == Tools::Nft { "nft" } else { "legacy" };
    let program = format!("/usr/sbin/xtables-{variant}-multi");
    assert!(
        std::path::Path::new(&program).exists(),
        "{program} is missing; install Debian's package iptables"
    );
    for base in ["iptables", "ip6tables"] {
        for action in ["", "-save", "-restore"] {
            let link = folder.path().join(format!("{base}{action}"));
            std::os::unix::fs::symlink(&program, link).expect("the folder is writable");
        }
    }
}
