//! One-shot commands name objects that cannot be read, print the result for all others, and end with status 2.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::fs;
use std::path::Path;
use std::process::Command;

const GOOD: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-a}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-a, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.244.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: good-1, labels: {kubernetes.io/service-name: good}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1], nodeName: node-a}]
ports: [{port: 8080}]
";

/// Documents that cannot be read, and their errors.
const UNREADABLE: [(&str, &str); 5] = [
    ("kind: Service\n\tname: x\n", "bad.yaml:2: malformed YAML: a tab"),
    ("kind: Service\nmetadata: {name: {{ .Name }}}\n", "bad.yaml:2: malformed YAML: a template"),
    ("apiVersion: v1\nkind: Sevice\nmetadata: {name: x}\n", "bad.yaml:1: kind: \"Sevice\""),
    ("apiVersion: v1\nkind: Service\nmetadata: {}\n", "metadata.name is missing"),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: []\n",
        "bad.yaml:1: NetworkPolicy default/x: field spec",
    ),
];

/// Runs a command on a folder of manifests. Returns its status, standard output and standard error.
fn run(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output =
        command.args(arguments).arg(folder).env_remove("RUST_LOG").output().expect("the binary runs");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), stdout, stderr)
}

#[test]
fn one_shot_commands_name_unreadable_objects() {
    let node = "--hostname-override=node-a";
    // Arguments, and an excerpt of the output about the other objects; `None` if the command must not start.
    let rows: [(&[&str], Option<&str>); 10] = [
        (&["render", node, "--mode=iptables", "--manifests"], Some("10.244.0.1:8080")),
        (&["render", node, "--mode=ipvs", "--manifests"], Some("10.96.0.1:80")),
        (&["render", node, "--mode=nftables", "--network-policy", "--manifests"], Some("10.244.0.1 . 8080")),
        (&["diff", node, "--mode=iptables", "--manifests"], Some("10.244.0.1:8080")),
        (
            &["explain", "--from=default/client", "--to=default/good", "--port=80", "--manifests"],
            Some("10.244.0.1"),
        ),
        (&["policy", "matrix", "--port=80", "--manifests"], Some("client")),
        (&["services", node, "-A", "--manifests"], Some("10.96.0.1:80/tcp")),
        (&["migrate", node, "--to=nftables", "--apply", "--manifests"], None),
        (&["lab", "run"], None),
        (&["lab", "up"], None),
    ];
    for (arguments, printed) in rows {
        for (text, named) in UNREADABLE {
            let folder = tempfile::tempdir().expect("a folder for temporary files");
            fs::write(folder.path().join("good.yaml"), GOOD).expect("it can be written");
            fs::write(folder.path().join("bad.yaml"), text).expect("it can be written");
            let (status, stdout, stderr) = namespace::inside(|| run(arguments, folder.path()));
            assert_eq!(status, Some(2), "{arguments:?}: {stderr}");
            assert!(stderr.contains(named), "{arguments:?}: {stderr} does not have {named}");
            assert!(stdout.contains(printed.unwrap_or_default()), "{arguments:?}: {stdout}");
            assert_eq!(stdout.is_empty(), printed.is_none(), "{arguments:?}: {stdout}");
        }
    }
}
