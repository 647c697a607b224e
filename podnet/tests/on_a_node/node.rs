//! A node with two pods and a host outside, in network namespaces:
//!
//! ```text
//!  outside 192.0.2.2 ── uplink ── node 192.0.2.1 ── pcp1 ── pod 1, 10.244.1.5
//!          2001:db8::2             2001:db8::1 │         fd00:10:244:1::5
//!                                              └─ pcp2 ── pod 2, 10.244.1.6
//! ```

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

static CREATED: AtomicU32 = AtomicU32::new(0);

pub(crate) const OUTSIDE: &str = "outside";
pub(crate) const NODE: &str = "node";
pub(crate) const POD_1: &str = "pod1";
pub(crate) const POD_2: &str = "pod2";

pub(crate) const NODE_IPS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const OUTSIDE_IPS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub(crate) const POD_1_IPS: [&str; 2] = ["10.244.1.5", "fd00:10:244:1::5"];
pub(crate) const POD_2_IPS: [&str; 2] = ["10.244.1.6", "fd00:10:244:1::6"];

/// The namespaces. They are deleted with the value.
pub(crate) struct Node {
    prefix: String,
    /// Pods beside the first two.
    pods: Vec<&'static str>,
    pub(crate) state: tempfile::TempDir,
}

pub(crate) fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
    texts.map(|text| text.parse().expect("an address")).to_vec()
}

impl Node {
    pub(crate) fn new() -> Self {
        let number = CREATED.fetch_add(1, Ordering::SeqCst);
        let prefix = format!("hp{}-{number}-", std::process::id());
        let node = Node { prefix, pods: Vec::new(), state: tempfile::tempdir().expect("a temporary folder") };
        for name in [OUTSIDE, NODE, POD_1, POD_2] {
            let added = Command::new("ip").args(["netns", "add", &node.name(name)]).status();
            assert!(
                added.is_ok_and(|status| status.success()),
                "these tests make network namespaces and need root"
            );
            node.ip(name, "link set lo up");
            // Without it, link-local addresses are usable after up to 2 s, and neighbours are not found before.
            for interfaces in ["all", "default"] {
                node.sysctl(name, &format!("ipv6/conf/{interfaces}/accept_dad"), "0");
            }
        }
        let nodes = node.name(NODE);
        node.ip(OUTSIDE, &format!("link add uplink type veth peer name uplink netns {nodes}"));
        for (name, [v4, v6]) in [(OUTSIDE, OUTSIDE_IPS), (NODE, NODE_IPS)] {
            node.ip(
                name,
                &format!(
                    "addr add {v4}/24 dev uplink\naddr add {v6}/64 dev uplink nodad\nlink set uplink up"
                ),
            );
        }
        // A router that forwards everything to the node.
        node.ip(OUTSIDE, "route add default via 192.0.2.1\nroute add default via 2001:db8::1");
        for (name, interface, [v4, v6]) in [(POD_1, "pcp1", POD_1_IPS), (POD_2, "pcp2", POD_2_IPS)] {
            node.ip(
                name,
                &format!(
                    "link add eth0 type veth peer name {interface} netns {nodes}\n\
                     addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\nlink set eth0 up"
                ),
            );
            node.ip(
                NODE,
                &format!(
                    "addr add 169.254.1.1/32 dev {interface} scope link\naddr add fe80::1/64 dev {interface} nodad\n\
                     link set {interface} up\nroute add {v4} dev {interface}\nroute add {v6} dev {interface}"
                ),
            );
            node.ip(
                name,
                "route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1 dev eth0\n\
                 route add default via fe80::1 dev eth0",
            );
        }
        for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            node.sysctl(NODE, sysctl, "1");
        }
        node
    }

    /// Adds a namespace without interfaces, deleted with the others.
    pub(crate) fn add_pod(&mut self, name: &'static str) {
        assert!(
            Command::new("ip").args(["netns", "add", &self.name(name)]).status().is_ok_and(|s| s.success())
        );
        self.pods.push(name);
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs lines of `ip -batch` in a namespace.
    pub(crate) fn ip(&self, name: &str, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name(name), "-batch", "-"]).stdin(Stdio::piped());
        let mut child = command.spawn().expect("ip of iproute2");
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads its input");
        assert!(child.wait().is_ok_and(|status| status.success()), "{name}: {lines}");
    }

    /// Runs a program in a namespace and returns its output.
    pub(crate) fn run(&self, name: &str, line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.inside(name, move || {
            let output = Command::new(&words[0]).args(&words[1..]).output().expect("a program");
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{words:?}: {error}");
            String::from_utf8(output.stdout).expect("text")
        })
    }

    pub(crate) fn sysctl(&self, name: &str, setting: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/net/{setting}"), value.to_owned());
        self.inside(name, move || {
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
    }

    /// Runs a function in a namespace and waits for it.
    pub(crate) fn inside<T: Send>(&self, name: &str, function: impl FnOnce() -> T + Send) -> T {
        let namespace = self.open(name);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&namespace);
                function()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread in a namespace.
    pub(crate) fn spawn(&self, name: &str, function: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let namespace = self.open(name);
        thread::spawn(move || {
            enter(&namespace);
            function();
        })
    }

    fn open(&self, name: &str) -> File {
        File::open(format!("/run/netns/{}", self.name(name))).expect("the namespace exists")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for name in [OUTSIDE, NODE, POD_1, POD_2].iter().chain(&self.pods) {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(name)]).status();
        }
    }
}

fn enter(namespace: &File) {
    // SAFETY: no pointers are passed, and only this thread changes its namespace.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
}
