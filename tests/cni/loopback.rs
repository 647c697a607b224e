//! The plugin `loopback`, as containerd runs it for each pod.

use serde_json::{Value, json};

use super::node::{Namespace, Node, Response};

/// Runs the plugin with the configuration of containerd, which has nothing of ours, and with these changes.
fn loopback(node: &Node, verb: &str, pod: &Namespace, changes: &Value) -> Response {
    let mut configuration = json!({
        "cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback", "podCIDRs": [], "stateDir": "/nonexistent",
    });
    for (key, value) in changes.as_object().unwrap() {
        configuration[key] = value.clone();
    }
    node.plugin_with(verb, &pod.path(), &pod.name, &configuration)
}

fn is_up(pod: &Namespace) -> bool {
    pod.run("ip -o link show lo").contains(",UP")
}

#[test]
fn loopback_is_set_up_in_a_pod() {
    let (node, pod) = (Node::new("ptp"), Namespace::new());
    pod.run("ip link set lo down");
    let added = loopback(&node, "ADD", &pod, &json!({})).result();
    assert!(is_up(&pod));
    let interface = json!({"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path()});
    assert_eq!((&added["cniVersion"], &added["interfaces"]), (&json!("0.3.1"), &json!([interface])));
    let addresses: Vec<&str> =
        added["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["127.0.0.1/8", "::1/128"]);
    // Again, and after another plugin.
    assert_eq!(loopback(&node, "ADD", &pod, &json!({})).result(), added);
    let previous = json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.0.0.5/24"}]});
    let passed = loopback(&node, "ADD", &pod, &json!({"prevResult": previous})).result();
    assert_eq!(passed["ips"], previous["ips"]);

    let check = |pod| loopback(&node, "CHECK", pod, &json!({"cniVersion": "1.0.0", "prevResult": added}));
    assert!(check(&pod).succeeded);
    pod.run("ip link set lo down");
    check(&pod).assert_error(102, &["interface lo is down"]);
    // Nothing is left of it, whether the pod exists or not.
    let (id, no_netns) = (&pod.name, json!({"type": "loopback", "podCIDRs": []}));
    for path in [pod.path(), "/nonexistent".to_owned()] {
        assert!(node.plugin_with("DEL", &path, id, &no_netns).succeeded);
    }
    assert!(node.plugin_with("STATUS", "", "", &no_netns).succeeded);
    let missing = node.plugin_with("ADD", "/nonexistent", id, &no_netns);
    missing.assert_error(4, &["CNI_NETNS: /nonexistent"]);
    node.assert_empty("loopback");
}
