//! Commands of `portcullis lab` for programs, and those that run in a cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MANIFESTS: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: a-1, labels: {app: a}}, spec: {nodeName: node-1}}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: none}, spec: {selector: {app: none}, ports: [{port: 80}]}}
";

/// Runs `portcullis lab`. Returns its exit status, its output and its messages.
fn lab(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("lab").args(arguments).env_remove("RUST_LOG").env_remove("PORTCULLIS_DAEMON");
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn manifests(folder: &Path) -> String {
    fs::write(folder.join("all.yaml"), MANIFESTS).expect("it can be written");
    folder.to_str().expect("UTF-8").to_owned()
}

#[test]
fn results_of_a_run_are_a_document_and_a_junit_file() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (manifests, junit) = (manifests(folder.path()), folder.path().join("results.xml"));
    let junit = junit.to_str().expect("UTF-8");
    let (code, output, messages) =
        lab(&["run", "--mode=nftables", "--junit", junit, "-o", "json", &manifests]);
    assert_eq!(code, 0, "{output}{messages}");
    let document = json(&output);
    assert_eq!((&document["kind"], &document["asExpected"]), (&"LabRun".into(), &true.into()), "{output}");
    let groups = document["groups"].as_array().expect("a list");
    let names: Vec<&str> = groups.iter().filter_map(|group| group["name"].as_str()).collect();
    assert_eq!(names, ["default/a", "default/none"], "{output}");
    let checks: Vec<&Value> =
        groups.iter().flat_map(|group| group["checks"].as_array().expect("a list")).collect();
    assert!(checks.len() > 4 && checks.iter().all(|check| check["outcome"] == "passed"), "{output}");
    let xml = fs::read_to_string(junit).expect("it is written");
    assert!(xml.contains(&format!("tests=\"{}\"", checks.len())), "{xml}");
    assert!(xml.contains("failures=\"0\"") && xml.contains("<testsuite name=\"default/a\""), "{xml}");
    let (code, _, messages) =
        lab(&["run", "--mode=nftables", "--junit", "/no-such-folder/a.xml", &manifests]);
    assert_eq!(code, 2, "{messages}");
    assert!(messages.contains("cannot write /no-such-folder/a.xml"), "{messages}");
}

#[test]
fn connections_are_explained_in_a_running_cluster() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (manifests, name) = (manifests(folder.path()), format!("explain-{}", std::process::id()));
    let (code, output, messages) = lab(&["up", "--mode=nftables", "--name", &name, &manifests]);
    assert_eq!(code, 0, "{output}{messages}");
    let explain =
        |to: &str| lab(&["explain", "--name", &name, "--from", "default/a-1", "--to", to, "-o", "json"]);
    let (allowed, rejected) = (explain("default/a"), explain("default/none"));
    let list = lab(&["list", "-o", "json"]);
    let down = lab(&["down", "--name", &name]);
    assert_eq!(down.0, 0, "{down:?}");
    assert_eq!((allowed.0, &json(&allowed.1)["verdict"]), (0, &"allowed".into()), "{allowed:?}");
    assert_eq!((rejected.0, &json(&rejected.1)["verdict"]), (1, &"unreachable".into()), "{rejected:?}");
    let labs = json(&list.1)["labs"].as_array().expect("a list").clone();
    assert!(labs.iter().any(|lab| lab["name"] == name.as_str() && lab["state"] == "up"), "{list:?}");
}
