//! Pods of a node: their connections, many at the same time, and a plugin that is killed.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::node::{Node, wait_until};
use crate::plugin::{
    WIRINGS, attachments, check_addresses, check_nothing_leaked, collect_garbage, configuration,
    kill_at_random, kill_no_more,
};
use crate::pod::{Pod, running, start_all, stop_all};

/// Pods that are started at the same time.
const MANY: usize = 100;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("pod{number}")).collect()
}

#[test]
fn pods_reach_each_other() {
    for wiring in WIRINGS {
        let node = Node::start(&configuration(wiring));
        let pods = start_all(&node, &names(3));
        let tasks = running(&node);
        check_addresses(&node, &tasks);
        for from in &tasks {
            for to in &tasks {
                for address in to.addresses(&node) {
                    from.ping(&node, address)
                        .unwrap_or_else(|error| panic!("{wiring}: {from:?} to {to:?}: {error}"));
                }
            }
        }
        // Another container of the first pod.
        let network = format!("network:/proc/{}/ns/net", tasks[0].process);
        let mut server = node.ctr(&["run", "--rm", "--cgroup", "", "--with-ns", &network, "--rootfs"]);
        server.arg(node.rootfs()).args(["server", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
        let mut server = server.spawn().expect("nsenter runs");
        for address in tasks[0].addresses(&node) {
            let response = wait_until("the server", || {
                let request = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {address} 8080");
                tasks[1].busybox(&node, &["sh", "-c", &request]).ok().filter(|response| !response.is_empty())
            });
            assert!(response.ends_with("\r\nhello\n"), "{wiring}: {address}: {response}");
        }
        node.ctr(&["task", "kill", "--signal", "SIGKILL", "server"]).output().expect("nsenter runs");
        server.wait().expect("a child");
        stop_all(&node, pods);
        check_nothing_leaked(&node);
    }
}

#[test]
fn a_hundred_pods_start_at_the_same_time() {
    let node = Node::start(&configuration("ptp"));
    let pods = start_all(&node, &names(MANY));
    let tasks = running(&node);
    check_addresses(&node, &tasks);
    check_nothing_leaked(&node);
    // Each to its neighbour in the list.
    for (from, to) in tasks.iter().zip(tasks.iter().cycle().skip(1)) {
        for address in to.addresses(&node) {
            from.ping(&node, address).unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
        }
    }
    stop_all(&node, pods);
    check_nothing_leaked(&node);
    assert!(attachments(&node).is_empty());
}

#[test]
fn killed_plugins_neither_share_nor_leak_addresses() {
    for wiring in WIRINGS {
        let node = Node::start(&configuration(wiring));
        kill_at_random(&node);
        let mut pods: Vec<Pod> = names(40).iter().map(|name| Pod::start(&node, name)).collect();
        wait_until("all pods", || {
            let ended = pods.iter_mut().filter_map(|pod| pod.has_ended().then_some(())).count();
            (running(&node).len() + ended == pods.len()).then_some(())
        });
        let tasks = running(&node);
        check_addresses(&node, &tasks);
        // The runtime removes some of them while the plugin is still killed at random.
        let (stopped, kept) = pods
            .into_iter()
            .filter(|pod| tasks.iter().any(|task| task.id == pod.id))
            .enumerate()
            .partition::<Vec<_>, _>(|(number, _)| number % 2 == 0);
        for (_, pod) in stopped {
            node.ctr(&["task", "kill", "--signal", "SIGTERM", &pod.id]).output().expect("nsenter runs");
            // Its DEL may have been killed.
            let _ = pod.wait();
        }
        let kills = kill_no_more(&node);
        println!("{wiring}: {} of 40 pods started; killed: {kills:?}", tasks.len());
        assert!(!kills.is_empty());
        collect_garbage(&node, wiring);
        check_nothing_leaked(&node);
        let tasks = running(&node);
        check_addresses(&node, &tasks);
        // All addresses can be used again.
        let more = start_all_beside(&node, tasks.len());
        check_addresses(&node, &running(&node));
        stop_all(&node, kept.into_iter().map(|(_, pod)| pod).chain(more).collect());
        check_nothing_leaked(&node);
    }
}

/// As long as the pods are wired by routes to their addresses.
#[test]
fn running_pods_keep_their_addresses_if_their_records_are_removed() {
    let node = Node::start(&configuration("ptp"));
    let mut pods = start_all(&node, &names(4));
    node.shell("rm -r /run/portcullis/pod-network/*");
    pods.extend(start_all_beside(&node, pods.len()));
    let tasks = running(&node);
    let addresses: HashSet<IpAddr> = tasks.iter().flat_map(|task| task.addresses(&node)).collect();
    assert_eq!(addresses.len(), 2 * tasks.len());
    for (from, to) in tasks.iter().zip(tasks.iter().cycle().skip(1)) {
        for address in to.addresses(&node) {
            from.ping(&node, address).unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
        }
    }
    stop_all(&node, pods);
    check_nothing_leaked(&node);
}

/// Starts ten pods on a node with running ones.
fn start_all_beside(node: &Node, running_before: usize) -> Vec<Pod> {
    let pods: Vec<Pod> = (0..10).map(|number| Pod::start(node, &format!("more{number}"))).collect();
    wait_until("more pods", || (running(node).len() == running_before + pods.len()).then_some(()));
    pods
}
