//! The plugin killed at any point.

use std::io::Write;
use std::time::Duration;
use std::{fs, thread};

use serde_json::json;

use super::node::{Namespace, Node, WIRINGS, addresses};

/// Kills after delays from nothing to more than an `ADD` takes.
const KILLS: u32 = 40;

#[test]
fn what_a_killed_add_leaves_is_removed_by_del() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let mut was_partial = 0;
        for attempt in 0..KILLS {
            let pod = Namespace::new();
            kill_after(&node, "ADD", &pod, attempt);
            was_partial += u32::from(!node.pod_links().is_empty());
            node.del(&pod);
            node.assert_empty(&format!("{wiring}, attempt {attempt}"));
        }
        println!("{wiring}: {was_partial} of {KILLS} left an interface");
    }
}

#[test]
fn what_killed_adds_and_dels_leave_is_removed_by_gc() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let (kept, result) = node.add_pod();
        let mut pods = Vec::new();
        for attempt in 0..KILLS {
            let pod = Namespace::new();
            kill_after(&node, "ADD", &pod, attempt);
            if attempt % 3 == 0 {
                kill_after(&node, "DEL", &pod, attempt / 2);
            }
            pods.push(pod);
        }
        let valid = json!([{ "containerID": kept.name, "ifname": "eth0" }]);
        let response = node.plugin_with("GC", "", "", &json!({ "cni.dev/valid-attachments": valid }));
        assert!(response.succeeded, "{response:?}");
        assert_eq!(node.pod_links().len(), 1);
        assert_eq!(fs::read_dir(node.state("addresses")).unwrap().count(), 2);
        assert!(node.check(&kept, &result).succeeded);
        // A killed `ADD` can be repeated in the same namespace.
        let repeated = node.plugin("ADD", &pods[0]).result();
        kept.assert_ping(&addresses(&repeated)["4"], wiring);
        node.del(&pods[0]);
        node.del(&kept);
        node.assert_empty(wiring);
    }
}

/// Starts an operation and kills it with SIGKILL, later in each attempt.
fn kill_after(node: &Node, verb: &str, pod: &Namespace, attempt: u32) {
    let mut child = node.command(verb, &pod.path(), &pod.name).spawn().unwrap();
    child.stdin.take().unwrap().write_all(node.configuration.to_string().as_bytes()).unwrap();
    thread::sleep(Duration::from_micros(u64::from(attempt) * 400));
    child.kill().unwrap();
    child.wait().unwrap();
}
