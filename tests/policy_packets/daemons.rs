//! The daemons of a town: what they say, and their ends and starts.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{NetNs, Object, ObjectRef, Vantage};

use crate::rest::wait_for_rest;
use crate::tools;
use crate::town::{PATIENCE, Town, daemon_args};

/// The nodes of every town.
pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];

impl Town {
    /// Makes or replaces objects, and waits until the daemons are at rest.
    pub(crate) fn apply(&mut self, manifests: &str) {
        self.lab.apply_text(manifests).unwrap();
        wait_for_rest(&mut self.lab);
    }

    /// Deletes a NetworkPolicy of the namespace x, and waits until the daemons are at rest.
    pub(crate) fn delete_policy(&mut self, name: &str) {
        self.lab.delete(&ObjectRef::new("NetworkPolicy", "x", name)).unwrap();
        wait_for_rest(&mut self.lab);
    }

    /// Labels a pod that runs.
    pub(crate) fn label_pod(&mut self, name: &str, key: &str, value: &str) {
        let mut pod = self.lab.plan().pod(name).unwrap().object.clone();
        pod.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self.lab.apply([Object::Pod(pod)]).unwrap();
        wait_for_rest(&mut self.lab);
    }

    /// A node's network namespace.
    pub(crate) fn netns(&self, node: &str) -> NetNs {
        self.lab.netns(&Vantage::node(node)).unwrap()
    }

    /// The sum of a metric of a node's daemon, over the series whose labels contain all of `labels`.
    pub(crate) fn metric(&self, node: &str, name: &str, labels: &[&str]) -> f64 {
        metric(&self.netns(node), name, labels)
    }

    /// A daemon's answer to `/healthz`, headers and all.
    pub(crate) fn healthz(&self, node: &str) -> String {
        healthz(&self.netns(node))
    }

    /// What nft prints on a node; it must succeed.
    pub(crate) fn nft(&self, node: &str, arguments: &[&str]) -> String {
        tools::output(self.netns(node).command("nft").args(arguments))
    }

    /// The policies' table without counters, in an order that does not hang on how it came to be; nothing where there
    /// is none.
    pub(crate) fn table(&self, node: &str) -> String {
        let arguments = ["--stateless", "list", "table", "inet", "portcullis-policy"];
        let output = self.netns(node).command("nft").args(arguments).output().unwrap();
        in_order(&String::from_utf8(output.stdout).unwrap())
    }

    /// What a node's daemons have logged so far.
    pub(crate) fn log(&self, node: &str) -> String {
        fs::read_to_string(self.lab.folder().join("logs").join(format!("{node}.log"))).unwrap()
    }

    /// Sends a node's daemon a signal.
    pub(crate) fn signal(&self, node: &str, signal: i32) {
        let pid = libc::pid_t::try_from(self.lab.daemon_pid(node).unwrap()).unwrap();
        // SAFETY: the process is the lab's child and was not waited for yet, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Kills a node's daemon as an out-of-memory killer would, and collects it.
    pub(crate) fn kill(&mut self, node: &str) {
        self.signal(node, libc::SIGKILL);
        self.lab.stop_daemon(node).unwrap();
    }

    /// Ends the daemons, in this way, and starts others with other arguments.
    pub(crate) fn restart(&mut self, args: &[&str], end: fn(&mut Self, &str)) {
        self.lab.set_daemon_args(daemon_args("iptables", args));
        for node in NODES {
            end(self, node);
            self.lab.start_daemon(node).unwrap();
        }
        wait_for_rest(&mut self.lab);
    }

    /// Ends a node's daemon by SIGTERM.
    pub(crate) fn stop(&mut self, node: &str) {
        self.lab.stop_daemon(node).unwrap();
    }
}

/// A table's chains, sets and counters in the order of their names, with the elements of each set in order.
fn in_order(table: &str) -> String {
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

/// Waits until something is so; `what` says what, for the failure. Gives the time that it took.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// The sum of a metric of a namespace's daemon, over the series whose labels contain all of `labels`.
pub(crate) fn metric(netns: &NetNs, name: &str, labels: &[&str]) -> f64 {
    let text = tools::http_get(netns, "127.0.0.1:10249", "/metrics").unwrap();
    let of_name = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && labels.iter().all(|l| line.contains(l))
    });
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// The answer of a namespace's daemon to `/healthz`, headers and all.
pub(crate) fn healthz(netns: &NetNs) -> String {
    tools::http_get(netns, "127.0.0.1:10256", "/healthz").unwrap()
}
