//! Pod sandboxes that the kubelet's side of containerd starts: with our image as the sandbox image, and our network.

use std::fs;
use std::net::IpAddr;

use crate::cri::Cri;
use crate::node::{Node, succeed, wait_until};
use crate::plugin::{WIRINGS, attachments, configuration};
use crate::pod::{Task, running_in};
use crate::sandbox_image;

/// The namespace of containerd in which the kubelet's containers are.
const KUBELET: &str = "k8s.io";

const HOST_PORT: u16 = 8080;

#[test]
fn kubelet_starts_pods_with_our_sandbox_image_and_network() {
    WIRINGS.iter().for_each(|wiring| run_sandboxes(wiring));
}

fn run_sandboxes(wiring: &str) {
    let node = start(&configuration(wiring));
    let cri = Cri(&node);
    assert_eq!(cri.missing_conditions(), [] as [String; 0], "runtime and network are ready");
    let first = cri.run_pod_sandbox("first", Some(HOST_PORT)).expect("it starts");
    let second = cri.run_pod_sandbox("second", None).expect("it starts");
    let tasks = [&first, &second].map(|id| sandbox_task(&node, id));
    for (id, task) in [&first, &second].into_iter().zip(&tasks) {
        let status = cri.pod_sandbox_status(id);
        assert!(status.is_ready, "{status:?}");
        assert_eq!(attachments(&node).get(id), Some(&status.addresses));
        assert_eq!(status.addresses, task.addresses(&node));
        assert_eq!(status.addresses.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false]);
        let command = fs::read_to_string(node.path(&format!("/proc/{}/cmdline", task.process)));
        assert_eq!(command.expect("it runs"), "/bin/portcullis\0pause\0");
    }
    for address in tasks[1].addresses(&node) {
        tasks[0].ping(&node, address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    // Only the kubelet's side of the runtime passes host ports to the plugin.
    let has_host_port = || node.shell("nft list ruleset").contains(&HOST_PORT.to_string());
    assert!(has_host_port());

    cri.remove_pod_sandbox(&first);
    assert_eq!(attachments(&node).into_keys().collect::<Vec<_>>(), std::slice::from_ref(&second));
    assert!(!has_host_port());
    // The process of a sandbox ends: the kubelet sees it, and removes the sandbox.
    node.shell(&format!("kill -TERM {}", tasks[1].process));
    wait_until("the end of the sandbox", || (!cri.pod_sandbox_status(&second).is_ready).then_some(()));
    cri.remove_pod_sandbox(&second);
    assert!(attachments(&node).is_empty());
    // The bridge stays.
    let pods = node.interfaces().into_iter().filter(|name| name != "cni0");
    assert_eq!(pods.collect::<Vec<_>>(), [] as [String; 0], "{wiring}");
}

#[test]
fn kubelet_learns_why_a_pod_gets_no_network() {
    // A range of one address.
    let node = start(&configuration("ptp").replace("10.244.1.0/24", "10.244.1.0/30"));
    let cri = Cri(&node);
    let first = cri.run_pod_sandbox("first", None).expect("it starts");
    let error = cri.run_pod_sandbox("second", None).expect_err("no address is free");
    assert!(error.contains("10.244.1.0/30"), "{error}");
    assert_eq!(
        attachments(&node).into_keys().collect::<Vec<_>>(),
        std::slice::from_ref(&first),
        "nothing of it is left"
    );
    cri.remove_pod_sandbox(&first);
    let again = cri.run_pod_sandbox("second", None).expect("the address is free again");
    cri.remove_pod_sandbox(&again);
}

/// Starts a node that has the sandbox image.
fn start(configuration: &str) -> Node {
    let node = Node::start_with_cri(configuration, sandbox_image::NAME);
    let archive = sandbox_image::write(&node.rootfs(), node.folder());
    let import = node.ctr(&["--namespace", KUBELET, "images", "import"]).arg(archive).output();
    succeed(import.expect("nsenter runs"), "ctr images import");
    node
}

/// Returns the process of a sandbox.
fn sandbox_task(node: &Node, id: &str) -> Task {
    let tasks = running_in(node, KUBELET);
    tasks.into_iter().find(|task| task.id == id).unwrap_or_else(|| panic!("sandbox {id} runs"))
}
