//! A node in a network namespace, and its pods.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// The kinds of wiring, for tests that hold for both.
pub(crate) const WIRINGS: [&str; 2] = ["ptp", "bridge"];

/// The folder of Debian's `containernetworking-plugins`.
pub(crate) const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a command line, whose words contain no spaces. Returns its output and whether it succeeded.
pub(crate) fn run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let Output { status, stdout, stderr } = command.args(words).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// A network namespace with a name of its own, deleted at the end.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cnitest-{}-{number}", std::process::id());
        let (done, output) = run(&format!("ip netns add {name}"));
        assert!(done, "these tests make network namespaces and need root: {output}");
        Namespace { name }
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command line in the namespace.
    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        run(&format!("nsenter --net={} {line}", self.path()))
    }

    /// Runs a command line in the namespace, which must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let (done, output) = self.try_run(line);
        assert!(done, "{line}: {output}");
        output
    }

    /// Asserts that one echo request is answered.
    pub(crate) fn assert_ping(&self, address: &str, case: &str) {
        let (answered, output) = self.try_run(&format!("ping -n -c 1 -W 2 {address}"));
        assert!(answered, "{case}: {address} does not answer: {output}\n{}", self.describe());
    }

    pub(crate) fn describe(&self) -> String {
        ["ip addr", "ip route", "ip -6 route", "ip neigh"].map(|line| self.try_run(line).1).join("\n")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

/// A node with an uplink to a host outside.
pub(crate) struct Node {
    pub(crate) host: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) state: tempfile::TempDir,
    pub(crate) configuration: Value,
}

/// A response of the plugin.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) succeeded: bool,
    /// Standard output; null if it was empty.
    pub(crate) document: Value,
    pub(crate) stderr: String,
}

impl Response {
    #[track_caller]
    pub(crate) fn result(self) -> Value {
        assert!(self.succeeded, "{self:?}");
        assert_eq!(self.stderr, "");
        self.document
    }

    /// Asserts that the plugin returned this error, with these parts of its message and details.
    #[track_caller]
    pub(crate) fn assert_error(&self, code: u32, parts: &[&str]) {
        assert!(!self.succeeded, "{self:?}");
        assert_eq!(self.document["code"], code, "{self:?}");
        let text = format!("{} {}", self.document["msg"], self.document["details"]);
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part:?}");
        }
    }
}

impl Node {
    pub(crate) fn new(wiring: &str) -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        let state = tempfile::tempdir().unwrap();
        // The link-local addresses of the uplink must be usable: neighbours of forwarded packets are solicited from them.
        for namespace in [&host, &outside] {
            namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        }
        host.run(&format!("ip link add uplink type veth peer name uplink netns {}", outside.name));
        for (namespace, number) in [(&host, 1), (&outside, 2)] {
            namespace.run("ip link set lo up");
            namespace.run("ip link set uplink up");
            namespace.run(&format!("ip addr add 192.0.2.{number}/24 dev uplink"));
            namespace.run(&format!("ip addr add 2001:db8::{number}/64 dev uplink nodad"));
        }
        outside.run("ip route add 10.244.1.0/24 via 192.0.2.1");
        outside.run("ip route add fd00:10:244:1::/64 via 2001:db8::1");
        host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let configuration = json!({
            "cniVersion": "1.1.0", "name": "portcullis", "type": "portcullis", "wiring": wiring, "mtu": 1400,
            "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
            "stateDir": state.path().join("pod-network"),
        });
        // The daemon creates it when it has set up the node.
        std::fs::create_dir(state.path().join("pod-network")).unwrap();
        Node { host, outside, state, configuration }
    }

    /// Returns a command that runs the plugin on the node, with this operation about a pod.
    pub(crate) fn command(&self, verb: &str, netns: &str, id: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.host.path()))
            .arg(env!("CARGO_BIN_EXE_portcullis"))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE_PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the plugin with a changed configuration.
    pub(crate) fn plugin_with(&self, verb: &str, netns: &str, id: &str, changes: &Value) -> Response {
        let mut configuration = self.configuration.clone();
        for (key, value) in changes.as_object().unwrap() {
            configuration[key] = value.clone();
        }
        respond(self.command(verb, netns, id), &configuration)
    }

    pub(crate) fn plugin(&self, verb: &str, pod: &Namespace) -> Response {
        self.plugin_with(verb, &pod.path(), &pod.name, &json!({}))
    }

    /// Adds a pod, and returns it with the result.
    #[track_caller]
    pub(crate) fn add_pod(&self) -> (Namespace, Value) {
        let pod = Namespace::new();
        let result = self.plugin("ADD", &pod).result();
        (pod, result)
    }

    #[track_caller]
    pub(crate) fn del(&self, pod: &Namespace) {
        assert_eq!(self.plugin("DEL", pod).result(), Value::Null);
    }

    pub(crate) fn check(&self, pod: &Namespace, result: &Value) -> Response {
        self.plugin_with("CHECK", &pod.path(), &pod.name, &json!({ "prevResult": result }))
    }

    pub(crate) fn state(&self, path: &str) -> PathBuf {
        self.state.path().join("pod-network").join(path)
    }

    /// Returns the names of the pods' interfaces on the node.
    pub(crate) fn pod_links(&self) -> Vec<String> {
        let links = self.host.run("ip -o link");
        let names = links.lines().filter_map(|line| line.split(": ").nth(1));
        names
            .filter_map(|name| name.split('@').next())
            .filter(|name| name.starts_with("pc"))
            .map(str::to_owned)
            .collect()
    }

    /// Asserts that no pod has left anything on the node.
    #[track_caller]
    pub(crate) fn assert_empty(&self, case: &str) {
        assert_eq!(self.pod_links(), [""; 0], "{case}");
        for folder in ["addresses", "attachments"] {
            let names: Vec<_> = std::fs::read_dir(self.state(folder))
                .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
                .unwrap_or_default();
            assert!(names.is_empty(), "{case}: {folder} has {names:?}");
        }
        for family in ["-4", "-6"] {
            let routes = self.host.run(&format!("ip {family} route show proto 80"));
            assert_eq!(routes, "", "{case}");
        }
    }
}

/// Runs a plugin with a configuration.
pub(crate) fn respond(mut command: Command, configuration: &Value) -> Response {
    let mut child = command.spawn().unwrap();
    // A plugin that rejects its environment may not read the configuration.
    let _ = child.stdin.take().unwrap().write_all(configuration.to_string().as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let document = match stdout.as_slice() {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes))),
    };
    Response { succeeded: status.success(), document, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Returns the addresses of a result, by family: "4" and "6".
pub(crate) fn addresses(result: &Value) -> HashMap<&'static str, String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter()
        .map(|ip| {
            let address = ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
            (if address.contains(':') { "6" } else { "4" }, address)
        })
        .collect()
}

/// Returns the name of the pod's interface on the node.
pub(crate) fn host_link(result: &Value) -> String {
    let interfaces = result["interfaces"].as_array().unwrap();
    let link = interfaces.iter().find(|interface| interface["name"].as_str().unwrap().starts_with("pc"));
    link.unwrap()["name"].as_str().unwrap().to_owned()
}
