//! `portcullis lab run` with network policies: the matrix shows the verdicts of the policy compiler, and a difference
//! fails the run.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::{LabRecord, NetNs};

fn lab_run(folder: &Path) -> (Output, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["lab", "run"])
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (run, text)
}

/// Rows of the matrix of a port: source, destination, mark.
const SEEN: [(&str, &str, &str, &str); 8] = [
    ("5432/TCP", "shop/api", "shop/db", "."),
    ("5432/TCP", "shop/web", "shop/db", "X"),
    ("8000/TCP", "shop/web", "shop/api", "."),
    ("9090/TCP", "shop/web", "shop/api", "X"),
    ("9090/TCP", "infra/monitor", "shop/api", "."),
    ("53/TCP", "shop/db", "infra/names", "."),
    ("8080/TCP · IPv4", "outside", "shop/web", "."),
    ("8080/TCP · IPv6", "outside", "shop/web", "X"),
];

#[test]
fn the_matrix_shows_policy_verdicts() {
    let (run, text) =
        lab_run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab/network-policy.yaml"));
    assert!(run.status.success(), "{text}");
    assert_eq!(text.matches("all expectations met").count(), 2, "of Services, and of policies:\n{text}");
    for (heading, from, to, seen) in SEEN {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let columns = words(lines.next().unwrap_or_default());
        let row = lines.map(words).find(|row| row.first().is_some_and(|name| name == from));
        let column = columns.iter().position(|name| name == to);
        let cell = row.zip(column).and_then(|(row, column)| row.get(column + 1).cloned());
        assert_eq!(cell.as_deref(), Some(seen), "{heading}: {from} → {to}\n{text}");
    }
}

/// Two pods, one of which allows all ingress.
const OPEN: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: a}}, spec: {nodeName: node-1, containers: [{name: a, ports: [{containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: b}}, spec: {nodeName: node-2, containers: [{name: b, ports: [{containerPort: 80}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{}]}}
";

/// Rules of another process that drop connections of a pod.
const DROP_RULE: &str =
    "table inet other { chain c { type filter hook output priority 0; tcp dport 80 ct state new drop; }; }";

#[test]
fn an_unexpected_outcome_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), OPEN).unwrap();
    let (run, text) = lab_run(folder.path());
    assert!(run.status.success() && text.contains("denied; all expectations met"), "{text}");

    let mut run = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    run.args(["lab", "run"]).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let run = run.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let lab = loop {
        let found = LabRecord::all().unwrap().into_iter().find(|lab| lab.owner == run.id());
        match found.filter(|lab| lab.netns_name("a").is_ok()) {
            Some(lab) => break lab,
            None => assert!(Instant::now() < until, "the lab was not built"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let status = NetNs::new(lab.netns_name("a").unwrap()).command("nft").arg(DROP_RULE).status().unwrap();
    assert!(status.success());
    let run = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains(" unexpected\n"), "{text}");
    assert!(text.contains("✗ default/a → default/b 80/TCP IPv4: expected allowed; timed out"), "{text}");
    assert!(!text.contains("✗ default/b →"), "{text}");
}
