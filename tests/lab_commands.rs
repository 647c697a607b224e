//! Commands of `portcullis lab` for programs, and those that run in a cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Policies make `policy/b-1` drop all packets.
const POLICIES: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: a-1, namespace: policy}, spec: {nodeName: node-1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b-1, namespace: policy, labels: {app: b}}, spec: {nodeName: node-2}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: nothing, namespace: policy},
  spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}}
";

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

#[test]
fn drops_of_all_nodes_of_a_running_cluster_are_observed() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("policies.yaml"), POLICIES).expect("it can be written");
    let (manifests, name) =
        (folder.path().to_str().expect("UTF-8"), format!("observe-{}", std::process::id()));
    let (code, output, messages) = lab(&["up", "--mode=nftables", "--name", &name, manifests]);
    assert_eq!(code, 0, "{output}{messages}");
    let explained = lab(&[
        "explain",
        "--name",
        &name,
        "--from",
        "policy/a-1",
        "--to",
        "policy/b-1:80",
        "--family",
        "ipv4",
        "-o",
        "json",
    ]);
    let to = json(&explained.1)["connections"][0]["to"].as_str().expect("an address").to_owned();
    let (address, _) = to.rsplit_once(':').expect("a port");
    let connect = format!("timeout 0.2 bash -c '</dev/tcp/{address}/80'");
    let observed = |arguments: &[&str]| {
        let arguments = [&["observe", "--name", &name], arguments].concat();
        std::thread::scope(|scope| {
            let observer = scope.spawn(|| lab(&arguments));
            while !observer.is_finished() {
                lab(&["exec", "--name", &name, "policy/a-1", "--", "bash", "-c", &connect]);
            }
            observer.join().expect("it does not panic")
        })
    };
    let text = observed(&["--for", "8s"]);
    let document = observed(&["--node", "node-2", "--count", "1", "-o", "json"]);
    let unknown = lab(&["observe", "--name", &name, "--node", "node-9"]);
    let down = lab(&["down", "--name", &name]);
    assert_eq!(down.0, 0, "{down:?}");
    assert_eq!(text.0, 0, "{text:?}");
    let lines: Vec<&str> = text.1.lines().collect();
    assert!(lines.first().is_some_and(|head| head.starts_with("NODE    TIME (UTC)")), "{text:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("TIME (UTC)")).count(), 1, "{text:?}");
    let is_drop = |line: &&str| {
        line.starts_with("node-2  ") && line.contains(" dropped ") && line.contains("policy/nothing")
    };
    assert!(lines.iter().any(is_drop), "{text:?}");
    assert_eq!(document.0, 0, "{document:?}");
    let event = document.1.lines().map(json).find(|line| line["kind"] == "TrafficEvent").expect("an event");
    let pod = serde_json::json!({"namespace": "policy", "name": "b-1"});
    assert_eq!(event["destination"]["pod"], pod, "{event}");
    assert_eq!(unknown.0, 2, "{unknown:?}");
}

/// Returns a folder of `fixtures`.
fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).to_str().expect("UTF-8").to_owned()
}

/// The same probes as with the lab's own wiring, and policies that select pods of the plugin.
#[test]
fn the_pod_network_of_the_daemons_connects_the_pods() {
    for (mode, pod_network, folder) in [
        ("nftables", "vxlan", fixture("demo")),
        ("iptables", "host-gw", fixture("demo")),
        ("nftables", "cross-subnet", fixture("policies/peers-and-ports")),
        ("nftables", "vxlan", fixture("policies/cluster-policy-tiers")),
    ] {
        let mode = format!("--mode={mode}");
        let pod_network = format!("--pod-network={pod_network}");
        let (code, output, messages) = lab(&["run", &mode, &pod_network, "-o", "json", &folder]);
        assert_eq!(code, 0, "{mode} {pod_network}: {output}{messages}");
        let document = json(&output);
        assert_eq!(document["asExpected"], true, "{output}");
        let groups = document["groups"].as_array().expect("a list").iter();
        let checks = groups.flat_map(|group| group["checks"].as_array().expect("a list"));
        let passed = checks.filter(|check| check["outcome"] == "passed").count();
        assert!(passed > 10, "{mode} {pod_network}: {passed} checks: {output}");
    }
}

#[test]
fn pods_of_the_pod_network_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (manifests, name) = (manifests(folder.path()), format!("pods-{}", std::process::id()));
    let (code, output, messages) =
        lab(&["up", "--mode=nftables", "--pod-network=host-gw", "--name", &name, &manifests]);
    assert_eq!(code, 0, "{output}{messages}");
    let exec =
        |what: &str, command: &[&str]| lab(&[&["exec", "--name", &name, what, "--"], command].concat());
    // The client of the lab, and the pod.
    let wired = |node: &str| {
        let links = exec(node, &["ip", "-o", "link", "show", "type", "veth"]).1;
        links.lines().filter(|line| line.contains(": pc")).count()
    };
    let before = (wired("node-1"), wired("node-2"));
    // It is held by a process of the program.
    let holder = exec(
        "default/a-1",
        &["sh", "-c", "ip netns pids $(ip netns identify $$) | xargs -n 1 -I {} cat /proc/{}/cmdline"],
    );
    fs::write(folder.path().join("all.yaml"), MANIFESTS.replace("a-1", "a-2").replace("node-1", "node-2"))
        .expect("it can be written");
    let applied = lab(&["apply", "--name", &name, &manifests]);
    let after = (wired("node-1"), wired("node-2"));
    let routes = exec("node-2", &["ip", "route", "show", "proto", "80"]).1;
    let client = "portcullis-lab/client-node-1";
    let explained = lab(&["explain", "--name", &name, "--from", client, "--to", "default/a", "-o", "json"]);
    let down = lab(&["down", "--name", &name]);
    let route = &json(&explained.1)["connections"][0]["paths"][0]["podNetwork"]["route"];
    assert_eq!((&route["to"], &route["way"]), (&"node-2".into(), &"link".into()), "{explained:?}");
    assert_eq!(before, (2, 1), "{messages}");
    assert!(holder.1.contains("pause"), "{holder:?}");
    assert_eq!(applied.0, 0, "{applied:?}");
    assert_eq!(after, (1, 2), "{routes}");
    assert_eq!(routes.lines().filter(|line| line.contains("dev pc")).count(), 2, "{routes}");
    assert_eq!(down.0, 0, "{down:?}");
}
