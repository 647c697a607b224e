//! The plugin under test: its configuration, its records, and calls without the runtime.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;

use portcullis_podnet::addresses::AddressStore;

use crate::node::{Node, PROGRAM, succeed};
use crate::pod::{Task, running};

const STATE: &str = "/run/portcullis/pod-network";

/// All wirings.
pub(crate) const WIRINGS: [&str; 2] = ["ptp", "bridge"];

/// Returns the configuration of a node with two pod CIDRs, as the daemon writes it for containerd.
pub(crate) fn configuration(wiring: &str) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"portcullis","plugins":[{}]}}"#,
        plugin_configuration("", wiring)
    )
}

/// Returns the configuration that the plugin reads, with more keys in front.
fn plugin_configuration(keys: &str, wiring: &str) -> String {
    format!(
        r#"{{{keys}"type":"portcullis","wiring":"{wiring}","mtu":1450,"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"stateDir":"{STATE}","otherAddressDirs":["/var/lib/cni/networks"],"capabilities":{{"portMappings":true}}}}"#
    )
}

/// Replaces the plugin of a node by one that is killed by SIGKILL in two of five calls, after 0 to 60 ms.
pub(crate) fn kill_at_random(node: &Node) {
    let script = format!(
        r#"#!/bin/sh
random=$(od -An -N2 -tu2 /dev/urandom)
[ $((random % 5)) -ge 2 ] && exec {PROGRAM}
timeout --signal=KILL "0.$(printf %03d $((random % 60 + 1)))" {PROGRAM}
status=$?
[ $status = 137 ] && echo "$CNI_COMMAND" >>/run/kills
exit $status
"#
    );
    let path = node.path("/opt/cni/bin/portcullis");
    std::fs::remove_file(&path).expect("a link");
    std::fs::write(&path, script).expect("written");
    node.shell("chmod +x /opt/cni/bin/portcullis");
}

/// Undoes [`kill_at_random`], and returns the commands that were killed.
pub(crate) fn kill_no_more(node: &Node) -> Vec<String> {
    node.shell(&format!("ln -sf {PROGRAM} /opt/cni/bin/portcullis"));
    let kills = node.shell("cat /run/kills 2>/dev/null || true");
    kills.lines().map(str::to_owned).collect()
}

/// Calls `GC` with the running containers as valid attachments.
pub(crate) fn collect_garbage(node: &Node, wiring: &str) {
    let valid: Vec<String> = running(node)
        .iter()
        .map(|task| format!(r#"{{"containerID":"default-{}","ifname":"eth0"}}"#, task.id))
        .collect();
    let keys = format!(
        r#""cniVersion":"1.1.0","name":"portcullis","cni.dev/valid-attachments":[{}],"#,
        valid.join(",")
    );
    let mut command = node.command("env");
    command.args(["CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/portcullis"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(plugin_configuration(&keys, wiring).as_bytes()).expect("the plugin reads it");
    drop(stdin);
    succeed(child.wait_with_output().expect("a child"), "GC");
}

/// Returns the addresses of all attachments by container, as the plugin recorded them.
pub(crate) fn attachments(node: &Node) -> BTreeMap<String, Vec<IpAddr>> {
    let store = AddressStore::open(&node.path(STATE), &[], &[]).expect("no ranges");
    let listing = store.attachments().expect("readable");
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    let with_addresses = |attachment: portcullis_podnet::addresses::Attachment| {
        let mut addresses: Vec<IpAddr> = attachment.addresses.iter().map(|address| address.addr()).collect();
        addresses.sort();
        (attachment.key.container_id().to_owned(), addresses)
    };
    listing.attachments.into_iter().map(with_addresses).collect()
}

/// Checks that the running containers have the addresses that are recorded for them, one of each family and each only once.
pub(crate) fn check_addresses(node: &Node, tasks: &[Task]) {
    let recorded = attachments(node);
    let mut seen = HashSet::new();
    for task in tasks {
        let addresses = task.addresses(node);
        assert_eq!(recorded.get(&format!("default-{}", task.id)), Some(&addresses), "{task:?}");
        assert_eq!(addresses.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false], "{task:?}");
        for address in addresses {
            assert!(seen.insert(address), "{address} is that of two pods");
        }
    }
}

/// Checks that the running containers are all that is recorded and wired.
pub(crate) fn check_nothing_leaked(node: &Node) {
    let mut running: Vec<String> = running(node).iter().map(|task| format!("default-{}", task.id)).collect();
    running.sort();
    assert_eq!(attachments(node).into_keys().collect::<Vec<_>>(), running);
    let interfaces: Vec<String> = node.interfaces().into_iter().filter(|name| name != "cni0").collect();
    assert_eq!(interfaces.len(), running.len(), "{interfaces:?}");
    let reserved = std::fs::read_dir(node.path(STATE).join("addresses")).expect("a folder").count();
    assert_eq!(reserved, 2 * running.len());
}
