//! Memory of the daemon with and without the pod network.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::median;
use super::node::Netns;
use super::process::{self, Memory};

/// Numbers of nodes of the cluster.
const NODES: [usize; 3] = [10, 1_000, 5_000];

/// Time after which the daemon has read its manifests and returned memory that it needed for that.
const SETTLE: Duration = Duration::from_secs(3);

/// Time that a start takes at most.
const LIMIT: Duration = Duration::from_secs(60);

/// Prints the memory of the daemon `program`, as medians of alternating runs.
pub(crate) fn measure(program: &str, rounds: usize) {
    println!("Memory of the daemon, {rounds} rounds: medians in MB, anonymous + file\n");
    println!("| nodes | --pod-network=off | host-gw | vxlan |\n| --- | --- | --- | --- |");
    for nodes in NODES {
        let modes = ["off", "host-gw", "vxlan"];
        let mut samples = modes.map(|_| (Vec::new(), Vec::new()));
        for _ in 0..rounds {
            for (mode, (anonymous, file)) in modes.iter().zip(&mut samples) {
                let memory = run(program, mode, nodes);
                anonymous.push(memory.anonymous);
                file.push(memory.file);
            }
        }
        let cells = samples.map(|(mut anonymous, mut file)| {
            format!("{:.1} + {:.1}", median(&mut anonymous), median(&mut file))
        });
        println!("| {nodes} | {} |", cells.join(" | "));
    }
    println!();
}

/// Returns the memory of a daemon that has been started and has nothing to do.
fn run(program: &str, mode: &str, nodes: usize) -> Memory {
    let node = Netns::new();
    for line in [
        "ip link set lo up",
        "ip link add eth0 type veth peer name peer",
        "ip link set eth0 up",
        "ip link set peer up",
        "ip addr add 172.16.0.1/12 dev eth0",
        "ip addr add fd00:192::1/64 dev eth0 nodad",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ] {
        node.run(line);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["manifests", "bin", "net.d"] {
        fs::create_dir(path(name)).expect("a new folder");
    }
    fs::write(path("manifests").join("nodes.json"), manifest(nodes)).expect("the disk has space");
    // The node has records of pods of its own.
    let script = "mkdir -p /run/portcullis && mount -t tmpfs none /run/portcullis && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh", program])
        .arg(format!("--manifests={}", path("manifests").display()))
        .arg(format!("--socket={}", path("socket").display()))
        .arg(format!("--pod-network={mode}"))
        .arg(format!("--pod-network-cni-bin-dir={}", path("bin").display()))
        .arg(format!("--pod-network-cni-conf-dir={}", path("net.d").display()))
        .args(["--hostname-override=node-0", "--mode=nftables", "--network-policy"])
        .args(["--cluster-cidr=10.0.0.0/8,fd00:244::/32"])
        .args(["--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stderr(fs::File::create(path("log")).expect("the disk has space"));
    let mut child = node.within(|| command.spawn()).expect("the daemon starts");
    let is_ready = wait_until_ready(&node, &path("net.d"), mode != "off");
    thread::sleep(SETTLE);
    let log = fs::read_to_string(path("log")).unwrap_or_default();
    assert!(
        is_ready && child.try_wait().expect("it is ours").is_none(),
        "{mode}: the daemon is not ready: {log}"
    );
    let memory = process::memory(child.id());
    crate::node::run(&format!("kill {}", child.id()));
    let _ = child.wait();
    memory
}

/// Returns true once the daemon serves, and has written the CNI configuration if it has a pod network.
fn wait_until_ready(node: &Netns, configurations: &Path, has_pod_network: bool) -> bool {
    let health = SocketAddr::from(([127, 0, 0, 1], 10256));
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let is_configured = configurations.join("10-portcullis.conflist").exists();
        if is_configured == has_pod_network && node.within(|| TcpStream::connect(health)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Returns a list of Nodes. Node 0 is this node.
fn manifest(nodes: usize) -> String {
    let node = |number: usize| {
        let (high, low) = (number / 250, number % 250);
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"podCIDRs": [format!("10.{high}.{low}.0/24"), format!("fd00:244:{high:x}:{low:x}::/80")]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("172.16.{high}.{}", low + 1)},
                {"type": "InternalIP", "address": format!("fd00:192::{:x}", number + 1)},
            ]},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": (0..nodes).map(node).collect::<Vec<_>>()}).to_string()
}
