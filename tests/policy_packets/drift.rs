//! Drift: external changes of the policy table are reverted and counted, and the log names the process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::daemons::wait_until;
use crate::test_cluster::TestCluster;
use crate::tools;
use crate::truth_tables::wait;

const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 198.51.100.0/24}}],
  ports: [{port: 80}, {port: 90, endPort: 99}, {port: serve-80-udp, protocol: UDP}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: y}, spec: {
  podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}}";

const HELD: &str = "
    y/b → x/b 80/tcp deny
    y/c → x/b 80/udp deny
    x/a → x/b 80/tcp allow
    z/a → x/b 80/tcp deny";

const REPAIRS: &str = "portcullis_network_policy_drift_repairs_total";

/// External changes, as nft commands.
const EXTERNAL_CHANGES: [(&str, &str); 15] = [
    ("everything is flushed", "flush ruleset"),
    ("the table is deleted", "delete table inet portcullis-policy"),
    ("the table is flushed", "flush table inet portcullis-policy"),
    ("a map loses its elements", "flush map inet portcullis-policy ingress-ipv4"),
    ("a hook loses its rules", "flush chain inet portcullis-policy postrouting"),
    (
        "a rule accepts a forbidden pod",
        "insert rule inet portcullis-policy ingress ip daddr 10.244.2.10 accept",
    ),
    (
        "a chain of another process",
        "add chain inet portcullis-policy mine; add rule inet portcullis-policy mine accept",
    ),
    ("a catch-all element", "add element inet portcullis-policy ingress-ipv4 { * : 0:1 }"),
    ("an anonymous chain", "insert rule inet portcullis-policy ingress jump { counter; accept; }"),
    ("the table is dormant", "add table inet portcullis-policy { flags dormant; }"),
    ("a hook drops everything", "add chain inet portcullis-policy postrouting { policy drop; }"),
    (
        "a base chain of another process",
        "add chain inet portcullis-policy mine { type filter hook forward priority 0; policy drop; }",
    ),
    ("a quota", "add quota inet portcullis-policy mine over 10 mbytes"),
    (
        "a map of another process",
        "add map inet portcullis-policy mine { type ipv4_addr : verdict; elements = { 10.1.1.1 : jump egress }; }",
    ),
    ("a pod loses its profile", "delete element inet portcullis-policy ingress-ipv4 { 10.244.2.10 }"),
];

/// Maximum time until the table is restored: a second, and more on a busy machine.
fn max_time_to_restore() -> Duration {
    wait() * 4
}

#[test]
fn external_changes_are_reverted_within_a_second() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(POLICIES);
    cluster.check("at first", HELD);
    let right = cluster.table("node-2");
    let mut repairs = 0.0;
    for (what, lines) in EXTERNAL_CHANGES {
        cluster.nft("node-2", &[lines]);
        let took = wait_until(what, || cluster.table("node-2") == right);
        println!("{what}: restored after {took:?}");
        assert!(took < max_time_to_restore(), "{what}: {took:?}");
        wait_until(what, || cluster.metric("node-2", REPAIRS, &[]) > repairs);
        repairs = cluster.metric("node-2", REPAIRS, &[]);
    }
    cluster.check("after all", HELD);
    let log = cluster.log("node-2");
    assert!(
        log.contains("another process changed the NetworkPolicy table") && log.contains("nft (process "),
        "{log}"
    );
    assert_eq!(cluster.metric("node-1", REPAIRS, &[]), 0.0, "no external change on node-1");
    assert_eq!(cluster.metric("node-2", "portcullis_network_policy_sync_failures_total", &[]), 0.0);

    // Changes of other tables are no drift.
    cluster.nft("node-2", &["add table inet other; add chain inet other c; delete table inet other"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.metric("node-2", REPAIRS, &[]), repairs);
}

/// A change of policies that is written in the same sync is not counted as an external change.
#[test]
fn policy_change_does_not_count_as_a_drift_repair() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(POLICIES);
    cluster.signal("node-2", libc::SIGSTOP);
    cluster.nft("node-2", &["delete element inet portcullis-policy ingress-ipv4 { 10.244.2.10 }"]);
    let more = POLICIES.replace("port: 90, endPort: 99", "port: 190, endPort: 199");
    cluster.lab.apply_text(&more.replace("198.51.100.0/24", "203.0.113.0/24")).unwrap();
    cluster.signal("node-2", libc::SIGCONT);
    wait_until("the repair is counted", || cluster.metric("node-2", REPAIRS, &[]) > 0.0);
    wait_until("the policy is written", || cluster.table("node-2").contains("203.0.113.0"));
    assert_eq!(cluster.metric("node-2", REPAIRS, &[]), 1.0);
}

#[test]
fn table_is_restored_after_many_flushes() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(POLICIES);
    let right = cluster.table("node-2");
    let storms = [
        ("a process each", "for i in $(seq 100); do nft flush ruleset || exit 1; done"),
        ("one process", "for i in $(seq 100); do echo flush ruleset; done | nft -i >/dev/null"),
    ];
    for (what, script) in storms {
        let start = Instant::now();
        let mut storm = cluster.netns("node-2").command("sh");
        let status = storm.args(["-c", script]).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{what}: {status}");
        let lasted = start.elapsed();
        let took = wait_until(what, || cluster.table("node-2") == right);
        println!("100 flushes by {what} in {lasted:?}: restored {took:?} after the last");
        assert!(took < max_time_to_restore(), "{what}: {took:?}");
    }
    cluster.check("after the flushes", HELD);
    let repairs = cluster.metric("node-2", REPAIRS, &[]);
    println!("{repairs} chains, sets and elements were restored");
    assert!(repairs > 10.0);
    let answer = cluster.healthz("node-2");
    assert!(!answer.contains("NetworkPolicy: "), "{answer}");
}

/// A table of the same name with the flag `owner`, which only its owner may change: policies cannot be written, and health
/// reports that until the owner ends.
#[test]
fn failure_to_write_the_table_is_reported_and_retried() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(POLICIES);
    let right = cluster.table("node-2");
    cluster.signal("node-2", libc::SIGSTOP);
    let mut owner = cluster.netns("node-2").command("nft");
    owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = owner.spawn().unwrap();
    let mut lines = owner.stdin.take().unwrap();
    let take = "delete table inet portcullis-policy\nadd table inet portcullis-policy { flags owner; }\n";
    std::io::Write::write_all(&mut lines, take.as_bytes()).unwrap();
    wait_until("another process owns the table", || cluster.table("node-2").contains("owner"));
    cluster.signal("node-2", libc::SIGCONT);
    let failures = || cluster.metric("node-2", "portcullis_network_policy_sync_failures_total", &[]);
    wait_until("the sync is retried", || failures() >= 2.0);
    let answer = cluster.healthz("node-2");
    assert!(answer.contains(" 503 ") && answer.contains("\"NetworkPolicy: the last sync failed"), "{answer}");
    // Services are still programmed.
    cluster.check("Services", "x/a → service/x/s-x-b 80/tcp allow");
    drop(lines);
    assert!(owner.wait().unwrap().success());
    let took = wait_until("the table is written", || cluster.table("node-2") == right);
    println!("written {took:?} after the owner ended");
    wait_until("health is good", || cluster.healthz("node-2").contains(" 200 "));
    cluster.check("enforced again", HELD);
    assert!(
        tools::http_get(&cluster.netns("node-2"), "127.0.0.1:10256", "/livez").unwrap().contains(" 200 ")
    );
}
