//! Pods: a sandbox container with `portcullis pause`, whose network the client of containerd configures, and other containers that
//! join its network namespace, as the kubelet starts them.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use crate::node::{Node, TIMEOUT, succeed, wait_until};

/// A sandbox container that was requested. Its client calls `DEL` when the container ends.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: String,
    client: Child,
}

/// A running container of a node, as `ctr task ls` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) process: u32,
}

impl Pod {
    /// Starts a pod, and does not wait for it.
    pub(crate) fn start(node: &Node, id: &str) -> Self {
        let rootfs = node.rootfs();
        let mut command = node.ctr(&["run", "--rm", "--cni", "--cgroup", "", "--read-only", "--rootfs"]);
        command.arg(rootfs).args([id, "/bin/portcullis", "pause"]);
        let client = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("nsenter runs");
        Self { id: id.to_owned(), client }
    }

    /// Returns whether the client has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.client.try_wait().expect("a child").is_some()
    }

    /// Waits for the end of the client. Returns its messages, as an error if it failed.
    pub(crate) fn wait(mut self) -> Result<(), String> {
        wait_until(&format!("the end of pod {}", self.id), || self.has_ended().then_some(()));
        let output = self.client.wait_with_output().expect("a child");
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(messages) }
    }
}

/// Returns the running containers of a node.
pub(crate) fn running(node: &Node) -> Vec<Task> {
    running_in(node, "default")
}

/// Returns the running containers of a node in a namespace of containerd.
pub(crate) fn running_in(node: &Node, namespace: &str) -> Vec<Task> {
    let listed = node.ctr(&["--namespace", namespace, "task", "ls"]).output();
    let output = succeed(listed.expect("nsenter runs"), "ctr task ls");
    let lines = output.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|fields| match fields[..] {
            [id, process, "RUNNING"] => Some(Task { id: id.to_owned(), process: process.parse().ok()? }),
            _ => None,
        })
        .collect()
}

/// Starts pods at the same time, and waits until each of them runs.
pub(crate) fn start_all(node: &Node, ids: &[String]) -> Vec<Pod> {
    let mut pods: Vec<Pod> = ids.iter().map(|id| Pod::start(node, id)).collect();
    wait_until("pods", || {
        if let Some(position) = pods.iter_mut().position(Pod::has_ended) {
            let pod = pods.swap_remove(position);
            let id = pod.id.clone();
            panic!("pod {id} ended: {:?}", pod.wait());
        }
        (running(node).len() == ids.len()).then_some(())
    });
    pods
}

/// Ends pods by SIGTERM to their first process, and waits until their clients have called `DEL`.
pub(crate) fn stop_all(node: &Node, pods: Vec<Pod>) {
    for pod in &pods {
        let output = node.ctr(&["task", "kill", "--signal", "SIGTERM", &pod.id]).output();
        succeed(output.expect("nsenter runs"), "ctr task kill");
    }
    for pod in pods {
        let id = pod.id.clone();
        pod.wait().unwrap_or_else(|messages| panic!("pod {id}: {messages}"));
    }
}

impl Task {
    /// Runs a command of busybox in the network namespace of the container.
    pub(crate) fn busybox(&self, node: &Node, arguments: &[&str]) -> Result<String, String> {
        let mut command = node.command("nsenter");
        command.args(["--target", &self.process.to_string(), "--net", "busybox"]).args(arguments);
        let output = command.output().expect("nsenter runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
    }

    /// Returns the addresses of `eth0`, without link-local ones.
    pub(crate) fn addresses(&self, node: &Node) -> Vec<IpAddr> {
        let text = self.busybox(node, &["ip", "-o", "addr", "show", "dev", "eth0"]).expect("eth0 exists");
        let mut addresses: Vec<IpAddr> = text
            .lines()
            .filter(|line| !line.contains("scope link"))
            .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok())
            .collect();
        addresses.sort();
        addresses
    }

    /// Sends a packet to an address, and waits for the reply.
    pub(crate) fn ping(&self, node: &Node, address: IpAddr) -> Result<(), String> {
        let seconds = TIMEOUT.as_secs().min(20).to_string();
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        self.busybox(node, &["ping", family, "-c", "1", "-w", &seconds, &address.to_string()]).map(drop)
    }
}
