//! Somebody else changes the policies' table: it is put right at once, counted, and the log names who it was.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::daemons::wait_until;
use crate::tables::wait;
use crate::tools;
use crate::town::Town;

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

/// What somebody does, as lines of nft. `PROFILE` is the chain of x's pods.
const TAMPERING: [(&str, &str); 15] = [
    ("everything is flushed", "flush ruleset"),
    ("the table is deleted", "delete table inet portcullis-policy"),
    ("the table is flushed", "flush table inet portcullis-policy"),
    ("a map loses its elements", "flush map inet portcullis-policy ingress-ipv4"),
    ("a hook loses its rules", "flush chain inet portcullis-policy postrouting"),
    ("a stranger is let in", "insert rule inet portcullis-policy ingress ip daddr 10.244.2.10 accept"),
    (
        "a stranger's chain",
        "add chain inet portcullis-policy mine; add rule inet portcullis-policy mine accept",
    ),
    ("a catch-all element", "add element inet portcullis-policy ingress-ipv4 { * : drop }"),
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
        "add map inet portcullis-policy mine { type ipv4_addr : verdict; elements = { 10.1.1.1 : jump ingress }; }",
    ),
    ("pods are judged by nothing", "delete element inet portcullis-policy ingress-ipv4 { 10.244.2.10 }"),
];

/// The time within which all is right again: a second, and more where more wants to run than can.
fn within() -> Duration {
    wait() * 4
}

#[test]
fn what_others_change_is_repaired_within_a_second() {
    let mut town = Town::enforcing(&[]);
    town.apply(POLICIES);
    town.check("at first", HELD);
    let right = town.table("node-2");
    let mut repairs = 0.0;
    for (what, lines) in TAMPERING {
        town.nft("node-2", &[lines]);
        let took = wait_until(what, || town.table("node-2") == right);
        println!("{what}: repaired after {took:?}");
        assert!(took < within(), "{what}: {took:?}");
        wait_until(what, || town.metric("node-2", REPAIRS, &[]) > repairs);
        repairs = town.metric("node-2", REPAIRS, &[]);
    }
    town.check("after all", HELD);
    let log = town.log("node-2");
    assert!(
        log.contains("another process changed the NetworkPolicy table") && log.contains("nft (process "),
        "{log}"
    );
    assert_eq!(town.metric("node-1", REPAIRS, &[]), 0.0, "nobody changed anything there");
    assert_eq!(town.metric("node-2", "portcullis_network_policy_sync_failures_total", &[]), 0.0);

    // What is none of ours is no drift.
    town.nft(
        "node-2",
        &["add table inet of-others; add chain inet of-others c; delete table inet of-others"],
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(town.metric("node-2", REPAIRS, &[]), repairs);
}

/// What policies change is no external change, though it is written in the same sync.
#[test]
fn a_change_of_policies_does_not_count_as_a_repair() {
    let mut town = Town::enforcing(&[]);
    town.apply(POLICIES);
    town.signal("node-2", libc::SIGSTOP);
    town.nft("node-2", &["delete element inet portcullis-policy ingress-ipv4 { 10.244.2.10 }"]);
    let more = POLICIES.replace("port: 90, endPort: 99", "port: 190, endPort: 199");
    town.lab.apply_text(&more.replace("198.51.100.0/24", "203.0.113.0/24")).unwrap();
    town.signal("node-2", libc::SIGCONT);
    wait_until("it is repaired", || town.metric("node-2", REPAIRS, &[]) > 0.0);
    wait_until("the policy is written", || town.table("node-2").contains("203.0.113.0"));
    assert_eq!(town.metric("node-2", REPAIRS, &[]), 1.0);
}

#[test]
fn a_storm_of_flushes_ends_in_the_right_rules() {
    let mut town = Town::enforcing(&[]);
    town.apply(POLICIES);
    let right = town.table("node-2");
    let storms = [
        ("a process each", "for i in $(seq 100); do nft flush ruleset || exit 1; done"),
        ("one process", "for i in $(seq 100); do echo flush ruleset; done | nft -i >/dev/null"),
    ];
    for (what, script) in storms {
        let start = Instant::now();
        let mut storm = town.netns("node-2").command("sh");
        let status = storm.args(["-c", script]).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{what}: {status}");
        let lasted = start.elapsed();
        let took = wait_until(what, || town.table("node-2") == right);
        println!("100 flushes by {what} in {lasted:?}: repaired {took:?} after the last");
        assert!(took < within(), "{what}: {took:?}");
    }
    town.check("after the storms", HELD);
    let repairs = town.metric("node-2", REPAIRS, &[]);
    println!("{repairs} chains, sets and elements were put right");
    assert!(repairs > 10.0);
    let answer = town.healthz("node-2");
    assert!(!answer.contains("NetworkPolicy: "), "{answer}");
}

/// A table of the same name that its owner alone may touch: policies cannot be written, and health says so until it goes.
#[test]
fn a_table_that_cannot_be_written_is_told_and_tried_again() {
    let mut town = Town::enforcing(&[]);
    town.apply(POLICIES);
    let right = town.table("node-2");
    town.signal("node-2", libc::SIGSTOP);
    let mut owner = town.netns("node-2").command("nft");
    owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = owner.spawn().unwrap();
    let mut lines = owner.stdin.take().unwrap();
    let take = "delete table inet portcullis-policy\nadd table inet portcullis-policy { flags owner; }\n";
    std::io::Write::write_all(&mut lines, take.as_bytes()).unwrap();
    wait_until("the table is another's", || town.table("node-2").contains("owner"));
    town.signal("node-2", libc::SIGCONT);
    let failures = || town.metric("node-2", "portcullis_network_policy_sync_failures_total", &[]);
    wait_until("it is tried more than once", || failures() >= 2.0);
    let answer = town.healthz("node-2");
    assert!(answer.contains(" 503 ") && answer.contains("\"NetworkPolicy: the last sync failed"), "{answer}");
    // Services are served all the same.
    town.check("Services", "x/a → service/x/s-x-b 80/tcp allow");
    drop(lines);
    assert!(owner.wait().unwrap().success());
    let took = wait_until("it is written again", || town.table("node-2") == right);
    println!("written {took:?} after the owner went");
    wait_until("all is well", || town.healthz("node-2").contains(" 200 "));
    town.check("held again", HELD);
    assert!(tools::http_get(&town.netns("node-2"), "127.0.0.1:10256", "/livez").unwrap().contains(" 200 "));
}
