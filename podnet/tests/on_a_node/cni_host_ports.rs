//! Host ports by the CNI plugin: each operation of a runtime, with real packets.

use std::path::Path;
use std::process::ExitCode;

use portcullis_podnet::addresses::AddressStore;
use portcullis_podnet::cni;
use portcullis_podnet::host_ports::{HostPortRecords, HostPorts, PodHostPorts};
use serde_json::{Value, json};

use crate::node::{NODE, NODE_IPS, Node, OUTSIDE};
use crate::traffic::{serve, tcp};

/// Executes an operation for a pod, whose container ID is the name of its namespace. Returns the result, or the error.
fn run(node: &Node, verb: &str, pod: &str, state: &Path, more: &Value) -> Result<Value, Value> {
    let mut configuration = json!({
        "cniVersion": "1.1.0", "name": "portcullis", "type": "portcullis", "stateDir": state,
        "podCIDRs": ["10.244.3.0/24", "fd00:10:244:3::/64"],
    });
    configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let netns = format!("/run/netns/{}", node.name(pod));
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => verb,
            "CNI_CONTAINERID" => pod,
            "CNI_NETNS" => &netns,
            "CNI_IFNAME" => "eth0",
            _ => return None,
        };
        Some(value.into())
    };
    let mut output = Vec::new();
    let exit = node.inside(NODE, || cni::main(variable, configuration.to_string().as_bytes(), &mut output));
    let document = serde_json::from_slice(&output).unwrap_or(Value::Null);
    if exit == ExitCode::SUCCESS { Ok(document) } else { Err(document) }
}

fn ports(mappings: Value) -> Value {
    json!({"capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mappings}})
}

fn table(node: &Node) -> String {
    node.run(NODE, "nft list table inet portcullis-host-ports")
}

#[test]
fn host_ports_follow_the_operations_of_a_runtime() {
    let mut node = Node::new();
    node.add_pod("pod3");
    node.add_pod("pod4");
    let state = node.state.path().to_owned();
    let reaches =
        |node: &Node, port| tcp(node, OUTSIDE, NODE_IPS[0], port).split(' ').next().unwrap().to_owned();

    let mappings = ports(json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1"},
    ]));
    let added = run(&node, "ADD", "pod3", &state, &mappings).unwrap();
    serve(&node, "pod3", 80);
    assert_eq!(reaches(&node, 8080), "pod3");
    assert_eq!(tcp(&node, NODE, "127.0.0.1", 8081).split(' ').next(), Some("pod3"), "by route_localnet");
    assert_eq!(reaches(&node, 8081), "refused");

    let mut check = mappings.clone();
    check["prevResult"] = added;
    run(&node, "CHECK", "pod3", &state, &check).unwrap();
    node.run(NODE, "nft flush ruleset");
    let error = run(&node, "CHECK", "pod3", &state, &check).unwrap_err();
    assert_eq!(error["code"], 102, "{error}");
    assert!(
        error["msg"].as_str().unwrap().contains("host port 8080/tcp does not lead to the pod"),
        "{error}"
    );
    // The daemon restores it from the record.
    let restore = || {
        let listing = AddressStore::open(&state, &[], &[]).unwrap().attachments().unwrap();
        Ok(HostPortRecords {
            pods: listing.attachments.iter().map(PodHostPorts::from).collect(),
            is_complete: true,
        })
    };
    node.inside(NODE, || HostPorts::open(&state).unwrap().restore(restore).unwrap());
    run(&node, "CHECK", "pod3", &state, &check).unwrap();
    assert_eq!(reaches(&node, 8080), "pod3");

    // A port that another pod has: nothing of the second pod is left.
    let before = table(&node);
    let same =
        ports(json!([{"hostPort": 9090, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80}]));
    let error = run(&node, "ADD", "pod4", &state, &same).unwrap_err();
    assert_eq!(error["code"], 104, "{error}");
    assert!(
        error["msg"].as_str().unwrap().starts_with("host port 8080/tcp is in use by the pod at 10.244.3."),
        "{error}"
    );
    assert_eq!(table(&node), before);
    let attachments =
        || AddressStore::open(&state, &[], &[]).unwrap().attachments().unwrap().attachments.len();
    assert_eq!(attachments(), 1);

    for _ in 0..2 {
        run(&node, "DEL", "pod3", &state, &json!({})).unwrap();
        assert!(!table(&node).contains("10.244.3."), "{}", table(&node));
    }
    run(&node, "ADD", "pod4", &state, &same).unwrap();
    serve(&node, "pod4", 80);
    assert_eq!([reaches(&node, 8080), reaches(&node, 9090)], ["pod4", "pod4"]);
    run(&node, "GC", "pod4", &state, &json!({"cni.dev/valid-attachments": []})).unwrap();
    assert!(!table(&node).contains("10.244.3.") && attachments() == 0, "{}", table(&node));
}

#[test]
fn a_node_that_was_not_set_up_since_it_booted_gets_no_pods() {
    let mut node = Node::new();
    node.add_pod("pod3");
    let state = node.state.path().join("after-a-reboot");
    let none = json!({});
    for (verb, code) in [("STATUS", 50), ("ADD", 11)] {
        let error = run(&node, verb, "pod3", &state, &none).unwrap_err();
        assert_eq!(error["code"], code, "{verb}: {error}");
        assert!(error.to_string().contains("has not set up this node since it booted"), "{verb}: {error}");
    }
    run(&node, "DEL", "pod3", &state, &none).unwrap();
    std::fs::create_dir(&state).unwrap();
    run(&node, "STATUS", "pod3", &state, &none).unwrap();
    run(&node, "ADD", "pod3", &state, &none).unwrap();
}
