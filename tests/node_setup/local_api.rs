//! The local API and `portcullis status` of a daemon that runs.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, HEALTH, METRICS, Node, program};
use crate::fake_tools::FakeTools;
use crate::http::get;
use crate::namespace;

/// Two Services, of which the kernel's tool rejects one: `recent` does not accept zero seconds.
const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, nodePort: 30080}], type: NodePort}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  clusterIP: 10.96.0.11
  ports: [{port: 80}]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: TIMEOUT}}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: shop}
spec: {clusterIP: 10.96.0.12, ports: [{port: 80}], externalIPs: [10.96.0.10]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints: [{addresses: [10.244.0.1], conditions: {ready: true}}, {addresses: [10.244.0.2], conditions: {ready: true}}]
ports: [{port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}
endpoints: [{addresses: [10.244.0.3], conditions: {ready: true}}]
ports: [{port: 8080}]
";

/// A pod of the node, which a policy isolates.
const POLICY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: node-a}
status: {podIP: 10.244.0.1, podIPs: [{ip: 10.244.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
";

/// A node with a socket of its own.
struct ApiNode {
    node: Node,
    socket: PathBuf,
}

impl ApiNode {
    fn new() -> Self {
        let node = Node::new();
        let socket = node.folder.path().join("run/portcullis.sock");
        ApiNode { node, socket }
    }

    fn write_services(&self, affinity_timeout: &str) {
        let text = SERVICES.replace("TIMEOUT", affinity_timeout);
        fs::write(self.node.folder.path().join("manifests/services.yaml"), text).unwrap();
    }

    /// Starts a daemon in a mode.
    fn start(&self, mode: &str, arguments: &[&str]) -> Daemon {
        let mut command = program();
        command.arg(format!("--mode={mode}")).arg("--socket").arg(&self.socket).args(arguments);
        self.node.spawn(command)
    }

    fn manifests(&self) -> String {
        format!("--manifests={}", self.node.folder.path().join("manifests").display())
    }

    fn status_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("status").arg("--socket").arg(&self.socket).args(arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Returns the exit status and output of `status`.
    fn status(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.status_command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    fn document(&self) -> Value {
        let (_, text) = self.status(&["-o", "json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Waits until the exit status is as expected, and returns the text.
    fn wait_for_status(&self, daemon: &mut Daemon, what: &str, expected: i32) -> String {
        daemon.wait_until(what, || self.status(&[]).0 == Some(expected));
        self.status(&[]).1
    }
}

/// Replaces numbers that differ between runs.
fn normalized(text: &str) -> String {
    let is_counted = |line: &str| {
        ["healthy", "UNHEALTHY", "NOT", "UNKNOWN", "Services", "Policies", "Isolated"]
            .iter()
            .any(|label| line.starts_with(label))
    };
    let mut lines = String::new();
    for line in text.lines() {
        if is_counted(line) {
            lines.push_str(line);
        } else {
            let mut is_number = false;
            for c in line.chars() {
                let is_part = c.is_ascii_digit() || (is_number && c == '.');
                if !is_part {
                    lines.push(c);
                } else if !is_number {
                    lines.push('0');
                }
                is_number = is_part;
            }
        }
        lines.push('\n');
    }
    // Durations have the unit that suits them, and uptimes may have two.
    for (unit, replacement) in [("0µs", "0ms"), ("0s", "0ms"), ("0 min 0 s", "0 s"), ("0 min", "0 s")] {
        lines = lines.replace(unit, replacement);
    }
    lines
}

fn assert_lines(text: &str, expected: &[&str]) {
    let text = normalized(text);
    for line in expected {
        assert!(text.lines().any(|found| found.trim_end() == *line), "missing {line:?} in:\n{text}");
    }
}

#[test]
fn status_of_a_healthy_node() {
    namespace::inside(|| {
        let api = ApiNode::new();
        api.write_services("60");
        fs::write(api.node.folder.path().join("manifests/policy.yaml"), POLICY).unwrap();
        namespace::run("nft add table inet firewall");
        namespace::run(
            "nft add chain inet firewall in { type filter hook input priority 0 ; policy drop ; }",
        );
        namespace::run("nft add rule inet firewall in accept");
        namespace::run("iptables-legacy -w 60 -P FORWARD DROP");
        let mut daemon = api.start("nftables", &[&api.manifests(), "--network-policy"]);
        let text = api.wait_for_status(&mut daemon, "status is healthy", 0);
        assert_lines(
            &text,
            &[
                "healthy",
                "Program     portcullis 0, process 0, up 0 s",
                "Services    3 Services, 3 ports, 4 frontends, 3 endpoints",
                "Not served  0 frontend:",
                "              shop/old: external IP 0:0/tcp is not served: it belongs to Service shop/web",
                "Rules       IPv0: last synced 0 s ago",
                "            IPv0: last synced 0 s ago",
                "            NetworkPolicy: last synced 0 s ago",
                "Firewalls   0 chains of other programs with the policy drop:",
                "              inet firewall in, hook input, priority 0",
                "              ip filter FORWARD, hook forward, priority 0 (legacy iptables)",
            ],
        );
        // Since when depends on the speed of the machine.
        let policies = "\nPolicies    1 policy, 1 of 1 pods of this node isolated, 0 packets dropped";
        assert!(text.contains(policies), "{text}");
        let document = api.document();
        assert_eq!(document["healthy"], true);
        assert_eq!(document["node"]["mode"], "nftables");
        assert_eq!(document["program"]["pid"], daemon.pid());
        assert_eq!(document["services"]["unserved"]["items"][0]["shadowedBy"], "shop/web");
        let policies = api_get(&api, "/v1/policies?namespace=shop");
        assert_eq!(
            policies["pods"]["items"][0],
            serde_json::json!({"pod": "shop/web-1", "ingress": ["NetworkPolicy shop/deny"], "egress": []})
        );
        assert_eq!(policies["drops"]["items"][0]["packets"], 0, "{policies}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&api.socket), mode(api.socket.parent().unwrap())), (0o600, 0o700));
        let (code, yaml) = api.status(&["-o", "yaml"]);
        assert!(
            code == Some(0) && yaml.starts_with("apiVersion: portcullis.io/v1\nkind: Status\n"),
            "{yaml}"
        );

        // Another process changes the table.
        namespace::run("nft flush chain ip portcullis filter-input");
        daemon.wait_until("drift is in the timeline", || {
            api.document()["recentDrift"][0]["process"]
                .as_str()
                .is_some_and(|by| by.starts_with("nft (process "))
        });
        let text = api.status(&[]).1;
        assert!(text.contains("\nDrift ") && text.contains("that nft (process "), "{text}");
    });
}

/// The page has the output after another process has flushed a chain, and a Service has changed.
#[test]
fn what_changed_is_printed_as_the_documentation_shows_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let shown =
        page.split("# portcullis status --since 10m\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown = normalized(shown.expect("the page shows the command"));
    namespace::inside(|| {
        let api = ApiNode::new();
        api.write_services("60");
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        api.wait_for_status(&mut daemon, "status is healthy", 0);
        namespace::run("nft flush chain ip portcullis filter-input");
        daemon.wait_until("drift is in the timeline", || {
            api.document()["recentDrift"][0]["restored"].as_u64().is_some_and(|restored| restored > 0)
        });
        api.write_services("61");
        let printed = || normalized(&api.status(&["--since", "10m"]).1);
        daemon.wait_until("the change is synced", || printed().contains("changed object"));
        let printed = printed();
        for line in shown.lines() {
            assert!(printed.lines().any(|found| found == line), "missing {line:?} in:\n{printed}");
        }
        let (code, json) = api.status(&["--since", "10m", "-o", "json"]);
        let document: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((code, &document["kind"]), (Some(0), &"Timeline".into()), "{json}");
        let (code, text) = api.status(&["--since", "10"]);
        assert!(code == Some(2) && text.contains("expected a duration such as 30s or 5m"), "{text}");
    });
}

#[test]
fn status_of_a_node_with_an_isolated_service() {
    namespace::inside(|| {
        let api = ApiNode::new();
        api.write_services("0");
        let mut daemon = api.start("iptables", &[&api.manifests()]);
        daemon.wait_until("the Service is isolated", || {
            api.socket.exists() && api.document()["isolated"]["count"] == 1
        });
        let (code, text) = api.status(&[]);
        assert_eq!(code, Some(0), "few isolated Services fail no health check\n{text}");
        assert!(
            text.starts_with("healthy, 1 warning\n  warning   Services: 1 of 3 Services are isolated"),
            "{text}"
        );
        assert!(
            text.contains(
                "Isolated    1 object, each with its last accepted rules, if there are any:\n              Service shop/api (IPv4): "
            ),
            "{text}"
        );
        let isolated = &api.document()["isolated"]["items"][0];
        assert_eq!((&isolated["cause"], &isolated["hasRules"]), (&"rejected".into(), &false.into()));
        let entries = |kind: &str| {
            let timeline = api_get(&api, "/v1/timeline");
            let entries = timeline["entries"].as_array().unwrap().clone();
            entries.into_iter().filter(|entry| entry["type"] == kind).collect::<Vec<Value>>()
        };
        assert_eq!(entries("isolated")[0]["object"], "Service shop/api");
        api.write_services("60");
        daemon.wait_until("it is served", || api.document()["isolated"]["count"] == 0);
        assert_eq!(entries("noLongerIsolated").len(), 1);
    });
}

#[test]
fn status_without_an_api_server_and_of_a_failed_sync() {
    namespace::inside(|| {
        let api = ApiNode::new();
        let mut daemon = api.start("nftables", &["--master=http://127.0.0.1:1"]);
        daemon.wait_until("nothing is synced", || {
            let (code, text) = api.status(&[]);
            code == Some(2)
                && text.starts_with("NOT SYNCED YET")
                && text.contains("Services    not listed yet\n")
        });
        daemon.wait_until("the error of the source is shown", || {
            let sources = "Sources     Node never, Service never, EndpointSlice never, ServiceCIDR never: ";
            api.status(&[]).1.contains(sources)
        });
        assert_eq!(api.document()["sources"][0]["listed"], false);
        drop(daemon);

        let tools = FakeTools::new(api.node.folder.path());
        api.write_services("60");
        tools.set_fault("iptables-restore", "cat > /dev/null; echo 'no memory' >&2; exit 1");
        let mut command = program();
        command.args(["--mode=iptables", &api.manifests(), "--socket"]).arg(&api.socket);
        command.env("PATH", tools.path());
        let mut daemon = api.node.spawn(command);
        let text = api.wait_for_status(&mut daemon, "the sync fails", 1);
        assert!(text.starts_with("UNHEALTHY, ") && text.contains("IPv4: never synced; failed "), "{text}");
        assert_eq!(api.document()["healthy"], false);
        daemon.wait_until("a restart may help", || api.document()["live"] == false);
        let document = api.document();
        assert!(
            document["rules"][0]["failure"]["error"].as_str().unwrap().contains("no memory"),
            "{document}"
        );
        tools.repair("iptables-restore");
        api.wait_for_status(&mut daemon, "it recovers", 0);
        let failed = |entry: &Value| entry["type"] == "syncFailed" && entry["trigger"] == "start";
        assert!(api_get(&api, "/v1/timeline")["entries"].as_array().unwrap().iter().any(failed));
    });
}

/// The event loop runs on the main thread of the daemon, which the test stops as a debugger does.
#[test]
fn status_of_a_loop_that_hangs() {
    namespace::inside(|| {
        let api = ApiNode::new();
        api.write_services("60");
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        api.wait_for_status(&mut daemon, "status is healthy", 0);
        let thread = libc::pid_t::try_from(daemon.pid()).unwrap();
        // SAFETY: the requests take no pointers.
        let stopped = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0) == 0
        };
        assert!(stopped, "{}", std::io::Error::last_os_error());
        let (code, text) = api.status(&[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.starts_with("UNKNOWN\n")
                && text.contains("the event loop of the daemon did not respond within 1s; "),
            "{text}"
        );
        assert!(text.contains("Services    not known") && text.contains("IPv4: last synced "), "{text}");
        let document = api.document();
        assert_eq!(
            (&document["eventLoop"]["responded"], &document["services"]),
            (&Value::Bool(false), &Value::Null)
        );
        // SAFETY: the request takes no pointers.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0) };
        api.wait_for_status(&mut daemon, "the loop responds again", 0);
    });
}

#[test]
fn socket_of_a_daemon_without_root_belongs_to_its_user() {
    const USER: u32 = 10256;
    namespace::inside(|| {
        let api = ApiNode::new();
        let folder = api.node.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let run = api.socket.parent().unwrap();
        fs::create_dir(run).unwrap();
        std::os::unix::fs::chown(run, Some(USER), Some(USER)).unwrap();
        let program = folder.join("portcullis");
        fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        command.args(["--no-new-privs", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"]);
        command.arg(program).args(["--mode=nftables", "--hostname-override=node-a", &api.manifests()]);
        command.arg("--socket").arg(&api.socket).stdin(Stdio::null());
        let mut daemon = api.node.spawn(command);
        api.wait_for_status(&mut daemon, "status is healthy", 0);
        let socket = fs::metadata(&api.socket).unwrap();
        assert_eq!((socket.uid(), socket.mode() & 0o777), (USER, 0o600));
    });
}

#[test]
fn status_without_a_daemon_names_the_socket_and_other_commands() {
    namespace::inside(|| {
        let api = ApiNode::new();
        let (code, text) = api.status(&[]);
        let start =
            format!("portcullis: no daemon answers on {}: there is no such socket", api.socket.display());
        assert!(code == Some(2) && text.starts_with(&start) && text.lines().count() == 1, "{text}");
        assert!(text.contains("portcullis diff, render and explain"), "{text}");
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        api.wait_for_status(&mut daemon, "status is healthy", 0);
        // SIGKILL leaves the socket behind.
        drop(daemon);
        let (code, text) = api.status(&[]);
        assert!(code == Some(2) && text.contains("the daemon that created it has ended"), "{text}");
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        api.wait_for_status(&mut daemon, "the socket was replaced", 0);
        namespace::run(&format!("kill {}", daemon.pid()));
        daemon.wait_for_exit();
        assert!(!api.socket.exists(), "it is removed at the end");
        let (code, text) = api.status(&["--socket="]);
        assert!(code == Some(2) && text.contains("the local API is disabled"), "{text}");
    });
}

#[test]
fn socket_that_cannot_be_created_is_reported_and_services_are_served() {
    namespace::inside(|| {
        let api = ApiNode::new();
        fs::create_dir(api.socket.parent().unwrap()).unwrap();
        fs::write(&api.socket, "a file").unwrap();
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        daemon.wait_healthy();
        daemon.wait_until("the problem is in health", || {
            get(HEALTH, "/healthz").is_some_and(|text| {
                text.contains(" 200 ") && text.contains("local API: ") && text.contains("is not a socket")
            })
        });
        assert!(get(METRICS, "/metrics").unwrap().contains("\nportcullis_local_api_listening 0\n"));
        fs::remove_file(&api.socket).unwrap();
        api.wait_for_status(&mut daemon, "it listens", 0);
        assert!(get(METRICS, "/metrics").unwrap().contains("\nportcullis_local_api_listening 1\n"));
        // Something cleans up /run.
        fs::remove_dir_all(api.socket.parent().unwrap()).unwrap();
        api.wait_for_status(&mut daemon, "it is created again", 0);
    });
}

#[test]
fn watch_ends_quietly_when_its_reader_has_enough() {
    namespace::inside(|| {
        let api = ApiNode::new();
        let mut daemon = api.start("nftables", &[&api.manifests()]);
        api.wait_for_status(&mut daemon, "status is healthy", 0);
        let mut watch = api.status_command(&["--watch", "-o", "json"]);
        let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            let document: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(document["kind"], "Status");
        }
        drop(lines);
        let mut errors = String::new();
        watch.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((watch.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
    });
}

/// Requests a document.
fn api_get(api: &ApiNode, path: &str) -> Value {
    use std::io::Write as _;
    let mut stream = UnixStream::connect(&api.socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
}
