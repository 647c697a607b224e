//! Tests of two daemons in one network namespace: the lock on the NetworkPolicy table, and contention for a table.

use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_netlink::nf_tables;

use crate::daemon::{Daemon, HEALTH, METRICS, Node};
use crate::http::get;
use crate::namespace::{self, run};

const POLICIES: &str = "nft -a list chain inet portcullis-policy postrouting";

/// Flags of the second daemon: the first one has the ports.
const SECOND: [&str; 2] = ["--healthz-bind-address=", "--metrics-bind-address="];

fn start_second(node: &Node, arguments: &[&str]) -> Daemon {
    node.start(&[&SECOND[..], arguments].concat())
}

/// Returns the output of `portcullis cleanup`, and whether it succeeded.
fn cleanup(arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.arg("cleanup").args(arguments).stderr(Stdio::null()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn the_policy_table_is_owned_by_the_daemon_that_enforces_policies() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&["--network-policy"]);
        first.wait_healthy();
        first.wait_until("policies are enforced", nft_succeeds);
        let table = run(POLICIES);
        let holder = format!("portcullis (process {}) already enforces NetworkPolicies", first.pid());

        // A second daemon with policies does not start.
        for arguments in [&["--network-policy"][..], &["--network-policy", "--once"]] {
            let mut second = start_second(&node, arguments);
            assert_eq!(second.wait_for_exit().code(), Some(2), "{arguments:?}");
            assert!(second.log().contains(&holder), "{arguments:?}: {}", second.log());
        }
        // A second daemon without policies leaves the table.
        let mut second = start_second(&node, &[]);
        let log = second.log.clone();
        second.wait_until("the log names the first daemon", || {
            std::fs::read_to_string(&log)
                .unwrap()
                .contains("keeping the NetworkPolicy table of another process")
        });
        assert!(second.log().contains(&holder), "{}", second.log());
        drop(second);
        // Cleanup leaves the table, too, unless it is forced.
        let (printed, nothing_left) = cleanup(&[]);
        assert!(!nothing_left && printed.contains("left table inet portcullis-policy: "), "{printed}");
        assert!(printed.contains(&holder), "{printed}");
        assert_eq!(run(POLICIES), table, "the table is unchanged, including its handles");
        let (printed, _) = cleanup(&["--force"]);
        assert!(printed.contains("removed table inet portcullis-policy"), "{printed}");
        first.wait_until("it is written again", nft_succeeds);

        let mut second = start_second(&node, &["--network-policy", "--force"]);
        let log = second.log.clone();
        second.wait_until("it enforces policies, too", || {
            std::fs::read_to_string(&log).unwrap().contains("NetworkPolicies are enforced")
        });
        drop(second);

        // The lock ends with its process.
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
fn contention_of_two_daemons_slows_repairs_and_fails_health() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&[]);
        first.wait_healthy();
        let second = start_second(&node, &["--masquerade-all"]);
        let problem = "rules of Services: restored ";
        first.wait_until("health reports the second daemon", || {
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
