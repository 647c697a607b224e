//! `portcullis lab run` of a folder with policies: who can talk to whom is as the compiler says, and where it is not, the
//! run says so and fails.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::{LabState, NetNs};

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

/// Rows of the table of a port, as `from`, `to`, and what is seen.
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
fn who_can_talk_to_whom_is_shown() {
    let (run, text) =
        lab_run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab/network-policy.yaml"));
    assert!(run.status.success(), "{text}");
    assert_eq!(text.matches("all as it must be").count(), 2, "of Services, and of policies:\n{text}");
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

/// Two pods, one of which takes what comes.
const OPEN: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: a}}, spec: {nodeName: node-1, containers: [{name: a, ports: [{containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: b}}, spec: {nodeName: node-2, containers: [{name: b, ports: [{containerPort: 80}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{}]}}
";

/// Somebody who drops what a pod asks of others.
const MEDDLING: &str = "table inet meddling { chain c { type filter hook output priority 0; tcp dport 80 ct state new drop; }; }";

#[test]
fn what_is_otherwise_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), OPEN).unwrap();
    let (run, text) = lab_run(folder.path());
    assert!(run.status.success() && text.contains("denied; all as it must be"), "{text}");

    let mut run = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    run.args(["lab", "run"]).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let run = run.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let lab = loop {
        let found = LabState::all().unwrap().into_iter().find(|lab| lab.owner == run.id());
        match found.filter(|lab| lab.netns_of("a").is_ok()) {
            Some(lab) => break lab,
            None => assert!(Instant::now() < until, "the lab does not come to be"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let meddle = NetNs::named(lab.netns_of("a").unwrap()).command("nft").arg(MEDDLING).status().unwrap();
    assert!(meddle.success());
    let run = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains("are not as they must be"), "{text}");
    assert!(text.contains("✗ default/a → default/b 80/TCP IPv4: must be allowed; timed out"), "{text}");
    assert!(!text.contains("✗ default/b →"), "{text}");
}
