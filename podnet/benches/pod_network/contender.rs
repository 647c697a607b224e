//! Programs that add and remove pods.

use std::env;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bare;
use super::node::Netns;
use super::process;

/// The folder of Debian's `containernetworking-plugins`.
const REFERENCE: &str = "/usr/lib/cni";

/// A program that adds pods to a node of its own.
pub(crate) struct Contender {
    name: String,
    program: Program,
    node: Netns,
    /// Reservations and records of the program.
    state: tempfile::TempDir,
}

/// The network in which our plugin adds pods.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) wiring: &'static str,
    /// The node's pod CIDRs.
    pub(crate) pod_cidrs: [String; 2],
    /// The MTU of pods; the kernel's default if 0.
    pub(crate) mtu: u32,
}

impl Network {
    /// Returns the network of a node without others.
    pub(crate) fn with_wiring(wiring: &'static str) -> Self {
        Network { wiring, pod_cidrs: ["10.244.0.0/16", "fd00:10:244::/64"].map(str::to_owned), mtu: 0 }
    }
}

/// The cost of one run of a program.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// From its start to its end.
    pub(crate) time: Duration,
    /// Processor time of the process, user and system.
    pub(crate) processor: Duration,
}

enum Program {
    Plugin { path: String, network: Network },
    Reference(&'static str),
    Bare(&'static str),
}

impl Contender {
    pub(crate) fn all(plugin: &str) -> Vec<Contender> {
        let mut all = Vec::new();
        for wiring in ["ptp", "bridge"] {
            let plugin = Program::Plugin { path: plugin.to_owned(), network: Network::with_wiring(wiring) };
            all.push(Contender::new(format!("portcullis, {wiring}"), plugin));
            all.push(Contender::new(format!("bare netlink, {wiring}"), Program::Bare(wiring)));
            all.push(Contender::new(
                format!("reference {wiring} and host-local"),
                Program::Reference(wiring),
            ));
        }
        all
    }

    fn new(name: String, program: Program) -> Self {
        let node = Netns::new();
        node.run("ip link set lo up");
        node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        // On a tmpfs, as on a node.
        let state = tempfile::tempdir_in("/dev/shm").expect("a temporary folder");
        Contender { name, program, node, state }
    }

    /// Returns our plugin, on a node of its own.
    pub(crate) fn plugin(path: &str, network: Network) -> Self {
        Contender::new(network.wiring.to_owned(), Program::Plugin { path: path.to_owned(), network })
    }

    /// Lets the node track connections.
    pub(crate) fn track_connections(&self) {
        for line in [
            "nft add table inet track",
            "nft add chain inet track prerouting { type filter hook prerouting priority 0 ; }",
            "nft add rule inet track prerouting ct state new accept",
        ] {
            self.node.run(line);
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_bare(&self) -> bool {
        matches!(self.program, Program::Bare(_))
    }

    pub(crate) fn node(&self) -> &Netns {
        &self.node
    }

    pub(crate) fn add(&self, pod: &Netns) -> Cost {
        self.timed("ADD", pod).0
    }

    pub(crate) fn del(&self, pod: &Netns) -> Cost {
        self.timed("DEL", pod).0
    }

    /// Adds a pod and returns its IPv4 address.
    pub(crate) fn add_pod(&self, pod: &Netns) -> String {
        let (_, output) = self.timed("ADD", pod);
        let result: Value = serde_json::from_slice(&output).expect("a result");
        let address = result["ips"][0]["address"].as_str().expect("an address");
        address.split('/').next().expect("an address").to_owned()
    }

    fn timed(&self, verb: &str, pod: &Netns) -> (Cost, Vec<u8>) {
        let (mut command, input) = match &self.program {
            Program::Bare(wiring) => {
                let mut command = Command::new(env::current_exe().expect("Linux knows it"));
                command.args([bare::COMMAND, verb, wiring, &pod.path(), &pod.number.to_string()]);
                (command, String::new())
            }
            Program::Plugin { path, network } => (Command::new(path), self.configuration(network)),
            Program::Reference(kind) => {
                (Command::new(format!("{REFERENCE}/{kind}")), self.reference_configuration(kind))
            }
        };
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.name)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        self.node.within(|| {
            let started = Instant::now();
            let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
            let mut stdin = child.stdin.take().expect("it is piped");
            // The bare program reads nothing.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            let mut output = Vec::new();
            child.stdout.take().expect("it is piped").read_to_end(&mut output).expect("a pipe can be read");
            let (status, processor) = process::wait(&mut child);
            let time = started.elapsed();
            assert!(status.success(), "{}: {verb}: {}", self.name, String::from_utf8_lossy(&output));
            (Cost { time, processor }, output)
        })
    }

    fn configuration(&self, network: &Network) -> String {
        let Network { wiring, pod_cidrs, mtu } = network;
        json!({
            "cniVersion": "1.0.0", "name": "portcullis", "type": "portcullis", "wiring": wiring,
            "podCIDRs": pod_cidrs, "mtu": mtu, "stateDir": self.state.path(),
        })
        .to_string()
    }

    fn reference_configuration(&self, kind: &str) -> String {
        json!({
            "cniVersion": "1.0.0", "name": "reference", "type": kind, "bridge": "cni0",
            "isGateway": true, "hairpinMode": true, "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": self.state.path(),
                "ranges": [[{ "subnet": "10.244.0.0/16" }], [{ "subnet": "fd00:10:244::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        })
        .to_string()
    }
}
