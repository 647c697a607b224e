//! The plugin on the oldest kernel that is supported.

use portcullis_lab::NetNs;
use portcullis_machines::qemu;
use portcullis_podnet::Wiring;
use portcullis_podnet::source_check::{self, SourceCheck};
use serde_json::json;

use super::node::{Namespace, Node, WIRINGS, addresses};

#[test]
fn pods_are_wired_checked_and_removed_on_the_oldest_kernel() {
    qemu::inside(|| WIRINGS.iter().for_each(|wiring| wire_pods(wiring)));
}

fn wire_pods(wiring: &str) {
    let node = Node::new(wiring);
    let host = NetNs::new(&node.host.name);
    let wanted = Wiring::from_name(wiring);
    host.run(|| SourceCheck::open().unwrap().unwrap().sync(wanted).unwrap()).unwrap();
    let (first, result) = node.add_pod();
    // With a host port, for which the plugin writes its table.
    let second = Namespace::new();
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    let other = node.plugin_with("ADD", &second.path(), &second.name, &ports).result();
    let case = format!("{wiring} on {}", node.host.run("uname -r").trim());
    for address in addresses(&other).values() {
        first.assert_ping(address, &case);
        node.host.assert_ping(address, &case);
        node.outside.assert_ping(address, &case);
    }
    for target in ["192.0.2.2", "2001:db8::2"] {
        first.assert_ping(target, &case);
    }
    let checked = node.check(&first, &result);
    assert!(checked.succeeded, "{case}: {checked:?}");
    let forwarded = node.host.run("nft list map inet portcullis-host-ports all-ip-ports-4");
    assert!(forwarded.contains("8080"), "{case}: {forwarded}");
    assert_eq!(host.run(|| source_check::dropped_packets().unwrap()).unwrap(), Some(0), "{case}");
    node.del(&first);
    node.del(&second);
    node.assert_empty(&case);
}
