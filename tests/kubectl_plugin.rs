//! `kubectl portcullis` with a real kubectl, against the API server of the tests, which runs the commands of pods here.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use portcullis_machines::tools;
use serde_json::{Value, json};

#[path = "api_server/mod.rs"]
mod api_server;

use api_server::{ApiServer, PodPrograms};

fn node(name: &str, system: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": system}}})
}

fn pod(node: &str, labels: &Value, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("portcullis-{node}"), "namespace": "kube-system", "labels": labels},
        "spec": {"nodeName": node, "containers": [{
            "name": "portcullis",
            "command": ["/usr/local/bin/portcullis"],
            "args": arguments,
            "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        }]},
        "status": {"phase": "Running"},
    })
}

/// The state of the daemon of a node as its `status` prints it.
fn status(healthy: bool, problems: &[&str]) -> String {
    let fails = if healthy { "nothing" } else { "healthz" };
    let problems: Vec<Value> = problems.iter().map(|text| json!({"text": text, "fails": fails})).collect();
    json!({"apiVersion": "portcullis.io/v1", "kind": "Status", "healthy": healthy, "problems": problems,
        "program": {"version": "0.1.0"}, "node": {"mode": "nftables"}})
    .to_string()
}

/// A cluster with an API server, and kubectl with the plugin.
struct Cluster {
    server: ApiServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// A cluster whose pods run this program; `status` of some nodes has a prepared output.
    fn start(statuses: &[(&'static str, String)]) -> Cluster {
        let cluster = Cluster { server: ApiServer::start(), folder: tempfile::tempdir().expect("a folder") };
        symlink(env!("CARGO_BIN_EXE_portcullis"), cluster.folder.path().join("kubectl-portcullis"))
            .expect("a link");
        cluster.server.kubeconfig(cluster.folder.path(), "token");
        let statuses: Vec<(&'static str, String)> = statuses.to_vec();
        let exec = move |pod: &str, words: &[String]| {
            let (program, arguments) = words.split_first()?;
            assert_eq!(program, "portcullis");
            let prepared = statuses.iter().find(|(node, _)| pod == format!("portcullis-{node}"));
            match (arguments.first().map(String::as_str), prepared) {
                (Some("status"), Some((_, output))) if output.is_empty() => None,
                (Some("status"), Some((_, output))) => {
                    let mut command = Command::new("printf");
                    command.args(["%s", output]);
                    Some(command)
                }
                _ => {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
                    command.args(arguments).env_remove("RUST_LOG");
                    Some(command)
                }
            }
        };
        let log = |pod: &str| format!("the log of {pod}\n");
        cluster.server.run_in_pods(PodPrograms { exec: Arc::new(exec), log: Arc::new(log) });
        cluster
    }

    /// Runs `kubectl portcullis`. Returns its exit status, output and messages.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = tools::command("kubectl");
        let kubectl = Path::new(command.get_program()).parent().expect("a folder").to_owned();
        let path = format!("{}:{}:/usr/bin:/bin", self.folder.path().display(), kubectl.display());
        command.arg("portcullis").args(arguments).current_dir(self.folder.path()).env("PATH", path);
        command.env("HOME", self.folder.path()).env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        let Output { status, stdout, stderr } = command.output().expect("kubectl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code().expect("no signal"), text(&stdout), text(&stderr))
    }
}

fn manifests() -> String {
    format!("--manifests={}/fixtures/explain/shop.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn commands_run_in_the_pod_of_the_node_with_the_settings_of_its_daemon() {
    let cluster = Cluster::start(&[]);
    let labels = json!({"app.kubernetes.io/name": "portcullis"});
    let manifests = manifests();
    for node in ["node-1", "node-2"] {
        let mode = if node == "node-1" { "--mode=nftables" } else { "--mode=iptables" };
        cluster.server.apply(pod(node, &labels, &[&manifests, "--hostname-override=$(NODE_NAME)", mode]));
    }
    for (node, mode) in [("node-1", "nftables"), ("node-2", "iptables")] {
        let (code, output, messages) =
            cluster.run(&["--node", node, "render", "--family", "ipv4", "-o", "json"]);
        assert_eq!(code, 0, "{messages}");
        let document: Value = serde_json::from_str(&output).expect("JSON");
        assert_eq!(document["mode"], mode, "{node}");
        // The output is that of the command, byte for byte.
        let here = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["render", &manifests, &format!("--hostname-override={node}"), &format!("--mode={mode}")])
            .args(["--family", "ipv4", "-o", "json"])
            .output()
            .expect("it runs");
        assert_eq!(output.as_bytes(), here.stdout, "{node}");
    }
    // Exit statuses and messages are those of the command.
    let explain = ["--node=node-1", "explain", "--from", "198.51.100.7", "--to", "10.96.200.200:1"];
    let (code, output, messages) = cluster.run(&explain);
    assert_eq!(code, 1, "{output}{messages}");
    let (code, _, messages) =
        cluster.run(&["--node=node-1", "explain", "--from", "shop/nosuch", "--to", "10.96.0.10"]);
    assert_eq!(code, 2, "{messages}");
    assert!(messages.contains("portcullis: ") && messages.contains("shop/nosuch"), "{messages}");
    let (code, output, messages) = cluster.run(&["--node=node-1", "version"]);
    assert_eq!(code, 0, "{messages}");
    assert!(output.starts_with("Portcullis v"), "{output}");
}

#[test]
fn bundle_of_a_node_is_a_local_file_with_the_log_of_its_pod() {
    let cluster = Cluster::start(&[]);
    let labels = json!({"k8s-app": "kube-proxy"});
    cluster.server.apply(pod(
        "node-1",
        &labels,
        &[&manifests(), "--hostname-override=$(NODE_NAME)", "--mode=nftables"],
    ));
    let (code, output, messages) = cluster.run(&["--node", "node-1", "bundle", "-o", "a.tar.gz"]);
    // No daemon runs here, so parts are missing.
    assert_eq!(code, 1, "{output}{messages}");
    assert!(messages.contains("kubectl-portcullis: wrote a.tar.gz"), "{messages}");
    let file = std::fs::File::open(cluster.folder.path().join("a.tar.gz")).expect("it is written");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut log = String::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.path().expect("a path").ends_with("log.txt") {
            std::io::Read::read_to_string(&mut entry, &mut log).expect("UTF-8");
        }
    }
    assert_eq!(log, "the log of portcullis-node-1\n");
    let (code, _, messages) = cluster.run(&["--node", "node-1", "bundle", "-o", "no-such-folder/a.tar.gz"]);
    assert_eq!(code, 2, "{messages}");
    assert!(messages.contains("cannot write no-such-folder/a.tar.gz.partial: No such file"), "{messages}");
}

#[test]
fn status_of_all_nodes_has_a_line_for_each_worst_first() {
    let statuses = [
        ("node-1", status(true, &[])),
        ("node-2", status(false, &["IPv4: the last sync failed", "log: lines were dropped"])),
        ("node-3", String::new()),
        ("node-4", status(true, &["log: lines were dropped"])),
    ];
    let cluster = Cluster::start(&statuses);
    for (node, _) in &statuses {
        cluster.server.apply(pod(node, &json!({"app.kubernetes.io/name": "portcullis"}), &[]));
        cluster.server.apply(self::node(node, "linux"));
    }
    cluster.server.apply(node("node-5", "linux"));
    cluster.server.apply(node("node-6", "windows"));
    let (code, output, messages) = cluster.run(&["status"]);
    assert_eq!(code, 2, "{output}{messages}");
    let lines: Vec<Vec<&str>> = output
        .lines()
        .map(|line| line.split("  ").filter(|word| !word.is_empty()).map(str::trim).collect())
        .collect();
    let heads: Vec<String> = lines.iter().map(|line| line[..4.min(line.len())].join("|")).collect();
    let expected = [
        "NODE|STATE|VERSION|MODE",
        "node-5|no pod|-|-",
        "node-3|unknown|-|-",
        "node-2|unhealthy|0.1.0|nftables",
        "node-4|warning|0.1.0|nftables",
        "node-1|healthy|0.1.0|nftables",
    ];
    assert_eq!(heads, expected, "{output}{messages}");
    assert!(output.contains("IPv4: the last sync failed (and 1 more)"), "{output}");
    let (code, output, _) = cluster.run(&["status", "-o", "json"]);
    let document: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(
        (code, &document["kind"], &document["nodes"][2]["state"]),
        (2, &"StatusOverview".into(), &"unhealthy".into())
    );
}

#[test]
fn errors_say_what_to_pass() {
    let cluster = Cluster::start(&[]);
    let (code, _, messages) = cluster.run(&["status"]);
    assert_eq!(code, 2, "{messages}");
    assert!(
        messages.contains("no pod has the labels app.kubernetes.io/name=portcullis or k8s-app=kube-proxy"),
        "{messages}"
    );
    cluster.server.apply(pod("node-1", &json!({"app.kubernetes.io/name": "portcullis"}), &[]));
    for (arguments, expected) in [
        (&["diff"][..], "diff is for one node; expected --node NODE before it, one of node-1"),
        (&["--node=node-9", "diff"], "no pod of the daemon runs on node node-9; there are some on node-1"),
    ] {
        let (code, _, messages) = cluster.run(arguments);
        assert_eq!(code, 2, "{messages}");
        assert!(messages.contains(expected), "{messages}");
    }
    // Nothing listens on the discard port. The last flag of a name has precedence.
    let (code, _, messages) = cluster.run(&["--server=http://127.0.0.1:9", "status"]);
    assert_eq!((code, messages.lines().count()), (2, 1), "{messages}");
    assert!(messages.contains("127.0.0.1:9 was refused"), "{messages}");
    let (code, output, _) = cluster.run(&["--help"]);
    assert_eq!(code, 0);
    assert!(output.contains("Usage: kubectl portcullis [OPTIONS] <COMMAND>..."), "{output}");
}
