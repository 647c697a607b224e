//! A cluster of three nodes with containers, and no other network component: the daemon of each node installs the plugin, and writes
//! its configuration.
//!
//! ```text
//! outside (203.0.113.1) ─ bridge ─┬─ node-1: daemon, containerd, pods
//!                                 ├─ node-2
//!                                 └─ node-3
//! ```
//! The outside has no routes to pods: only masqueraded packets are answered.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::node::{Node, PROGRAM, succeed, wait_until};
use crate::plugin::check_addresses;
use crate::pod::{Pod, Task, running, stop_all};

const NODES: usize = 3;
const OUTSIDE: &str = "203.0.113.1";
/// The cluster IPs of the Service of the test.
const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

/// Nodes, the network that connects them, and the manifests that all of their daemons read.
struct Cluster {
    nodes: Vec<Node>,
    outside: String,
    manifests: tempfile::TempDir,
    mode: &'static str,
    wiring: &'static str,
}

impl Cluster {
    fn start(mode: &'static str, wiring: &'static str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let outside = format!("podruntime-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let manifests =
            tempfile::Builder::new().prefix("pod-runtime-manifests-").tempdir().expect("a temporary folder");
        run(Command::new("ip").args(["netns", "add", &outside]));
        let mut cluster = Cluster { nodes: Vec::new(), outside, manifests, mode, wiring };
        cluster.outside("ip link set lo up; ip link add br0 type bridge; ip link set br0 up");
        cluster.outside(&format!("ip addr add {OUTSIDE}/24 dev br0; ip addr add 192.0.2.254/24 dev br0"));
        cluster.outside("ip addr add fd00:50::fe/64 dev br0 nodad");
        for number in 1..=NODES {
            let node = Node::start("");
            let process = node.process();
            cluster.outside(&format!(
                "ip link add port{number} type veth peer name eth0 netns {process}; ip link set port{number} master br0 up"
            ));
            node.shell(&format!(
                "ip addr add 192.0.2.{number}/24 dev eth0; ip addr add fd00:50::{number}/64 dev eth0 nodad; ip link set eth0 up; \
                 ip route add default via 192.0.2.254; ip -6 route add default via fd00:50::fe"
            ));
            cluster.nodes.push(node);
        }
        cluster.write("nodes.json", &(1..=NODES).map(node_object).collect::<Vec<_>>());
        (0..NODES).for_each(|node| cluster.start_daemon(node));
        for node in &cluster.nodes {
            wait_until("the configuration of the plugin", || {
                node.path("/etc/cni/net.d/10-portcullis.conflist").exists().then_some(())
            });
        }
        cluster
    }

    fn outside(&self, script: &str) {
        run(Command::new("ip").args(["netns", "exec", &self.outside, "sh", "-ec", script]));
    }

    /// Writes a file of manifests, atomically.
    fn write(&self, name: &str, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let temporary = self.manifests.path().join(format!(".{name}"));
        fs::write(&temporary, list.to_string()).expect("written");
        fs::rename(temporary, self.manifests.path().join(name)).expect("renamed");
    }

    fn log(&self, node: usize) -> PathBuf {
        self.nodes[node].folder().join("daemon.log")
    }

    /// Starts the daemon of a node. It ends with the node.
    fn start_daemon(&self, node: usize) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(node)).expect("a log");
        let mut command = self.nodes[node].command(PROGRAM);
        command
            .arg(format!("--manifests={}", self.manifests.path().display()))
            .arg(format!("--hostname-override=node-{}", node + 1))
            .arg(format!("--pod-network={}", self.mode))
            .arg(format!("--pod-network-wiring={}", self.wiring))
            .args(["--mode=nftables", "--network-policy", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48"])
            .env_remove("RUST_LOG")
            .stderr(log);
        // It is killed with the node.
        drop(command.spawn().expect("nsenter runs"));
    }

    fn kill_daemon(&self, node: usize) {
        // The pattern does not match the command line of this shell.
        self.nodes[node].shell("pkill -KILL -f -- '[-]-hostname-override='");
    }

    /// Starts a pod, and waits for it.
    fn start_pod(&self, node: usize, name: &str) -> (Pod, Task) {
        let mut pod = Pod::start(&self.nodes[node], name);
        let task = wait_until("a pod", || {
            assert!(!pod.has_ended(), "{name}: {}", self.logs());
            running(&self.nodes[node]).into_iter().find(|task| task.id == name)
        });
        (pod, task)
    }

    fn logs(&self) -> String {
        (0..NODES).map(|node| fs::read_to_string(self.log(node)).unwrap_or_default()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        drop(Command::new("ip").args(["netns", "del", &self.outside]).status());
    }
}

fn run(command: &mut Command) {
    let text = format!("{command:?}");
    succeed(command.stdin(Stdio::null()).output().expect("the command runs"), &text);
}

fn node_object(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.0.2.{number}")},
            {"type": "InternalIP", "address": format!("fd00:50::{number}")}]}})
}

fn pod_object(name: &str, node: usize, addresses: &[IpAddr]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": format!("node-{}", node + 1), "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips}})
}

/// Returns a Service for a server, with its EndpointSlices.
fn service(addresses: &[IpAddr]) -> Vec<Value> {
    let slice = |address: &IpAddr| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": format!("web-{}", family.to_lowercase()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": "node-2"}]})
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": SERVICE[0], "clusterIPs": SERVICE, "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}});
    std::iter::once(service).chain(addresses.iter().map(slice)).collect()
}

/// Returns a policy that lets only the pod `client` connect to the pod `server`.
fn policy() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}}),
    ]
}

/// Returns the response of the server to a pod.
fn get(node: &Node, task: &Task, address: &str, port: u16, seconds: u32) -> Option<String> {
    let request = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w {seconds} {address} {port}");
    task.busybox(node, &["sh", "-c", &request]).ok().filter(|response| response.ends_with("\r\nhello\n"))
}

#[test]
fn three_nodes_need_no_other_network_component() {
    // The wirings by turns: a mode concerns other nodes, and a wiring this one.
    for (mode, wiring) in [("vxlan", "ptp"), ("host-gw", "bridge")] {
        let cluster = Cluster::start(mode, wiring);
        let names = ["first", "server", "client"];
        let mut pods: Vec<Vec<Pod>> = (0..NODES).map(|_| Vec::new()).collect();
        let mut tasks = Vec::new();
        for (node, name) in names.iter().enumerate() {
            for name in [(*name).to_owned(), format!("{name}-beside")] {
                let (pod, task) = cluster.start_pod(node, &name);
                pods[node].push(pod);
                tasks.push((node, task));
            }
            check_addresses(&cluster.nodes[node], &running(&cluster.nodes[node]));
        }
        let addresses = |node: usize, name: &str| -> Vec<IpAddr> {
            let found = tasks.iter().find(|(at, task)| *at == node && task.id == name);
            found.expect("the pod runs").1.addresses(&cluster.nodes[node])
        };

        // All pods of all nodes, and the outside.
        for (from_node, from) in &tasks {
            let node = &cluster.nodes[*from_node];
            for (to_node, to) in &tasks {
                for address in addresses(*to_node, &to.id) {
                    from.ping(node, address).unwrap_or_else(|error| {
                        panic!("{mode}: {from:?} to {to:?}: {error}\n{}", cluster.logs())
                    });
                }
            }
            from.ping(node, OUTSIDE.parse().expect("an address")).unwrap_or_else(|error| {
                panic!("{mode}: {from:?} to the outside: {error}\n{}", cluster.logs())
            });
        }

        // A Service, then a policy.
        let server_addresses = addresses(1, "server");
        let server = tasks.iter().find(|(_, task)| task.id == "server").expect("it runs").1.clone();
        let network = format!("network:/proc/{}/ns/net", server.process);
        let mut container =
            cluster.nodes[1].ctr(&["run", "--rm", "--cgroup", "", "--with-ns", &network, "--rootfs"]);
        container.arg(cluster.nodes[1].rootfs());
        container.args(["httpd", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
        let mut container = container.stdout(Stdio::null()).spawn().expect("nsenter runs");
        cluster.write("service.json", &service(&server_addresses));
        let client_of = |node: usize| {
            tasks.iter().rfind(|(at, _)| *at == node).map(|(_, task)| task.clone()).expect("it runs")
        };
        for (node, address) in (0..NODES).flat_map(|node| SERVICE.map(|address| (node, address))) {
            wait_until(
                &format!("{mode}: the Service at {address} from node {node}\n{}", cluster.logs()),
                || get(&cluster.nodes[node], &client_of(node), address, 80, 5),
            );
        }
        let objects: Vec<Value> = tasks
            .iter()
            .map(|(node, task)| pod_object(&task.id, *node, &addresses(*node, &task.id)))
            .chain(policy())
            .collect();
        cluster.write("policy.json", &objects);
        let client = tasks.iter().find(|(_, task)| task.id == "client").expect("it runs").1.clone();
        for address in SERVICE {
            // Another pod of the server's node, too.
            for node in [0, 1] {
                wait_until("the policy denies", || {
                    get(&cluster.nodes[node], &client_of(node), address, 80, 2).is_none().then_some(())
                });
            }
            let allowed = get(&cluster.nodes[2], &client, address, 80, 20);
            assert!(allowed.is_some(), "{mode}: {address}: the policy allows it\n{}", cluster.logs());
        }

        // Pods start and end while the daemon does not run, and after it was started again.
        cluster.kill_daemon(2);
        let (pod, late) = cluster.start_pod(2, "late");
        pods[2].push(pod);
        for address in addresses(0, "first") {
            late.ping(&cluster.nodes[2], address).unwrap_or_else(|error| panic!("{mode}: {late:?}: {error}"));
        }
        cluster.start_daemon(2);
        late.ping(&cluster.nodes[2], OUTSIDE.parse().expect("an address")).expect("the outside answers");

        cluster.nodes[1]
            .ctr(&["task", "kill", "--signal", "SIGKILL", "httpd"])
            .output()
            .expect("nsenter runs");
        container.wait().expect("a child");
        for (node, pods) in pods.into_iter().enumerate() {
            stop_all(&cluster.nodes[node], pods);
            assert!(crate::plugin::attachments(&cluster.nodes[node]).is_empty(), "{mode}");
        }
    }
}
