//! Two daemons in one network namespace: the lock on the policy table, and a table that both write.

use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_netlink::nf_tables;

use crate::daemon::{Daemon, HEALTH, METRICS, Node};
use crate::http::get;
use crate::namespace::{self, run};

const POLICIES: &str = "nft -a list chain inet portcullis-policy postrouting";

/// Ports that only the first daemon has.
const SECOND: [&str; 2] = ["--healthz-bind-address=", "--metrics-bind-address="];

fn start_second(node: &Node, arguments: &[&str]) -> Daemon {
    node.start(&[&SECOND[..], arguments].concat())
}

/// What `portcullis cleanup` prints, and whether it left nothing.
fn cleanup(arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.arg("cleanup").args(arguments).stderr(Stdio::null()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn the_policy_table_belongs_to_the_daemon_that_enforces_policies() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&["--network-policy"]);
        first.wait_healthy();
        first.wait_until("policies are enforced", nft_succeeds);
        let table = run(POLICIES);
        let holder = format!("portcullis (process {}) already enforces NetworkPolicies", first.pid());

        // One that should enforce policies too does not start, in whatever way it is asked to.
        for arguments in [&["--network-policy"][..], &["--network-policy", "--once"]] {
            let mut second = start_second(&node, arguments);
            assert_eq!(second.ended().code(), Some(2), "{arguments:?}");
            assert!(second.log().contains(&holder), "{arguments:?}: {}", second.log());
        }
        // One that should not leaves the table.
        let mut second = start_second(&node, &[]);
        let log = second.log.clone();
        second.wait_until("it tells of the first", || {
            std::fs::read_to_string(&log).unwrap().contains("the NetworkPolicy table stays")
        });
        assert!(second.log().contains(&holder), "{}", second.log());
        drop(second);
        // Nor does cleanup take it, unless that is forced.
        let (printed, nothing_left) = cleanup(&[]);
        assert!(!nothing_left && printed.contains("left table inet portcullis-policy: "), "{printed}");
        assert!(printed.contains(&holder), "{printed}");
        assert_eq!(run(POLICIES), table, "nobody touched it, as its handles tell");
        let (printed, _) = cleanup(&["--force"]);
        assert!(printed.contains("removed table inet portcullis-policy"), "{printed}");
        first.wait_until("it is written again", nft_succeeds);

        let mut second = start_second(&node, &["--network-policy", "--force"]);
        let log = second.log.clone();
        second.wait_until("it enforces policies, too", || {
            std::fs::read_to_string(&log).unwrap().contains("NetworkPolicies are enforced")
        });
        drop(second);

        // A lock ends with its process, however that came.
        drop(first);
        let mut next = node.start(&["--network-policy"]);
        next.wait_healthy();
        drop(next);
        let mut last = node.start(&[]);
        last.wait_healthy();
        last.wait_until("the table goes with the policies", || !nft_succeeds());
    });
}

fn nft_succeeds() -> bool {
    let mut words = POLICIES.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn two_daemons_that_want_different_rules_slow_down_and_health_says_so() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&[]);
        first.wait_healthy();
        let second = start_second(&node, &["--masquerade-all"]);
        let problem = "rules of Services: restored ";
        first.wait_until("health tells of the second", || {
            get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(problem))
        });
        let answer = get(HEALTH, "/healthz").unwrap();
        assert!(answer.contains(" 503 "), "{answer}");
        assert!(answer.contains(&format!("portcullis (process {})", second.pid())), "{answer}");
        assert!(get(HEALTH, "/livez").unwrap().contains(" 200 "), "a restart stops no other process");
        let metrics = get(METRICS, "/metrics").unwrap();
        assert!(metrics.contains("portcullis_contention{rules=\"services\"} 1"), "{metrics}");

        let mut socket = nf_tables::open().unwrap().unwrap();
        let before = nf_tables::generation(&mut socket).unwrap();
        std::thread::sleep(Duration::from_secs(5));
        let transactions = nf_tables::generation(&mut socket).unwrap() - before;
        assert!(transactions < 100, "{transactions} transactions in 5 s");
        let log = first.log();
        let lines = log.lines().filter(|line| line.contains("another process changed the rules"));
        let lines: Vec<&str> = lines.collect();
        assert!((1..8).contains(&lines.len()), "{log}");
        assert!(lines.iter().any(|line| line.contains(&second.pid().to_string())), "{log}");

        drop(second);
        first.wait_healthy();
        assert!(!get(HEALTH, "/healthz").unwrap().contains(problem));
        let metrics = get(METRICS, "/metrics").unwrap();
        assert!(metrics.contains("portcullis_contention{rules=\"services\"} 0"), "{metrics}");
    });
}
