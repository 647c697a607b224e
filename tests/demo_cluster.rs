//! The whole output of the commands for the demo cluster, as text and as JSON.
//!
//! `BLESS=1` writes `fixtures/demo-output` again. `service_report.rs` does the same for `services`. Times, process ids and counts
//! that differ in each run are replaced by `…`, or by 0.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::{ClusterObjects, DaemonSpec, Lab, LabOptions, Vantage};
use serde_json::{Value, json};

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

/// Time limit for the daemon to do anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The node's interfaces and the features of its tools, so that the output does not depend on this machine.
const HOST: &str = "interfaces: [{name: eth0, addresses: [192.168.77.11/24, 'fd00:c0a8:4d::11/64']}]\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with the objects of the demo cluster as the lab passes them to its daemons.
struct Demo(tempfile::TempDir);

impl Demo {
    fn new() -> Self {
        let objects = ClusterObjects::read(root().join("fixtures/demo")).expect("the manifests can be read");
        let plan = objects.plan().expect("the manifests are valid");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("it can be written");
        };
        write("cluster.json", &plan.to_list().to_string());
        write("host.yaml", HOST);
        Demo(folder)
    }

    /// Runs a command. Returns its standard output with its exit status at the end.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).current_dir(self.0.path()).env_remove("RUST_LOG");
        let Output { status, stdout, stderr } = command.output().expect("the program runs");
        let code = status.code().expect("no signal");
        let stdout = String::from_utf8(stdout).expect("it prints UTF-8");
        // `diff` prints nothing if there is no difference.
        assert!(
            !stdout.is_empty() || arguments[0] == "diff",
            "{arguments:?}: {}",
            String::from_utf8_lossy(&stderr)
        );
        format!("{stdout}exit status {code}\n")
    }
}

/// Outputs that differ from the files.
#[derive(Default)]
struct Differences(String);

impl Differences {
    fn compare(&mut self, name: &str, printed: &str) {
        let file: PathBuf = root().join("fixtures/demo-output").join(name);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, printed).expect("the fixtures can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if printed != expected {
            write!(self.0, "== {name}\n-- expected\n{expected}-- printed\n{printed}")
                .expect("writing to memory");
        }
    }

    fn check(self) {
        assert!(self.0.is_empty(), "{}", self.0);
    }
}

/// Replaces the values of keys that differ in each run.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &*value) {
                    ("time" | "started" | "commit", Value::String(_)) => *value = "…".into(),
                    ("text", Value::String(text)) if text.ends_with("s") && text.contains(", ") => {
                        // The duration of a sync.
                        *value = format!("{}, …", text.rsplit_once(", ").expect("it has one").0).into();
                    }
                    ("pid" | "number", Value::Number(_)) => *value = 0.into(),
                    (key, Value::Number(_)) if key.ends_with("Seconds") => *value = 0.into(),
                    _ => normalize(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalize),
        _ => {}
    }
}

/// Returns printed JSON without what differs in each run.
fn normal_json(printed: &str) -> String {
    let (document, status) = printed.split_once("exit status").expect("the status is at the end");
    let mut document: Value = serde_json::from_str(document).expect("JSON");
    normalize(&mut document);
    if document["kind"] == "Status" {
        document["conntrack"] = json!({"count": 0, "max": 0});
        let syncs = document["recentSyncs"].as_array_mut().expect("a list");
        // The policies are written again when the interfaces of pods appear.
        syncs.retain(|sync| sync["trigger"] != "timer");
        syncs.sort_by_key(|sync| sync["rules"].to_string());
    }
    format!("{}\nexit status{status}", serde_json::to_string_pretty(&document).expect("it is a value"))
}

/// Command, name of its files, and arguments.
const OFFLINE: [(&str, &[&str]); 10] = [
    ("render-iptables", &["render", "--mode=iptables", "--host=host.yaml"]),
    ("render-ipvs", &["render", "--mode=ipvs", "--host=host.yaml"]),
    ("render-nftables", &["render", "--mode=nftables", "--host=host.yaml"]),
    ("explain", &["explain", "--from=web-1", "--to=svc/names"]),
    ("explain-outside", &["explain", "--from=203.0.113.200", "--to=svc/web-public", "--family=ipv4"]),
    ("explain-rules-iptables", &["explain", "--rules", "--mode=iptables", "--from=web-1", "--to=svc/names"]),
    ("explain-rules-ipvs", &["explain", "--rules", "--mode=ipvs", "--from=web-1", "--to=svc/names"]),
    ("explain-rules-nftables", &["explain", "--rules", "--mode=nftables", "--from=web-1", "--to=svc/names"]),
    ("policy-matrix", &["policy", "matrix", "--port=80"]),
    ("diff", &["diff", "--mode=nftables", "--family=ipv4", "--host=host.yaml"]),
];

#[test]
fn commands_print_the_demo_cluster_as_text_and_json() {
    let demo = Demo::new();
    let source = [
        "--hostname-override=node-1",
        "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
        "--manifests=cluster.json",
    ];
    namespace::inside(|| {
        let mut differences = Differences::default();
        for (name, command) in OFFLINE {
            let arguments = [command, &source].concat();
            differences.compare(&format!("{name}.txt"), &demo.run(&arguments));
            let json = demo.run(&[&arguments[..], &["-o", "json"]].concat());
            differences.compare(&format!("{name}.json"), &json);
        }
        differences.check();
    });
}

#[test]
fn commands_print_a_node_of_the_demo_cluster_as_text_and_json() {
    let demo = Demo::new();
    let source =
        ["--hostname-override=node-1", "--mode=nftables", "--network-policy", "--conntrack-max-per-core=0"];
    let source = [&source[..], &["--socket=", "--manifests=cluster.json"]].concat();
    namespace::inside(|| {
        namespace::run("ip link set lo up");
        let once = [&["--once"], &source[..]].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let output = command.args(once).current_dir(demo.0.path()).output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut differences = Differences::default();
        for (name, arguments) in [
            ("diff-in-sync", [&["diff"], &source[..]].concat()),
            ("migrate", [&["migrate", "--to=iptables"], &source[..]].concat()),
            ("cleanup-dry-run", vec!["cleanup", "--dry-run"]),
        ] {
            differences.compare(&format!("{name}.txt"), &demo.run(&arguments));
            let json = demo.run(&[&arguments[..], &["-o", "json"]].concat());
            differences.compare(&format!("{name}.json"), &json);
        }
        differences.check();
    });
}

/// A daemon on a node of its own, killed on drop.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn status_of_a_node_of_the_demo_cluster_is_printed_as_text_and_json() {
    let demo = Demo::new();
    let socket = demo.0.path().join("s");
    let socket = socket.to_str().expect("UTF-8");
    namespace::inside(|| {
        namespace::run("ip link set lo up");
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args([
                "--hostname-override=node-1",
                "--mode=nftables",
                "--network-policy",
                "--manifests=cluster.json",
            ])
            .args([
                "--metrics-bind-address=",
                "--healthz-bind-address=",
                "--conntrack-max-per-core=0",
                "--socket",
                socket,
            ])
            .current_dir(demo.0.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let _daemon = Daemon(child);
        let start = Instant::now();
        let is_settled = || {
            let mut status = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            let output = status.args(["status", "-o", "json", "--socket", socket]).output().expect("it runs");
            let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let recent = document["policies"]["drops"]["recentSeconds"].as_f64();
            output.status.success() && recent.is_some_and(|seconds| seconds >= 1.0)
        };
        while !is_settled() {
            assert!(start.elapsed() < PATIENCE, "{}", demo.run(&["status", "--socket", socket]));
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut differences = Differences::default();
        let text = demo.run(&["status", "--socket", socket]);
        differences.compare("status.txt", &normal_screen(&text));
        let json = demo.run(&["status", "--socket", socket, "-o", "json"]);
        differences.compare("status.json", &normal_json(&json));
        differences.check();
    });
}

/// Replaces what differs in each run in a line of `status`: ages, durations, the commit, the process and the connections.
fn normal_status_line(line: &str) -> String {
    const UNITS: [&str; 8] = ["ms", "µs", "s", "min", "h", "d", "ago", "ns"];
    if line.starts_with("Conntrack") {
        return "Conntrack   … of … entries (… %)\n".to_owned();
    }
    let words: Vec<&str> = line.split(' ').collect();
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let mut text: Vec<String> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", |next| next.trim_matches([',', ';']));
        let before = at.checked_sub(1).map_or("", |at| words[at]);
        let has_unit =
            word.trim_matches([',', ';']).trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if is_number(word) && (UNITS.contains(&next) || UNITS.contains(&has_unit) || before == "process") {
            text.push(if word.ends_with(',') { "…,".to_owned() } else { "…".to_owned() });
        } else if word.starts_with('(') && word.ends_with("),") && line.starts_with("Program") {
            text.push("(…),".to_owned());
        } else {
            text.push((*word).to_owned());
        }
    }
    text.join(" ") + "\n"
}

/// Replaces what differs in each run in the screen of `status`. Controllers sync at the same time, so their syncs are sorted.
fn normal_screen(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(normal_status_line).collect();
    let label = |line: &String| line.starts_with("Syncs");
    let timers: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(": timer, ")).collect();
    for at in timers.into_iter().rev() {
        let removed = lines.remove(at);
        // The label is that of the next line.
        if label(&removed) {
            lines[at] = lines[at].replacen("     ", "Syncs", 1);
        }
    }
    let start = lines.iter().position(|line| line.starts_with("Syncs")).expect("there are syncs");
    let is_continued = |line: &&String| line.starts_with(' ');
    let end = start + 1 + lines[start + 1..].iter().take_while(is_continued).count();
    lines[start] = lines[start].replacen("Syncs", "     ", 1);
    lines[start..end].sort_unstable();
    lines[start] = lines[start].replacen("     ", "Syncs", 1);
    lines.concat()
}

/// A policy that the demo cluster does not have, so that a packet is dropped.
const POLICY: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: nothing, namespace: default},
  spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}}
";

#[test]
fn dropped_packet_of_the_demo_cluster_is_printed_as_text_and_json() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    for file in fs::read_dir(root().join("fixtures/demo")).expect("a folder").flatten() {
        fs::copy(file.path(), folder.path().join(file.file_name())).expect("it can be copied");
    }
    fs::write(folder.path().join("policy.yaml"), POLICY).expect("it can be written");
    let daemon = DaemonSpec {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
        args: ["--mode=nftables", "--network-policy", "--conntrack-max-per-core=0"]
            .map(str::to_owned)
            .to_vec(),
        ..DaemonSpec::default()
    };
    let options = LabOptions { daemon: Some(daemon), ..LabOptions::default() };
    let objects = ClusterObjects::read(folder.path()).expect("the objects are valid");
    let mut lab = Lab::up(objects, options).expect("a lab needs root");
    lab.wait_synced(PATIENCE).expect("the daemons sync");
    let pod = |name: &str| lab.plan().pod(name).unwrap_or_else(|| panic!("no pod {name}")).clone();
    let (server, client) = (pod("default/web-1"), pod("default/names-1"));
    let to = server.addresses.iter().find(|address| address.is_ipv4()).expect("an IPv4 address");
    let socket = lab.folder().join(format!("{}.sock", server.node));
    let observe = |format: &str| {
        let mut observer = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["observe", "--count=1", "--to=default/web-1", "--protocol=tcp", "-o", format, "--socket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let netns = lab.netns(&Vantage::pod(&client.name)).expect("it exists");
        let start = Instant::now();
        while observer.try_wait().expect("it is a child").is_none() {
            assert!(start.elapsed() < PATIENCE, "nothing was observed");
            let mut connect = netns.command("timeout");
            connect.args(["0.3", "bash", "-c"]).arg(format!("</dev/tcp/{to}/8080"));
            let _ = connect.stderr(Stdio::null()).status().expect("bash runs");
        }
        let output = observer.wait_with_output().expect("it ended");
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    };
    let mut differences = Differences::default();
    differences.compare("observe.txt", &normal_table(&observe("text")));
    let documents = observe("json");
    let documents = documents.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut document: Value = serde_json::from_str(line).expect("JSON");
        normalize(&mut document);
        if document["source"]["port"].is_number() {
            document["source"]["port"] = 0.into();
        }
        serde_json::to_string_pretty(&document).expect("it is a value") + "\n"
    });
    differences.compare("observe.json", &documents.collect::<String>());
    differences.check();
}

/// Replaces the time and the port of the client in the table of `observe`.
fn normal_table(table: &str) -> String {
    let line = |line: &str| {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| match word.rsplit_once(':') {
                _ if word.matches(':').count() == 2 && word.contains('.') => "…".to_owned(),
                Some((name, port)) if name.contains("names-1") && port.parse::<u16>().is_ok() => {
                    format!("{name}:…")
                }
                _ => word.to_owned(),
            })
            .collect();
        words.join(" ") + "\n"
    };
    table.lines().map(line).collect()
}
