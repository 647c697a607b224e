//! Connection tracking and the score for when memory runs out.

use std::fs;

use crate::daemon::{Node, program};
use crate::namespace;

/// What a setting of connection tracking is in the namespace of this thread.
fn setting(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/thread-self/root/proc/sys/net/netfilter/{name}")).unwrap();
    text.trim().to_owned()
}

const ARGUMENTS: [&str; 5] = [
    "--conntrack-tcp-timeout-established=2h",
    "--conntrack-tcp-timeout-close-wait=0s",
    "--conntrack-udp-timeout=45s",
    "--conntrack-udp-timeout-stream=90s",
    "--conntrack-tcp-be-liberal",
];

fn settings() -> [String; 5] {
    [
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_close_wait",
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
        "nf_conntrack_tcp_be_liberal",
    ]
    .map(setting)
}

#[test]
fn connection_tracking_is_set_by_init_only_and_nothing_else_is_done() {
    namespace::inside(|| {
        let node = Node::new();
        let before = settings();
        let output =
            node.program(&ARGUMENTS).args(["--init-only", "--conntrack-max-per-core=1"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let expected = ["7200", before[1].as_str(), "45", "90", "1"];
        assert_eq!(settings(), expected, "what is 0 stays as it was: {said}");
        assert_eq!(namespace::run("nft list ruleset"), "");
    });
}

/// More than any machine has, which only the first namespace may set: the daemon serves all the same.
#[test]
fn a_limit_that_cannot_be_raised_is_told() {
    namespace::inside(|| {
        let node = Node::new();
        let mut daemon = node.start(&["--conntrack-min=2000000000", "--conntrack-max-per-core=1"]);
        daemon.wait_healthy();
        let log = daemon.log();
        assert!(log.contains("nf_conntrack_max cannot be set to 2000000000"), "{log}");
    });
}

#[test]
fn the_score_for_when_memory_runs_out_is_set() {
    namespace::inside(|| {
        let node = Node::new();
        let mut daemon = node.start(&["--oom-score-adj=321"]);
        daemon.wait_healthy();
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.pid())).unwrap();
        assert_eq!(score.trim(), "321");
    });
}

/// What a start writes to the kernel before its first sync, as far as the namespace shows it.
fn written() -> (Vec<String>, String) {
    let bridged = fs::read_to_string("/proc/thread-self/root/proc/sys/net/bridge/bridge-nf-call-iptables");
    let counters = namespace::run("nft list ruleset") + &namespace::run("ip link");
    (settings().into_iter().chain(bridged.ok()).collect(), counters)
}

#[test]
fn a_daemon_that_cannot_start_changes_nothing() {
    namespace::inside(|| {
        let node = Node::new();
        let kubeconfig = node.folder.path().join("no-such-file");
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let broken = node.folder.path().join("kubeconfig");
        fs::write(&broken, "apiVersion: v1\nkind: Config\n").unwrap();
        let broken = format!("--kubeconfig={}", broken.display());
        let manifests = format!("--manifests={}", node.folder.path().join("manifests").display());
        let _taken = std::net::TcpListener::bind("127.0.0.1:10256").unwrap();
        // The arguments, and what the message names.
        let rows: [(&[&str], &str); 5] = [
            (&[], "neither --kubeconfig nor --master"),
            (&[&kubeconfig], "no-such-file"),
            (&[&broken], "kubeconfig"),
            (&["--master=ftp://10.0.0.1"], "--master"),
            (
                &[&manifests, "--bind-address-hard-fail", "--healthz-bind-address=127.0.0.1:10256"],
                "127.0.0.1:10256",
            ),
        ];
        for mode in ["iptables", "nftables"] {
            for (arguments, named) in rows {
                let before = written();
                let mut command = program();
                command.args(ARGUMENTS).args(["--network-policy", "--mode", mode]).args(arguments);
                let output = command.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{mode} {arguments:?}: {said}");
                assert!(said.contains(named), "{mode} {arguments:?}: {said}");
                assert_eq!(written(), before, "{mode} {arguments:?}: {said}");
            }
        }
    });
}
