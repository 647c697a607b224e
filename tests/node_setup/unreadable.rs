//! Tests of objects that cannot be parsed when the program starts: existing rules stay, and the objects are reported.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::daemon::{HEALTH, Node, program};
use crate::http::get;
use crate::namespace;

/// Returns a Service with one endpoint, for an API server.
fn service(name: &str, address: &str, endpoint: &str) -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [endpoint]}], "ports": [{"port": 8080}],
        }),
    ]
}

/// Returns a Service with one endpoint as a manifest: JSON documents in a YAML file.
fn manifest(name: &str, address: &str, endpoint: &str) -> String {
    service(name, address, endpoint).map(|object| format!("---\n{object}\n")).concat()
}

/// Invalid manifests, and a text in the error about each.
const BROKEN: [(&str, &str); 5] = [
    ("apiVersion: v1\nkind: Service\nmetadata:\n\tname: b\n", "b.yaml:4: malformed YAML: a tab"),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: {{ .Name }}}\n",
        "b.yaml:3: malformed YAML: a template",
    ),
    ("apiVersion: v1\nkind: Sevice\nmetadata: {name: b}\n", "did you mean Service?"),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\nspec: {ports: 80}\n",
        "b.yaml:1: Service shop/b: field spec.ports",
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: b-1, namespace: shop}\nports: x\n",
        "b.yaml:1: EndpointSlice shop/b-1: field ports",
    ),
];

const MODES: [&str; 2] = ["iptables", "nftables"];

fn rules(mode: &str) -> String {
    match mode {
        "iptables" => crate::cluster::rules().lines().filter(|line| line.starts_with("-A")).collect(),
        _ => namespace::run("nft list ruleset"),
    }
}

fn manifests_of(node: &Node) -> std::path::PathBuf {
    node.folder.path().join("manifests")
}

fn command(mode: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["--mode", mode, "--iptables-min-sync-period=0s"]).args(arguments);
    command
}

fn once(mode: &str, manifests: &Path) -> Output {
    command(mode, &["--once", "--healthz-bind-address="]).arg("--manifests").arg(manifests).output().unwrap()
}

fn status(path: &str) -> String {
    get(HEALTH, path).unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn rules_stay_until_every_document_has_been_parsed_once() {
    namespace::inside(|| {
        for mode in MODES {
            let node = Node::new();
            let folder = manifests_of(&node);
            fs::write(folder.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.1")).unwrap();
            fs::write(folder.join("b.yaml"), manifest("b", "10.96.0.2", "10.244.0.2")).unwrap();
            assert_eq!(once(mode, &folder).status.code(), Some(0));
            let before = rules(mode);
            assert!(before.contains("10.244.0.1") && before.contains("10.244.0.2"), "{mode}: {before}");
            for (text, named) in BROKEN {
                fs::write(folder.join("b.yaml"), text).unwrap();
                let output = once(mode, &folder);
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{mode}: {stderr}");
                assert!(stderr.contains(named), "{mode}: {stderr} does not contain {named}");
                assert_eq!(rules(mode), before, "{mode}: {stderr}");
            }

            let mut start = command(mode, &["--manifests"]);
            start.arg(&folder);
            let mut daemon = node.spawn(start);
            daemon.wait_until("health names the document", || {
                let answer = get(HEALTH, "/healthz").unwrap_or_default();
                answer.contains("first sync: ") && answer.contains("b.yaml:1: EndpointSlice shop/b-1")
            });
            assert_eq!([status("/healthz"), status("/livez")], ["503", "200"], "{mode}");
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(rules(mode), before, "{mode}: {}", daemon.log());

            fs::write(folder.join("b.yaml"), manifest("b", "10.96.0.2", "10.244.0.22")).unwrap();
            daemon.wait_until("the repaired document is served", || rules(mode).contains("10.244.0.22"));
            daemon.wait_healthy();
            assert!(rules(mode).contains("10.244.0.1"), "{mode}");

            // After the first sync, the last good version of a document counts, and other documents are followed.
            fs::write(folder.join("b.yaml"), BROKEN[0].0).unwrap();
            fs::write(folder.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.11")).unwrap();
            daemon.wait_until("the other document is followed", || rules(mode).contains("10.244.0.11"));
            assert!(rules(mode).contains("10.244.0.22"), "{mode}");
            let answer = get(HEALTH, "/healthz").unwrap();
            assert!(answer.contains(BROKEN[0].1) && answer.contains(" 200 "), "{mode}: {answer}");
            drop(daemon);
            namespace::run("nft flush ruleset");
        }
    });
}

#[test]
fn a_node_without_rules_serves_the_valid_objects() {
    namespace::inside(|| {
        for mode in MODES {
            for (text, named) in BROKEN {
                let node = Node::new();
                let folder = manifests_of(&node);
                fs::write(folder.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.1")).unwrap();
                fs::write(folder.join("b.yaml"), text).unwrap();
                let output = once(mode, &folder);
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{mode}: {stderr}");
                assert!(stderr.contains(named), "{mode}: {stderr} does not contain {named}");
                assert!(rules(mode).contains("10.244.0.1"), "{mode}: {stderr}");
                namespace::run("nft flush ruleset");
            }
        }
    });
}

#[test]
fn an_invalid_object_in_the_first_list_removes_no_rules() {
    namespace::inside(|| {
        for mode in MODES {
            let node = Node::new();
            let server = ApiServer::start();
            server.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}}));
            for object in
                [service("a", "10.96.0.1", "10.244.0.1"), service("b", "10.96.0.2", "10.244.0.2")].concat()
            {
                server.apply(object);
            }
            let once = || {
                command(mode, &["--once", "--healthz-bind-address=", "--master", &server.url()])
                    .output()
                    .unwrap()
            };
            assert_eq!(once().status.code(), Some(0), "{mode}");
            let before = rules(mode);

            let mut broken = service("b", "10.96.0.2", "10.244.0.2")[0].clone();
            broken["spec"]["ports"] = json!("80");
            server.apply(broken);
            let output = once();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{mode}: {stderr}");
            assert!(stderr.contains("Service shop/b: field spec.ports"), "{mode}: {stderr}");
            assert_eq!(rules(mode), before, "{mode}");

            let mut daemon = node.spawn(command(mode, &["--master", &server.url()]));
            daemon.wait_until("health names the object", || {
                get(HEALTH, "/healthz")
                    .is_some_and(|answer| answer.contains("Service shop/b: field spec.ports"))
            });
            daemon.wait_until("the first sync is held back", daemon_is_held);
            assert_eq!([status("/healthz"), status("/livez")], ["503", "200"], "{mode}");
            assert_eq!(rules(mode), before, "{mode}");

            server.apply(service("b", "10.96.0.2", "10.244.0.2")[0].clone());
            for object in service("a", "10.96.0.1", "10.244.0.11") {
                server.apply(object);
            }
            daemon.wait_until("all is served", || rules(mode).contains("10.244.0.11"));
            assert!(rules(mode).contains("10.244.0.2"), "{mode}");
            daemon.wait_healthy();
            drop(daemon);
            namespace::run("nft flush ruleset");
        }
    });
}

fn daemon_is_held() -> bool {
    get(HEALTH, "/healthz").is_some_and(|answer| answer.contains("first sync: "))
}

#[test]
fn policies_stay_while_one_of_them_is_invalid() {
    namespace::inside(|| {
        let node = Node::new();
        let folder = manifests_of(&node);
        let policy = |spec: &str| {
            format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\n{spec}\n")
        };
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {nodeName: node-a}\nstatus: {podIP: 10.244.0.1}\n";
        fs::write(folder.join("pod.yaml"), pod).unwrap();
        fs::write(folder.join("policy.yaml"), policy("spec: {podSelector: {}}")).unwrap();
        let once = || {
            let mut once = command(
                "nftables",
                &["--once", "--network-policy", "--healthz-bind-address=", "--manifests"],
            );
            once.arg(&folder).output().unwrap()
        };
        let output = once();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let table = || namespace::run("nft list table inet portcullis-policy");
        let before = table();
        assert!(before.contains("10.244.0.1"), "{before}");
        fs::write(folder.join("policy.yaml"), policy("spec: {podSelector: []}")).unwrap();
        let output = once();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("policy.yaml:1: NetworkPolicy default/p: field spec.podSelector"),
            "{stderr}"
        );
        assert_eq!(table(), before);
    });
}

#[test]
fn a_policy_that_was_never_valid_fails_health_on_a_node_without_rules() {
    namespace::inside(|| {
        let node = Node::new();
        let file = manifests_of(&node).join("policy.yaml");
        let policy = |selector: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{podSelector: {selector}}}\n"
            )
        };
        fs::write(&file, policy("[]")).unwrap();
        let mut start = command("nftables", &["--network-policy", "--manifests"]);
        start.arg(manifests_of(&node));
        let mut daemon = node.spawn(start);
        daemon.wait_until("health says what is not enforced", || {
            let answer = get(HEALTH, "/healthz").unwrap_or_default();
            answer.contains("policies: enforced without objects that cannot be read")
                && answer.contains("policy.yaml:1: NetworkPolicy default/p: field spec.podSelector")
        });
        assert_eq!([status("/healthz"), status("/livez")], ["503", "200"]);
        fs::write(&file, policy("{}")).unwrap();
        daemon.wait_healthy();
        fs::write(&file, policy("[]")).unwrap();
        daemon.wait_until("the document is listed", || {
            get(HEALTH, "/healthz").is_some_and(|answer| answer.contains("source: "))
        });
        assert_eq!(status("/healthz"), "200", "the last good version is enforced");
    });
}
