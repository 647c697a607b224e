//! The daemons of a test cluster: metrics, health, logs, stop and start.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{LabObject, NetNs, ObjectRef, Vantage};

use crate::settle::wait_until_settled;
use crate::test_cluster::{PATIENCE, TestCluster, daemon_args};
use crate::tools;

/// The nodes of every test cluster.
pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];

impl TestCluster {
    /// Creates or replaces objects, and waits until the daemons have settled.
    pub(crate) fn apply(&mut self, manifests: &str) {
        self.lab.apply_text(manifests).unwrap();
        wait_until_settled(&mut self.lab);
    }

    /// Deletes a NetworkPolicy of the namespace x, and waits until the daemons have settled.
    pub(crate) fn delete_policy(&mut self, name: &str) {
        self.lab.delete(&ObjectRef::new("NetworkPolicy", "x", name)).unwrap();
        wait_until_settled(&mut self.lab);
    }

    /// Sets a label of a running pod.
    pub(crate) fn label_pod(&mut self, name: &str, key: &str, value: &str) {
        let mut pod = self.lab.plan().pod(name).unwrap().object.clone();
        pod.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self.lab.apply([LabObject::Pod(pod)]).unwrap();
        wait_until_settled(&mut self.lab);
    }

    /// Returns a node's network namespace.
    pub(crate) fn netns(&self, node: &str) -> NetNs {
        self.lab.netns(&Vantage::node(node)).unwrap()
    }

    /// Returns the sum of a metric of a node's daemon over all series whose labels contain all of `labels`.
    pub(crate) fn metric(&self, node: &str, name: &str, labels: &[&str]) -> f64 {
        metric(&self.netns(node), name, labels)
    }

    /// Returns a daemon's response to `/healthz` with its headers.
    pub(crate) fn healthz(&self, node: &str) -> String {
        healthz(&self.netns(node))
    }

    /// Runs nft on a node and returns its output; it must succeed.
    pub(crate) fn nft(&self, node: &str, arguments: &[&str]) -> String {
        tools::output(self.netns(node).command("nft").args(arguments))
    }

    /// Returns the policy table without counter values, sorted, so that it does not depend on its history; empty if
    /// there is none.
    pub(crate) fn table(&self, node: &str) -> String {
        let arguments = ["--stateless", "list", "table", "inet", "portcullis-policy"];
        let output = self.netns(node).command("nft").args(arguments).output().unwrap();
        sorted(&String::from_utf8(output.stdout).unwrap())
    }

    /// Returns the log of a node's daemons.
    pub(crate) fn log(&self, node: &str) -> String {
        fs::read_to_string(self.lab.folder().join("logs").join(format!("{node}.log"))).unwrap()
    }

    /// Sends a node's daemon a signal.
    pub(crate) fn signal(&self, node: &str, signal: i32) {
        let pid = libc::pid_t::try_from(self.lab.daemon_pid(node).unwrap()).unwrap();
        // SAFETY: the process is a child of the lab and was not waited for yet, so its id is not reused.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Kills a node's daemon with SIGKILL, and waits for it.
    pub(crate) fn kill(&mut self, node: &str) {
        self.signal(node, libc::SIGKILL);
        self.lab.stop_daemon(node).unwrap();
    }

    /// Ends the daemons with `end`, and starts them again with these arguments.
    pub(crate) fn restart(&mut self, args: &[&str], end: fn(&mut Self, &str)) {
        self.lab.set_daemon_args(daemon_args("iptables", args));
        for node in NODES {
            end(self, node);
            self.lab.start_daemon(node).unwrap();
        }
        wait_until_settled(&mut self.lab);
    }

    /// Stops a node's daemon with SIGTERM.
    pub(crate) fn stop(&mut self, node: &str) {
        self.lab.stop_daemon(node).unwrap();
    }
}

/// Sorts a table's chains, sets and counters by name, and the elements of each set.
fn sorted(table: &str) -> String {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for line in table.lines().filter(|line| line.trim() != "}") {
        let begins = line.starts_with('\t') && !line.starts_with("\t\t") && line.ends_with('{');
        match parts.last_mut() {
            Some(part) if !begins => part.push(line.trim()),
            _ => parts.push(vec![line.trim()]),
        }
    }
    let text = parts.into_iter().map(|part| {
        if part[0].starts_with("chain ") {
            return part.join("\n");
        }
        let mut words: Vec<&str> = part[1..].iter().flat_map(|line| line.split([' ', ','])).collect();
        words.sort_unstable();
        format!("{} {}", part[0], words.join(" ").trim())
    });
    let mut text: Vec<String> = text.collect();
    text.sort();
    text.join("\n")
}

/// Waits until a condition holds, and returns the time that it took. `what` describes the condition for the failure.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Returns the sum of a metric of a namespace's daemon over all series whose labels contain all of `labels`.
pub(crate) fn metric(netns: &NetNs, name: &str, labels: &[&str]) -> f64 {
    let text = tools::http_get(netns, "127.0.0.1:10249", "/metrics").unwrap();
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && labels.iter().all(|l| line.contains(l))
    });
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Returns the response of a namespace's daemon to `/healthz` with its headers.
pub(crate) fn healthz(netns: &NetNs) -> String {
    tools::http_get(netns, "127.0.0.1:10256", "/healthz").unwrap()
}
