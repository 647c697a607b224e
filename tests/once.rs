//! `--once`: one sync, and its exit status.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const GOOD: &str = "
apiVersion: v1
kind: Service
metadata: {name: good, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: good-1, namespace: default, labels: {kubernetes.io/service-name: good}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1]}]
ports: [{name: '', port: 8080}]
";

/// The tools reject a session affinity timeout of 0.
const REJECTED: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: rejected, namespace: default}
spec:
  clusterIP: 10.96.0.2
  ports: [{port: 80}]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rejected-1, namespace: default, labels: {kubernetes.io/service-name: rejected}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.2]}]
ports: [{name: '', port: 8080}]
";

/// Runs `--once`. Returns its output, and then that of the command `listed_by`.
fn once(mode: &str, listed_by: &[&str], manifests: &str) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("all.yaml"), manifests).expect("it can be written to");
    namespace::inside(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["--once", "--mode", mode, "--hostname-override=node-a"]);
        command.args(["--metrics-bind-address=", "--healthz-bind-address="]);
        let output = command.arg("--manifests").arg(folder.path()).output().expect("the binary runs");
        let rules = Command::new(listed_by[0]).args(&listed_by[1..]).output().expect("the tool runs").stdout;
        (output, String::from_utf8(rules).expect("rules are text"))
    })
}

#[test]
fn once_writes_rules_and_exits_with_status_0() {
    let rows: [(&str, &[&str], &str); 2] = [
        ("iptables", &["iptables-save"], "--to-destination 10.244.0.1:8080"),
        ("nftables", &["nft", "list", "ruleset"], ": 10.244.0.1 . 8080"),
    ];
    for (mode, listed_by, expected) in rows {
        let (output, rules) = once(mode, listed_by, GOOD);
        assert_eq!(output.status.code(), Some(0), "{mode}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(rules.contains(expected), "{mode}: {rules}");
        let log = String::from_utf8_lossy(&output.stderr);
        let version = concat!("starting Portcullis v", env!("CARGO_PKG_VERSION"));
        assert!(log.lines().next().is_some_and(|line| line.contains(version)), "{mode}: {log}");
        let first = log.lines().find(|line| line.contains("first sync is done"));
        let first = first.unwrap_or_else(|| panic!("{mode}: {log}"));
        assert!(first.contains("services=1 ports=1 endpoints=1 isolated=0 took="), "{mode}: {first}");
    }
}

#[test]
fn once_names_a_rejected_service_and_serves_the_others() {
    let (output, rules) = once("iptables", &["iptables-save"], &format!("{GOOD}{REJECTED}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("default/rejected") && log.contains("--seconds"), "{log}");
    assert!(rules.contains("--to-destination 10.244.0.1:8080"), "{rules}");
    assert!(!rules.contains("10.244.0.2"), "{rules}");
}

#[test]
fn invalid_setting_is_status_2() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.args(["--once", "--bind-address=nonsense"]).output().expect("the binary runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("bind-address") && log.contains("nonsense"), "{log}");
}

#[test]
fn one_shot_commands_fail_without_a_response_of_the_api_server() {
    let commands: [&[&str]; 7] = [
        &["render"],
        &["diff"],
        &["migrate", "--to=nftables"],
        &["policy", "matrix"],
        &["explain", "--from=a/b", "--to=c/d"],
        &["services", "-A"],
        &["--once", "--metrics-bind-address=", "--healthz-bind-address="],
    ];
    for command in commands {
        let (output, took) = namespace::inside(|| {
            namespace::run("ip link set lo up");
            let start = Instant::now();
            let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
                .args(command)
                .args(["--mode=nftables", "--master=http://127.0.0.1:9", "--request-timeout=700ms"])
                .arg("--hostname-override=node-a")
                .output()
                .expect("the binary runs");
            (output, start.elapsed())
        });
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {log}");
        assert!(took < Duration::from_secs(20), "{command:?}: {took:?}");
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.contains("no response from the API server for 700ms (--request-timeout): cannot list "),
            "{log}"
        );
        assert_eq!(last.matches("Connection refused").count(), 1, "{command:?}: {last}");
        assert!(!log.contains("ERROR"), "errors of libraries repeat this message: {log}");
    }
}

#[test]
fn loopback_is_guarded_since_init_only_sets_route_localnet() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("all.yaml"), GOOD).expect("it can be written to");
    namespace::inside(|| {
        let portcullis = |argument: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.args([argument, "--mode=iptables", "--hostname-override=node-a"]);
            command.args(["--metrics-bind-address=", "--healthz-bind-address=", "--manifests"]);
            let output = command.arg(folder.path()).output().expect("the binary runs");
            assert!(output.status.success(), "{argument}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let guard = || namespace::run("nft list tables").contains("table ip portcullis-loopback\n");
        portcullis("--init-only");
        assert_eq!(namespace::run("cat /proc/sys/net/ipv4/conf/all/route_localnet").trim(), "1");
        assert!(guard(), "no mode serves yet");
        portcullis("--once");
        assert!(!guard(), "the mode has a rule of its own");
        assert!(namespace::run("iptables-save -t filter").contains("-A KUBE-FIREWALL ! -s 127.0.0.0/8"));
    });
}
