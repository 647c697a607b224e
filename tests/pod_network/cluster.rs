//! A cluster of nodes in network namespaces.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use portcullis_lab::NetNs;
use serde_json::{Value, json};

use super::traffic::wait_until;

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// The IP families of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    Dual,
    V4,
    V6,
}

impl Families {
    fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Families::Dual => vec![v4, v6],
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
        }
    }
}

/// Addresses of a pod or node, IPv4 first.
pub(crate) type Addresses = Vec<IpAddr>;

/// A network namespace with a name of this test.
pub(crate) struct Host(NetNs);

impl Host {
    /// Runs a command, whose words contain no spaces, and returns its output.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let output = self.0.command(words.next().unwrap()).args(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {line}: {error}", self.0.name());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ip(&self, line: &str) -> String {
        self.run(&format!("ip {line}"))
    }
}

/// A cluster.
pub(crate) struct Cluster {
    prefix: String,
    folder: tempfile::TempDir,
    mode: String,
    families: Families,
    nodes: usize,
    daemons: Mutex<Vec<Option<Child>>>,
}

impl Cluster {
    /// Creates the nodes, and starts their daemons. Up to three: the third is behind a router.
    pub(crate) fn new(mode: &str, families: Families, nodes: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("pn{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        let daemons = Mutex::new((0..nodes).map(|_| None).collect());
        let cluster = Cluster { prefix, folder, mode: mode.to_owned(), families, nodes, daemons };
        cluster.build();
        (0..nodes).for_each(|node| cluster.write_node_object(node, None));
        (0..nodes).for_each(|node| cluster.start(node));
        cluster
    }

    fn host(&self, name: &str) -> Host {
        Host(NetNs::new(format!("{}-{name}", self.prefix)))
    }

    /// Returns the namespace of a node.
    pub(crate) fn node(&self, node: usize) -> Host {
        self.host(&format!("node{}", node + 1))
    }

    /// Returns the namespace of the pod of a node.
    pub(crate) fn pod(&self, node: usize) -> NetNs {
        self.host(&format!("pod{}", node + 1)).0
    }

    pub(crate) fn pod_addresses(&self, node: usize) -> Addresses {
        let number = node + 1;
        let addresses = self.families.pick(format!("10.244.{number}.10"), format!("fd00:244:{number}::10"));
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// Returns the addresses of a node, with the prefix lengths.
    fn node_addresses(&self, node: usize) -> Vec<String> {
        match node {
            2 => self.families.pick("192.168.51.3/24".to_owned(), "fd00:51::3/64".to_owned()),
            _ => {
                self.families.pick(format!("192.168.50.{}/24", node + 1), format!("fd00:50::{}/64", node + 1))
            }
        }
    }

    fn build(&self) {
        let names = (1..=self.nodes).flat_map(|number| [format!("node{number}"), format!("pod{number}")]);
        for name in names.chain(["switch".to_owned(), "router".to_owned()]) {
            let status =
                Command::new("ip").args(["netns", "add", &format!("{}-{name}", self.prefix)]).status();
            assert!(status.unwrap().success(), "this test makes network namespaces and needs root");
            let host = self.host(&name);
            host.ip("link set lo up");
            for sysctl in ["net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0"] {
                host.run(&format!("sysctl -qw {sysctl}"));
            }
        }
        let (switch, router) = (self.host("switch"), self.host("router"));
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let switch_port = |host: &Host, port: &str| {
            switch.ip(&format!("link add {port} type veth peer name eth0 netns {}", host.0.name()));
            switch.ip(&format!("link set {port} master br0 up"));
        };
        switch_port(&router, "router");
        for line in
            ["addr add 192.168.50.254/24 dev eth0", "addr add fd00:50::fe/64 dev eth0", "link set eth0 up"]
        {
            router.ip(line);
        }
        for sysctl in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            router.run(&format!("sysctl -qw {sysctl}"));
        }
        for number in 1..=self.nodes {
            let node = self.node(number - 1);
            if number == 3 {
                router.ip(&format!("link add eth1 type veth peer name eth0 netns {}", node.0.name()));
                router.ip("addr add 192.168.51.254/24 dev eth1");
                router.ip("addr add fd00:51::fe/64 dev eth1");
                router.ip("link set eth1 up");
            } else {
                switch_port(&node, &format!("port{number}"));
            }
            node.ip("link set eth0 up");
            for address in self.node_addresses(number - 1) {
                node.ip(&format!("addr add {address} dev eth0"));
                let subnet = if number == 3 { 51 } else { 50 };
                match address.contains(':') {
                    true => node.ip(&format!("-6 route add default via fd00:{subnet}::fe")),
                    false => node.ip(&format!("route add default via 192.168.{subnet}.254")),
                };
            }
            self.wire_pod(number);
        }
    }

    /// Connects the pod of a node.
    fn wire_pod(&self, number: usize) {
        let (node, pod) = (self.node(number - 1), self.host(&format!("pod{number}")));
        node.ip(&format!("link add pod0 mtu 1450 type veth peer name eth0 mtu 1450 netns {}", pod.0.name()));
        node.ip("link set pod0 up");
        pod.ip("link set eth0 mtu 1430 up");
        let v4 = (
            format!("10.244.{number}.1/24"),
            format!("10.244.{number}.10/24"),
            format!("default via 10.244.{number}.1"),
        );
        let v6 = (
            format!("fd00:244:{number}::1/64"),
            format!("fd00:244:{number}::10/64"),
            format!("default via fd00:244:{number}::1"),
        );
        for (gateway, address, route) in self.families.pick(v4, v6) {
            node.ip(&format!("addr add {gateway} dev pod0"));
            pod.ip(&format!("addr add {address} dev eth0"));
            let family = if route.contains(':') { "-6 " } else { "" };
            pod.ip(&format!("{family}route add {route}"));
        }
    }

    /// Returns a command that runs on a node.
    pub(crate) fn command(&self, node: usize, program: &str) -> Command {
        self.node(node).0.command(program)
    }

    /// Returns the path of a file of this cluster.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
    }

    fn write_manifest(&self, name: &str, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let temporary = self.folder.path().join("temporary");
        fs::write(&temporary, list.to_string()).unwrap();
        fs::rename(temporary, self.manifest(name)).unwrap();
    }

    /// Writes the Node object of a node, with its addresses or other ones.
    pub(crate) fn write_node_object(&self, node: usize, addresses: Option<Addresses>) {
        let own = || {
            self.node_addresses(node)
                .iter()
                .map(|net| net.split('/').next().unwrap().parse().unwrap())
                .collect()
        };
        let number = node + 1;
        let cidrs = self.families.pick(format!("10.244.{number}.0/24"), format!("fd00:244:{number}::/64"));
        let object = node_object(
            &format!("node-{number}"),
            &cidrs,
            &addresses.unwrap_or_else(own),
            "2026-01-01T00:00:00Z",
        );
        self.write_manifest(&format!("node{number}.json"), &[object]);
    }

    pub(crate) fn remove_node_object(&self, node: usize) {
        fs::remove_file(self.manifest(&format!("node{}.json", node + 1))).unwrap();
    }

    /// Writes Nodes that do not exist.
    pub(crate) fn write_other_nodes(&self, count: usize) {
        let node = |number: usize| {
            let (high, low) = (number / 250, number % 250);
            let addresses = [format!("192.168.60.{low}"), format!("fd00:60:{high}::{low:x}")];
            let addresses: Addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let cidrs =
                [format!("10.{}.{low}.0/24", 200 + high), format!("fd00:{:x}:{low:x}::/64", 0x2000 + high)];
            node_object(&format!("other-{number}"), &cidrs, &addresses, "2026-01-01T00:00:00Z")
        };
        self.write_manifest("others.json", &(0..count).map(node).collect::<Vec<_>>());
    }

    /// Writes a younger Node with the pod CIDRs of node 2.
    pub(crate) fn write_conflicting_node(&self) {
        let cidrs = ["10.244.2.0/24".to_owned(), "fd00:244:2::/64".to_owned()];
        let addresses = ["192.168.50.77".parse().unwrap(), "fd00:50::77".parse().unwrap()];
        self.write_manifest(
            "conflict.json",
            &[node_object("node-9", &cidrs, &addresses, "2026-02-01T00:00:00Z")],
        );
    }

    /// Writes a Service for the pod of node 2, and a policy that allows its port only.
    pub(crate) fn write_service_and_policy(&self) {
        self.write_manifest("service.json", &[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"], "type": "ClusterIP",
                    "ports": [{"port": 80, "targetPort": 7000, "protocol": "TCP"}]}}),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
                "ports": [{"port": 7000, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.244.2.10"], "conditions": {"ready": true}, "nodeName": "node-2"}]}),
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
                "spec": {"nodeName": "node-2", "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Running", "podIP": "10.244.2.10", "podIPs": [{"ip": "10.244.2.10"}, {"ip": "fd00:244:2::10"}]}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
                    "ingress": [{"ports": [{"port": 7000, "protocol": "TCP"}]}]}}),
        ]);
    }

    /// Gives a node another address. Returns all its addresses.
    pub(crate) fn readdress(&self, node: usize) -> Addresses {
        let host = self.node(node);
        let (v4, v6) = ("192.168.51.33", "fd00:51::33");
        for address in self.node_addresses(node) {
            host.ip(&format!("addr del {address} dev eth0"));
        }
        for (address, length, family, gateway) in
            self.families.pick((v4, 24, "", "192.168.51.254"), (v6, 64, "-6 ", "fd00:51::fe"))
        {
            host.ip(&format!("addr add {address}/{length} dev eth0"));
            host.ip(&format!("{family}route replace default via {gateway}"));
        }
        self.families.pick(v4, v6).into_iter().map(|address| address.parse().unwrap()).collect()
    }

    pub(crate) fn start(&self, node: usize) {
        let number = node + 1;
        let path = |name: &str| self.folder.path().join(name);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(path(&format!("log{number}"))).unwrap();
        // `ip netns exec` has a mount namespace of its own: the nodes do not share records of pods.
        let script = "mkdir -p /run/portcullis && mount -t tmpfs none /run/portcullis && exec \"$@\"";
        let mut command = self.node(node).0.command("sh");
        command
            .args(["-c", script, "sh", PROGRAM])
            .args(self.settings(node))
            .arg(format!("--socket={}", path(&format!("socket{number}")).display()))
            .args(["--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(log);
        self.daemons.lock().unwrap()[node] = Some(command.spawn().unwrap());
    }

    /// Returns the settings of the daemon of a node, and of commands there.
    fn settings(&self, node: usize) -> Vec<String> {
        let number = node + 1;
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            format!("--manifests={}", path("manifests")),
            format!("--hostname-override=node-{number}"),
            format!("--pod-network={}", self.mode),
            format!("--pod-network-cni-bin-dir={}", path(&format!("bin{number}"))),
            format!("--pod-network-cni-conf-dir={}", path(&format!("net.d{number}"))),
            format!("--pod-network-state-dir={}", path(&format!("state{number}"))),
            "--mode=nftables".to_owned(),
            "--network-policy".to_owned(),
            "--cluster-cidr=10.244.0.0/16,fd00:244::/32".to_owned(),
        ]
    }

    /// Returns the path of the CNI configuration of a node.
    pub(crate) fn configuration(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("net.d{}/10-portcullis.conflist", node + 1))
    }

    /// Returns the path of the CNI plugin `loopback` of a node.
    pub(crate) fn loopback(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("bin{}/loopback", node + 1))
    }

    /// Runs a command of the program on a node. Returns its exit status, its output and its log.
    pub(crate) fn portcullis(&self, node: usize, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.node(node).0.command(PROGRAM);
        let output =
            command.args(arguments).args(self.settings(node)).env_remove("RUST_LOG").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Stops the daemon of a node.
    pub(crate) fn stop(&self, node: usize) {
        let mut child = self.daemons.lock().unwrap()[node].take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap();
    }

    pub(crate) fn restart(&self, node: usize) {
        self.stop(node);
        self.start(node);
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("log{}", node + 1))).unwrap_or_default()
    }

    fn http(&self, node: usize, port: u16, path: &str) -> Option<String> {
        self.node(node)
            .0
            .run(|| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
                write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
                let mut response = String::new();
                stream.read_to_string(&mut response).ok()?;
                Some(response)
            })
            .unwrap()
    }

    /// Returns the response of the health server.
    pub(crate) fn get(&self, node: usize, path: &str) -> String {
        self.http(node, 10256, path).unwrap_or_default()
    }

    /// Returns the value of a metric; -1 if it cannot be read.
    pub(crate) fn metric(&self, node: usize, name: &str) -> f64 {
        let text = self.http(node, 10249, "/metrics").unwrap_or_default();
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(metric, _)| metric == name));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(-1.0)
    }

    /// Waits until all daemons are ready, and know all nodes.
    pub(crate) fn wait_ready(&self) {
        for node in 0..self.nodes {
            wait_until(
                "the pod network is ready",
                || {
                    self.metric(node, "portcullis_pod_network_ready") == 1.0
                        && self.metric(node, "portcullis_pod_network_nodes") >= self.nodes as f64
                },
                || self.log(node),
            );
        }
    }

    /// Returns the VXLAN link, routes, neighbours and FDB entries of a node, sorted.
    pub(crate) fn forwarding_state(&self, node: usize) -> String {
        let host = self.node(node);
        // Commands fail while the link does not exist.
        let listed = |line: &str| {
            let mut words = line.split_whitespace();
            let output = host.0.command(words.next().unwrap()).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let link = listed("ip -d -o link show pc-vxlan");
        let without_index = link.split_once(": ").map_or("", |(_, rest)| rest).to_owned();
        let mut lines: Vec<String> = [
            "ip -o addr show dev pc-vxlan",
            "ip route show proto 80",
            "ip -6 route show proto 80",
            "ip neigh show dev pc-vxlan nud permanent",
            "bridge fdb show dev pc-vxlan",
        ]
        .iter()
        .flat_map(|line| listed(line).lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .map(|line| line.split_once(": pc-vxlan").map_or(line.clone(), |(_, rest)| rest.to_owned()))
        // The name of the uplink is not ours.
        .map(|line| line.replace("uplink0", "eth0"))
        .collect();
        lines.push(without_index);
        lines.sort();
        lines.join("\n")
    }

    fn has_routes(&self, node: usize, to: usize) -> bool {
        let cidrs =
            self.families.pick(format!("10.244.{}.0/24", to + 1), format!("fd00:244:{}::/64", to + 1));
        let host = self.node(node);
        let routes = host.ip("route show proto 80") + &host.ip("-6 route show proto 80");
        cidrs.iter().any(|cidr| routes.contains(cidr))
    }

    pub(crate) fn wait_routes(&self, node: usize, to: usize) {
        wait_until("there are routes", || self.has_routes(node, to), || self.log(node));
    }

    pub(crate) fn wait_without_routes(&self, node: usize, to: usize) {
        wait_until("there are no routes", || !self.has_routes(node, to), || self.log(node));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.daemons.lock().unwrap().iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            (0..self.nodes).for_each(|node| eprintln!("--- node {}\n{}", node + 1, self.log(node)));
        }
        let names = (1..=self.nodes).flat_map(|number| [format!("node{number}"), format!("pod{number}")]);
        for name in names.chain(["switch".to_owned(), "router".to_owned()]) {
            let name = format!("{}-{name}", self.prefix);
            drop(Command::new("ip").args(["netns", "del", &name]).status());
        }
    }
}

fn node_object(name: &str, cidrs: &[String], addresses: &[IpAddr], created: &str) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": addresses},
    })
}
