//! `portcullis services` for the demo cluster, as docs/operating.md shows it, and from a running daemon.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::ClusterObjects;
use serde_json::Value;

/// Time limit for the daemon to do anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The result of a run of the program.
struct Run {
    status: i32,
    stdout: String,
    /// The error message, without lines of the log.
    error: String,
}

fn services(arguments: &[&str], folder: &Path) -> Run {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("services")
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program runs");
    let stderr = String::from_utf8(stderr).expect("it prints UTF-8");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("portcullis: ")).collect();
    Run {
        status: status.code().expect("it was not killed"),
        stdout: String::from_utf8(stdout).expect("it prints UTF-8"),
        error: errors.join("\n"),
    }
}

/// Writes the objects of a cluster with the manifests of `fixtures/demo` to a folder, as the lab passes them to its daemons.
fn demo_cluster() -> tempfile::TempDir {
    let objects = ClusterObjects::read(root().join("fixtures/demo")).expect("the manifests can be read");
    let plan = objects.plan().expect("the manifests are valid");
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("cluster.json"), plan.to_list().to_string()).expect("it can be written");
    folder
}

#[test]
fn demo_cluster_is_shown_as_text_and_json() {
    let cluster = demo_cluster();
    let source = ["--manifests", "cluster.json", "--node", "node-1"];
    let mut wrong = String::new();
    for (file, arguments) in [
        ("text", &["-A"][..]),
        ("wide", &["-A", "-o", "wide"]),
        ("problems", &["-A", "--problems"]),
        ("details", &["web-public"]),
        ("json", &["-A", "-o", "json"]),
    ] {
        let run = services(&[arguments, &source].concat(), cluster.path());
        let printed = format!("{}exit status {}\n", run.stdout, run.status);
        let file = root().join("fixtures/service-report-demo").join(file);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &printed).expect("the fixtures can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if printed != expected {
            write!(wrong, "== {arguments:?}\n-- expected\n{expected}-- printed\n{printed}{}\n", run.error)
                .expect("writing to memory");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Each block of docs/operating.md that starts with `$ portcullis services` shows the output for `fixtures/service-report/shop.yaml`.
#[test]
fn documentation_shows_real_output() {
    let page = fs::read_to_string(root().join("docs/operating.md")).expect("the page can be read");
    let manifests = root().join("fixtures/service-report/shop.yaml");
    let manifests = manifests.to_str().expect("UTF-8");
    let blocks: Vec<&str> =
        page.split("```\n").filter(|block| block.starts_with("$ portcullis services")).collect();
    assert!(blocks.len() >= 3, "{} blocks", blocks.len());
    for block in blocks {
        let (command, shown) = block.split_once('\n').expect("a command and its output");
        let arguments: Vec<&str> = command.split_whitespace().skip(3).collect();
        let source = ["--manifests", manifests, "--node", "node-1", "--mode", "nftables"];
        let run = services(&[&*arguments, &source].concat(), root());
        assert_eq!(run.stdout, shown, "{command}: {}", run.error);
    }
}

/// A daemon on a node of its own, killed on drop.
struct Daemon {
    child: Child,
    socket: PathBuf,
    folder: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, mode: &str, manifests: &str) -> Self {
        let socket = folder.join("portcullis.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args([
                "--mode",
                mode,
                "--hostname-override=node-1",
                "--network-policy",
                "--manifests",
                manifests,
            ])
            .args(["--metrics-bind-address=", "--healthz-bind-address="])
            .arg("--socket")
            .arg(&socket)
            .current_dir(folder)
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        Daemon { child, socket, folder: folder.to_owned() }
    }

    fn services(&self, arguments: &[&str]) -> Run {
        let socket = self.socket.to_str().expect("UTF-8");
        services(&[arguments, &["--socket", socket]].concat(), &self.folder)
    }

    /// Runs `services` until a condition holds.
    fn wait_for(&self, arguments: &[&str], is_met: impl Fn(&Run) -> bool) -> Run {
        let start = Instant::now();
        loop {
            let run = self.services(arguments);
            if is_met(&run) {
                return run;
            }
            assert!(start.elapsed() < PATIENCE, "{}: {} {}", run.status, run.stdout, run.error);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Adds the addresses of node-1 to the loopback interface, so that the daemon serves node ports on them.
fn add_node_addresses(cluster: &Path) {
    namespace::run("ip link set lo up");
    let list = fs::read_to_string(cluster.join("cluster.json")).expect("it was written");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let items = list["items"].as_array().expect("a list");
    let node = items.iter().find(|item| item["kind"] == "Node" && item["metadata"]["name"] == "node-1");
    let addresses = node.expect("the node of the lab")["status"]["addresses"].as_array().expect("a list");
    for address in addresses.iter().filter(|address| address["type"] == "InternalIP") {
        let address = address["address"].as_str().expect("text");
        let length = if address.contains(':') { "128" } else { "32" };
        namespace::run(&format!("ip addr add {address}/{length} dev lo"));
    }
}

#[test]
fn running_daemon_and_its_manifests_give_the_same_report() {
    let cluster = demo_cluster();
    let missing = cluster.path().join("missing.sock");
    let missing = services(&["-A", "--socket", missing.to_str().expect("UTF-8")], cluster.path());
    assert_eq!((missing.status, &*missing.stdout), (2, ""));
    assert!(missing.error.contains("--manifests"), "{}", missing.error);

    namespace::inside(|| {
        add_node_addresses(cluster.path());
        let source =
            ["--mode", "nftables", "--network-policy", "--node", "node-1", "--manifests", "cluster.json"];
        let daemon = Daemon::start(cluster.path(), "nftables", "cluster.json");
        for arguments in
            [&["-A", "-o", "json"][..], &["-A", "-o", "wide"], &["web-public"], &["-A", "--problems"]]
        {
            let offline = services(&[arguments, &source].concat(), cluster.path());
            let online = daemon.wait_for(arguments, |run| run.stdout == offline.stdout);
            assert_eq!(online.status, offline.status, "{arguments:?}: {}", online.error);
        }
        let misspelt = daemon.services(&["web-pubic"]);
        assert_eq!(misspelt.status, 2);
        assert!(misspelt.error.contains("did you mean default/web-public?"), "{}", misspelt.error);
        let unknown = daemon.services(&["-A", "--search", "web&limit=1"]);
        assert_eq!((unknown.status, &*unknown.stdout), (0, "no Services\n"), "{}", unknown.error);
    });
}

/// The tools reject a session affinity timeout of 0.
const REJECTED: &str = "
apiVersion: v1
kind: Service
metadata: {name: rejected, namespace: shop}
spec:
  clusterIP: 10.96.0.2
  ports: [{port: 80}]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rejected-1, namespace: shop, labels: {kubernetes.io/service-name: rejected}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.2]}]
ports: [{name: '', port: 8080}]
";

#[test]
fn rejected_service_shows_the_message_of_the_kernel() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("rejected.yaml"), REJECTED).expect("it can be written");
    namespace::inside(|| {
        namespace::run("ip link set lo up");
        let daemon = Daemon::start(folder.path(), "iptables", "rejected.yaml");
        let arguments = ["-n", "shop", "--problems", "-o", "json"];
        let run = daemon.wait_for(&arguments, |run| run.stdout.contains("Isolated"));
        assert_eq!(run.status, 1);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let finding = &report["items"][0]["findings"][0];
        assert_eq!((&finding["reason"], &finding["severity"]), (&"Isolated".into(), &"error".into()));
        let message = finding["message"].as_str().expect("text");
        assert!(message.starts_with("the kernel rejects shop/rejected since 20"), "{message}");
        assert!(message.contains("--seconds"), "{message}");
        // No version of it was ever accepted.
        assert_eq!(report["items"][0]["status"], "notServing", "{report}");
        assert_eq!(report["items"][0]["frontends"][0]["answers"], false, "{report}");
        let hint = finding["hint"].as_str().expect("text");
        assert!(hint.contains("nothing serves it by IPv4"), "{hint}");
    });
}
