//! `portcullis diff` and `portcullis cleanup` as an operator runs them: what they print, and their exit codes.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::path::Path;
use std::process::{Command, Output};

/// Runs a program to its end; its exit code, what it printed, and what it logged.
fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("programs print UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// Runs portcullis on a recorded state.
fn portcullis(arguments: &[&str]) -> (Option<i32>, String, String) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/services/mixed");
    let (config, state) = (case.join("config.yaml"), case.join("state-1.yaml"));
    let source = ["--config", config.to_str().expect("UTF-8"), "--manifests", state.to_str().expect("UTF-8")];
    run(env!("CARGO_BIN_EXE_portcullis"), &[arguments, &source].concat())
}

#[test]
fn a_node_is_compared_and_cleaned() {
    namespace::inside(|| {
        assert_eq!(run("ip", &["link", "set", "lo", "up"]).0, Some(0));
        let before = run("nft", &["list", "ruleset"]).1;

        let (code, printed, log) = portcullis(&["diff"]);
        assert_eq!(code, Some(1), "nothing is there yet: {log}");
        assert!(printed.contains("+-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n"), "{printed}");
        assert_eq!(run("nft", &["list", "ruleset"]).1, before, "to compare changes nothing");

        let (code, _, log) = portcullis(&["--once"]);
        assert_eq!(code, Some(0), "{log}");
        let (code, printed, log) = portcullis(&["diff"]);
        assert_eq!((code, printed.as_str()), (Some(0), ""), "{log}");

        let rules = run("iptables", &["-t", "nat", "-S", "KUBE-SERVICES"]).1;
        let rule = rules.lines().nth(1).expect("a rule of a Service");
        let service = rule.split(['"', ' ', ':']).find(|word| word.contains('/') && !word.ends_with("/32"));
        let service = service.expect("its comment names the Service");
        assert_eq!(run("iptables", &["-t", "nat", "-D", "KUBE-SERVICES", "1"]).0, Some(0));
        let (code, printed, log) = portcullis(&["diff"]);
        assert_eq!(code, Some(1), "{log}");
        let heads: Vec<&str> = printed.lines().filter(|line| line.starts_with("+++ ")).collect();
        assert_eq!(heads, [format!("+++ wanted/IPv4/{service}")], "{printed}");
        assert!(printed.contains(&format!("\n+{rule}\n")), "{printed}");
        let (code, printed, _) = portcullis(&["diff", "--family", "ipv6"]);
        assert_eq!((code, printed.as_str()), (Some(0), ""));

        let (code, printed, log) = portcullis(&["cleanup"]);
        assert_eq!(code, Some(0), "{log}");
        assert!(printed.contains("removed iptables (nft), table nat: 3 jumps, "), "{printed}");
        assert!(!run("iptables-save", &[]).1.contains("KUBE-"));
        let (code, printed, _) = portcullis(&["--cleanup"]);
        assert_eq!((code, printed.as_str()), (Some(0), "nothing to remove\n"));

        for change in
            [["-N", "KUBE-SERVICES"].as_slice(), &["-N", "MINE"], &["-A", "MINE", "-j", "KUBE-SERVICES"]]
        {
            assert_eq!(run("iptables", change).0, Some(0));
        }
        let (code, printed, _) = portcullis(&["cleanup"]);
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("left iptables (nft), table filter: chain KUBE-SERVICES: "), "{printed}");
    });
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let missing = run(env!("CARGO_BIN_EXE_portcullis"), &["diff", "--manifests", "/nonexistent"]);
    assert_eq!((missing.0, missing.1.as_str()), (Some(2), ""), "{}", missing.2);
    assert!(missing.2.contains("/nonexistent"), "{}", missing.2);
}
