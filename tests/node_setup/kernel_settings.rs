//! Tests of the conntrack sysctls and `oom_score_adj`.

use std::fs;

use crate::daemon::{Node, program};
use crate::namespace;

/// Returns the value of a conntrack sysctl in the namespace of this thread.
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
fn init_only_sets_conntrack_sysctls_and_nothing_else() {
    namespace::inside(|| {
        let node = Node::new();
        let before = settings();
        let output =
            node.program(&ARGUMENTS).args(["--init-only", "--conntrack-max-per-core=1"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let expected = ["7200", before[1].as_str(), "45", "90", "1"];
        assert_eq!(settings(), expected, "0 keeps the value: {stderr}");
        assert_eq!(namespace::run("nft list ruleset"), "");
    });
}

/// Only the initial namespace may set the limit; the daemon serves anyway.
#[test]
fn a_limit_that_cannot_be_raised_is_logged() {
    namespace::inside(|| {
        let node = Node::new();
        let mut daemon = node.start(&["--conntrack-min=2000000000", "--conntrack-max-per-core=1"]);
        daemon.wait_healthy();
        let log = daemon.log();
        assert!(log.contains("nf_conntrack_max to 2000000000"), "{log}");
    });
}

#[test]
fn oom_score_adj_is_set() {
    namespace::inside(|| {
        let node = Node::new();
        let mut daemon = node.start(&["--oom-score-adj=321"]);
        daemon.wait_healthy();
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.pid())).unwrap();
        assert_eq!(score.trim(), "321");
    });
}

/// Returns the kernel state that a start may change before its first sync.
fn kernel_state() -> (Vec<String>, String) {
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
        // Arguments, and a text in the error.
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
                let before = kernel_state();
                let mut command = program();
                command.args(ARGUMENTS).args(["--network-policy", "--mode", mode]).args(arguments);
                let output = command.output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{mode} {arguments:?}: {stderr}");
                assert!(stderr.contains(named), "{mode} {arguments:?}: {stderr}");
                assert_eq!(kernel_state(), before, "{mode} {arguments:?}: {stderr}");
            }
        }
    });
}
