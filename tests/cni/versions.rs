//! All versions of the specification, through the binary.

use serde_json::{Value, json};

use super::node::{Namespace, Node, respond};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn results_and_errors_have_the_requested_version() {
    let node = Node::new("ptp");
    for version in VERSIONS {
        let pod = Namespace::new();
        let changes = json!({ "cniVersion": version });
        let result = node.plugin_with("ADD", &pod.path(), &pod.name, &changes).result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["version"], if version < "1" { json!("4") } else { Value::Null });
        assert_eq!(
            result["interfaces"][1]["mtu"],
            if version == "1.1.0" { json!(1400) } else { Value::Null }
        );
        let check = json!({ "cniVersion": version, "prevResult": result });
        let response = node.plugin_with("CHECK", &pod.path(), &pod.name, &check);
        if version < "0.4.0" {
            response.assert_error(1, &["CHECK", "0.4.0"]);
        } else {
            assert!(response.succeeded, "{response:?}");
        }
        let error = node.plugin_with("ADD", "/nonexistent", "c1", &changes);
        error.assert_error(4, &["CNI_NETNS"]);
        assert_eq!(error.document["cniVersion"], version);
        assert!(node.plugin_with("DEL", &pod.path(), &pod.name, &check).succeeded);
    }
    let pod = Namespace::new();
    for version in ["0.1.0", "0.2.0", "2.0.0"] {
        let response = node.plugin_with("ADD", &pod.path(), &pod.name, &json!({ "cniVersion": version }));
        response.assert_error(1, &[version, "1.1.0"]);
    }
    node.assert_empty("all versions");
}

#[test]
fn version_lists_all_versions() {
    let node = Node::new("ptp");
    let response = respond(node.command("VERSION", "", ""), &json!({ "cniVersion": "1.0.0" }));
    assert_eq!(response.result(), json!({ "cniVersion": "1.0.0", "supportedVersions": VERSIONS }));
}

#[test]
fn flags_and_configuration_files_are_not_read() {
    let node = Node::new("ptp");
    let mut command = node.command("STATUS", "", "");
    command.args(["--no-such-flag", "explain"]).env("PORTCULLIS_CONFIG", "/nonexistent");
    assert!(respond(command, &node.configuration).succeeded);
    let mut command = node.command("", "", "");
    command.arg("--version");
    respond(command, &node.configuration).assert_error(4, &["CNI_COMMAND"]);
}
