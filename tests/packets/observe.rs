//! `portcullis observe` with real packets: names, rules that exist only while packets are observed, and losses.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Family, Vantage};
use portcullis_netlink::conntrack::Conntrack;
use portcullis_netlink::nf_tables::{self, TableFamily, Transaction};
use serde_json::Value;

use crate::mode::Mode;
use crate::observer::Observer;
use crate::row::{cluster_ip, load_balancer, outside, pod};
use crate::testbed::{PATIENCE, Setup, Testbed};

/// A policy that denies connections to pod a, and a Service whose load balancer address only one network may use.
const OBJECTS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: lonely, namespace: default}, spec: {
  podSelector: {matchLabels: {one: a}}, ingress: [{from: [{podSelector: {matchLabels: {friend: 'yes'}}}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack,
  clusterIPs: [10.96.0.100, 'fd00:10:96::100'], selector: {app: web}, loadBalancerSourceRanges: [198.18.0.0/15],
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080},
          {name: dns, port: 53, targetPort: 8053, protocol: UDP, nodePort: 30053}]},
 status: {loadBalancer: {ingress: [{ip: 203.0.113.20}, {ip: '2001:db8:113::20'}]}}}";

/// The comment of rules that log drops.
const LOG_RULE: &str = "while drops are observed";

/// The table that logs drops by source ranges.
const LOG_TABLE: &str = "portcullis-observe";

fn up(mode: Mode) -> Testbed {
    let mut testbed = Setup::new("web.yaml").mode(mode).args(&["--network-policy"]).up();
    testbed.apply(OBJECTS);
    testbed
}

/// The tables of nf_tables on a node, without the values of counters, and without the set whose elements the daemon removes a
/// minute after policies are first enforced.
fn rule_set(testbed: &Testbed, node: &str) -> String {
    let mut rules = testbed.nft(node, &["-s", "list", "ruleset"]);
    if let Some(start) = rules.find("set picked-up-protocols {") {
        let end = start + rules[start..].find("\n\t}").expect("a set ends");
        rules.replace_range(start..end, "");
    }
    rules
}

fn socket(testbed: &Testbed, node: &str) -> PathBuf {
    testbed.lab.folder().join(format!("{node}.sock"))
}

/// Starts `portcullis observe` with the socket of a node's daemon.
fn start(testbed: &Testbed, node: &str, arguments: &[&str]) -> Observer {
    Observer::spawn(Command::new(env!("CARGO_BIN_EXE_portcullis")), socket(testbed, node), arguments)
}

/// Starts an observer of drops, and waits until rules log them.
fn observe_drops(testbed: &Testbed, node: &str) -> Observer {
    let observer = start(testbed, node, &["--follow", "-o", "json"]);
    let head = observer.wait_for("Observation", |_| true);
    assert_eq!((&head["apiVersion"], &head["node"]), (&"portcullis.io/v1".into(), &node.into()));
    testbed.wait_until("drops are logged", PATIENCE, |testbed| {
        let rules = rule_set(testbed, node);
        rules.contains(LOG_RULE) && rules.contains(LOG_TABLE)
    });
    observer
}

/// Returns the name of a pod of the default namespace, as in documents.
fn name(name: &str) -> Value {
    serde_json::json!({"namespace": "default", "name": name})
}

pub(crate) fn dropped_packets_are_observed(mode: Mode) {
    let mut testbed = up(mode);
    // Objects that packets in progress may still look up are removed a second after the change.
    thread::sleep(Duration::from_secs(3));
    let unobserved = rule_set(&testbed, "node-1");
    assert!(!unobserved.contains(LOG_RULE) && !unobserved.contains(LOG_TABLE), "{unobserved}");
    let observer = observe_drops(&testbed, "node-1");
    policy_drops_are_observed(&testbed, &observer);
    source_range_drops_are_observed(&testbed, &observer);
    let mode_argument = format!("--mode={}", mode.name());
    let diff = testbed.program("node-1", &["diff", &mode_argument]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    observer.kill();
    wait_for_rule_set(&testbed, &unobserved);
    let observer = observe_drops(&testbed, "node-1");
    testbed.kill_daemon("node-1");
    // The kernel removes the table of the daemon. The rules of the policy table stay until the next start.
    testbed.wait_until("the table is removed", PATIENCE, |t| !rule_set(t, "node-1").contains(LOG_TABLE));
    drop(observer);
    testbed.lab.start_daemon("node-1").unwrap();
    testbed.synced();
    wait_for_rule_set(&testbed, &unobserved);
}

/// The kernel rejects the rules while the table belongs to another process.
pub(crate) fn rules_that_log_are_written_once_the_kernel_accepts_them(mode: Mode) {
    let testbed = up(mode);
    let node = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    let owner = node.run(|| {
        let mut socket = nf_tables::open().unwrap().expect("the kernel has nf_tables");
        let mut transaction = Transaction::new("test", TableFamily::Inet, LOG_TABLE).unwrap();
        transaction.add_owned_table(None).unwrap();
        transaction.commit(&mut socket).unwrap();
        socket
    });
    let observer = start(&testbed, "node-1", &["--follow", "-o", "json"]);
    let notice = |text: &str| {
        let message = observer.wait_for("Notice", |notice| {
            notice["message"].as_str().unwrap().starts_with("drops by loadBalancerSourceRanges ")
        });
        assert!(message["message"].as_str().unwrap().contains(text), "{message}");
    };
    notice(" cannot be observed: ");
    drop(owner);
    notice(" are observed now");
    source_range_drops_are_observed(&testbed, &observer);
}

/// Waits until node-1 has these rules.
fn wait_for_rule_set(testbed: &Testbed, expected: &str) {
    let until = Instant::now() + PATIENCE;
    while rule_set(testbed, "node-1") != expected {
        let found = rule_set(testbed, "node-1");
        assert!(Instant::now() < until, "--- expected\n{expected}\n--- found\n{found}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn policy_drops_are_observed(testbed: &Testbed, observer: &Observer) {
    for (family, to) in [("IPv4", "10.244.1.21:8080"), ("IPv6", "[fd00:10:244:1::21]:8080")] {
        let outcome = testbed.from(pod("b")).timeout(Duration::from_millis(300)).tcp(to.parse().unwrap());
        assert_eq!(outcome.responder(), None, "{family}");
        let event = observer.wait_for("TrafficEvent", |event| {
            event["source"]["pod"] == name("b")
                && event["destination"]["address"] == to[..to.len() - 5].trim_matches(['[', ']'])
        });
        assert_eq!(event["verdict"], "dropped", "{event}");
        assert_eq!(
            (&event["direction"], &event["reason"]),
            (&"ingress".into(), &"policies".into()),
            "{event}"
        );
        assert_eq!(event["policies"], serde_json::json!(["NetworkPolicy default/lonely"]), "{event}");
        assert_eq!((&event["protocol"], &event["tcpFlags"]), (&"TCP".into(), &"SYN".into()), "{event}");
        assert_eq!((&event["destination"]["pod"], &event["destination"]["port"]), (&name("a"), &8080.into()));
        assert_eq!(
            (&event["source"]["node"], &event["destination"]["node"]),
            (&"node-2".into(), &"node-1".into())
        );
        assert!(event["outputInterface"].is_string() && event["inputInterface"].is_string(), "{event}");
    }
}

fn source_range_drops_are_observed(testbed: &Testbed, observer: &Observer) {
    for family in [Family::V4, Family::V6] {
        let target = load_balancer("web", 80);
        let target = if family == Family::V4 { target.v4() } else { target.v6() };
        let outcome =
            testbed.from(outside()).timeout(Duration::from_millis(300)).tcp(testbed.address(target));
        assert_eq!(outcome.responder(), None);
    }
    let by_source_ranges = |event: &Value| event["reason"] == "sourceRanges";
    let event = observer.wait_for("TrafficEvent", by_source_ranges);
    assert_eq!(event["verdict"], "dropped", "{event}");
    assert_eq!(event["destination"]["address"], "203.0.113.20", "{event}");
    assert_eq!(event["frontend"]["service"], name("web"), "{event}");
    assert_eq!((&event["frontend"]["port"], &event["frontend"]["portName"]), (&80.into(), &"http".into()));
    assert_eq!(event["source"]["pod"], Value::Null, "{event}");
    assert_eq!(event["policies"], serde_json::json!([]), "{event}");
}

/// Packets without a rate: some are read, and all others are counted.
#[test]
fn packets_that_are_not_observed_are_counted_as_lost() {
    const SENT: usize = 60_000;
    const DROPPED: &str = "portcullis_network_policy_dropped_packets_total";
    let testbed = up(Mode::Nftables);
    let observer = observe_drops(&testbed, "node-1");
    // The counters are read first when an observer connects.
    thread::sleep(Duration::from_secs(3));
    let before = testbed.metric("node-1", DROPPED, "lonely");
    let pod = testbed.lab.netns(&Vantage::pod("b")).unwrap();
    pod.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.244.1.21:8053").unwrap();
        (0..SENT).for_each(|_| _ = socket.send(b"x"));
    })
    .unwrap();
    let dropped = testbed.metric("node-1", DROPPED, "lonely") - before;
    assert!(dropped > SENT as f64 / 2.0, "{dropped}");
    let (mut read, mut lost, until) = (0, 0, Instant::now() + PATIENCE);
    while ((read + lost) as f64) < dropped {
        let rest = until.saturating_duration_since(Instant::now());
        match observer.lines.recv_timeout(rest) {
            Ok(line) => {
                let line: Value = serde_json::from_str(&line).unwrap();
                match line["kind"].as_str() {
                    Some("TrafficEvent") => read += line["count"].as_u64().unwrap(),
                    Some("LostEvents") => lost += line["events"].as_u64().unwrap(),
                    _ => {}
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                panic!("{read} read and {lost} lost of {dropped}");
            }
        }
    }
    println!("{read} read and {lost} lost of {dropped}");
    assert_eq!((read + lost) as f64, dropped);
    assert!(read > 0);
}

/// Connections are named by pods and Service, in each mode.
pub(crate) fn connections_are_observed(mode: Mode) {
    // User-mode Linux, in which IPVS mode is tested, has no nf_tables for policies.
    let has_policies = mode != Mode::Ipvs;
    let testbed = if has_policies { up(mode) } else { Setup::new("web.yaml").mode(mode).up() };
    let observer = start(&testbed, "node-2", &["--connections", "--follow", "-o", "json"]);
    observer.wait_for("Observation", |_| true);
    let rules = rule_set(&testbed, "node-2");
    assert!(!rules.contains(LOG_RULE) && !rules.contains(LOG_TABLE), "connections need no rules: {rules}");
    // Whether pod a may answer or not, conntrack has the connection if it passed the rules of this node.
    let _ = testbed.from(pod("b")).tcp(testbed.address(cluster_ip("web", 80).v4()));
    let is_ours = |event: &Value| {
        event["source"]["address"] == "10.244.2.22" && event["frontend"]["service"] == name("web")
    };
    let new = observer.wait_for("TrafficEvent", |event| event["verdict"] == "new" && is_ours(event));
    assert_eq!(new["source"]["pod"], name("b"), "{new}");
    assert_eq!((&new["frontend"]["address"], &new["frontend"]["port"]), (&"10.96.0.100".into(), &80.into()));
    let endpoint = match new["destination"]["address"].as_str().unwrap() {
        "10.244.1.21" => "a",
        "10.244.2.22" => "b",
        "10.244.2.23" => "c",
        other => panic!("{other} is no endpoint: {new}"),
    };
    assert_eq!((&new["destination"]["pod"], &new["destination"]["port"]), (&name(endpoint), &8080.into()));
    assert_eq!(new["destination"]["service"], name("web"), "{new}");
    let node = testbed.lab.netns(&Vantage::node("node-2")).unwrap();
    node.run(|| {
        let mut conntrack = Conntrack::open().unwrap();
        conntrack.delete_where(&portcullis_netlink::Family::ALL, &[], |_| true).unwrap();
    })
    .unwrap();
    let ended = observer.wait_for("TrafficEvent", |event| event["verdict"] == "ended" && is_ours(event));
    assert_eq!(ended["destination"]["address"], new["destination"]["address"], "{ended}");
}

/// Without a daemon, the command reads connections itself, and says what is missing.
#[test]
fn connections_are_observed_without_a_daemon() {
    let testbed = up(Mode::Nftables);
    let node = testbed.lab.netns(&Vantage::node("node-2")).unwrap();
    let missing = testbed.lab.folder().join("missing.sock");
    let command = node.command(env!("CARGO_BIN_EXE_portcullis"));
    let arguments = ["--connections", "--follow", "-o", "json", "--to", "10.96.0.100"];
    let observer = Observer::spawn(command, missing.clone(), &arguments);
    observer.wait_for("Observation", |_| true);
    let _ = testbed.from(pod("b")).tcp(testbed.address(cluster_ip("web", 80).v4()));
    let new = observer.wait_for("TrafficEvent", |event| event["verdict"] == "new");
    assert_eq!(new["frontend"]["address"], "10.96.0.100", "{new}");
    assert_eq!((&new["source"]["pod"], &new["frontend"]["service"]), (&Value::Null, &Value::Null));
    for (arguments, message) in [
        (&["--follow"][..], "no daemon answers on"),
        (&["--connections", "--from", "default/b"], "without the daemon, --from and --to must be addresses"),
    ] {
        let mut command = node.command(env!("CARGO_BIN_EXE_portcullis"));
        let output = command.arg("observe").arg("--socket").arg(&missing).args(arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains(message), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

/// `portcullis observe --follow | head -1` ends without events.
#[test]
fn command_ends_when_its_output_is_closed() {
    let testbed = up(Mode::Nftables);
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(["observe", "--follow", "-o", "json", "--port=9", "--socket"])
        .arg(socket(&testbed, "node-1"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            status => break status,
        }
    };
    let _ = child.kill();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

/// The example of docs/operating.md is what the command prints, apart from times and the clients' ports.
#[test]
fn documented_output_is_the_real_one() {
    const COMMAND: &str = "# portcullis observe -n default --count 2\n";
    let testbed = up(Mode::Nftables);
    let _logging = observe_drops(&testbed, "node-1");
    let observer = start(&testbed, "node-1", &["-n", "default", "--count", "2"]);
    let next = || observer.lines.recv_timeout(PATIENCE).unwrap();
    let mut lines = vec![next()];
    let timeout = Duration::from_millis(300);
    let _ = testbed.from(pod("b")).timeout(timeout).tcp("10.244.1.21:8080".parse().unwrap());
    lines.push(next());
    let _ = testbed.from(outside()).timeout(timeout).tcp(testbed.address(load_balancer("web", 80).v4()));
    lines.push(next());
    for line in &mut lines[1..] {
        line.replace_range(..12, "10:43:26.123");
        let source = line[42..].find(':').expect("the source has a port") + 43;
        line.replace_range(source..source + 5, "40000");
    }
    let page = include_str!("../../docs/operating.md");
    let (_, example) = page.split_once(COMMAND).expect("the page has the example");
    let (example, _) = example.split_once("```").expect("the example ends");
    assert_eq!(lines.join("\n") + "\n", example);
}
