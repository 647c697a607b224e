//! Tests of the output and the exit codes of `portcullis diff` and `portcullis cleanup`.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::path::Path;
use std::process::{Command, Output};

use portcullis_machines::uml;

/// Runs a program; returns its exit code, its output, and its log.
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
fn node_in_iptables_mode_is_compared_and_cleaned() {
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
fn node_in_nftables_mode_is_compared_and_cleaned() {
    namespace::inside(compare_and_clean_nftables);
}

fn compare_and_clean_nftables() {
    for line in
        ["link set lo up", "link add eth0 type veth peer name peer0", "addr add 192.168.10.11/24 dev eth0"]
    {
        assert_eq!(run("ip", &line.split(' ').collect::<Vec<_>>()).0, Some(0));
    }
    let nftables = |arguments: &[&str]| portcullis(&[arguments, &["--mode=nftables"]].concat());
    let (code, printed, log) = nftables(&["diff"]);
    assert_eq!(code, Some(1), "nothing is there yet: {log}");
    for line in [
        "\n+ip daddr . meta l4proto . th dport @service-ips goto service-ips\n",
        "\n+10.96.0.1 . tcp . 443 . 0x00000000 : 192.168.10.11 . 6443\n",
    ] {
        assert!(printed.contains(line), "{line} is not in\n{printed}");
    }
    assert_eq!(run("nft", &["list", "ruleset"]).1, "", "to compare changes nothing");

    let (code, _, log) = nftables(&["--once", "--network-policy"]);
    assert_eq!(code, Some(0), "{log}");
    let (code, printed, log) = nftables(&["diff"]);
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{log}");

    // Another process deletes a Service, an endpoint and a rule, and adds an element, a chain and a counter.
    for line in [
        "delete element ip portcullis service-ips { 10.96.0.1 . tcp . 443 }",
        "delete element ip portcullis service-1 { 10.96.0.1 . tcp . 443 . 0x0 }",
        "add element ip portcullis service-1 { 10.96.0.1 . tcp . 443 . 0x9 : 10.1.2.3 . 4 }",
        "add element ip portcullis cluster-ips { 10.55.0.5 }",
        "flush chain ip portcullis reject-chain",
        "add chain ip portcullis mine",
        "add quota ip portcullis much over 10 mbytes",
    ] {
        assert_eq!(run("nft", &[line]).0, Some(0), "{line}");
    }
    let (code, printed, log) = nftables(&["diff"]);
    assert_eq!(code, Some(1), "{log}");
    let differing: Vec<&str> =
        printed.lines().filter(|l| !l.starts_with("---") && !l.starts_with(' ')).collect();
    assert_eq!(
        differing,
        [
            "+++ wanted/IPv4/base rules",
            "@@ -0,0 +1 @@ chain reject-chain",
            "+reject",
            "+++ wanted/IPv4/objects of no Service",
            "@@ -0,0 +0,0 @@ chain mine (unexpected)",
            "@@ -1 +0,0 @@ set cluster-ips",
            "-10.55.0.5",
            "@@ -1 +0,0 @@ unknown objects",
            "-object much",
            "+++ wanted/IPv4/default/kubernetes",
            "@@ -1 +1 @@ map service-1",
            "-10.96.0.1 . tcp . 443 . 0x00000009 : 10.1.2.3 . 4",
            "+10.96.0.1 . tcp . 443 . 0x00000000 : 192.168.10.11 . 6443",
            "@@ -0,0 +1 @@ set service-ips",
            "+10.96.0.1 . tcp . 443",
        ],
        "{printed}"
    );
    let (code, printed, _) = nftables(&["diff", "--family", "ipv6"]);
    assert_eq!((code, printed.as_str()), (Some(0), ""));

    let (code, printed, log) = nftables(&["cleanup"]);
    assert_eq!(code, Some(0), "{log}");
    for table in
        ["nf_tables table ip portcullis", "nf_tables table ip6 portcullis", "table inet portcullis-policy"]
    {
        assert!(printed.contains(&format!("removed {table}\n")), "{table}: {printed}");
    }
    assert_eq!(run("nft", &["list", "ruleset"]).1, "");
    let (code, printed, _) = nftables(&["--cleanup"]);
    assert_eq!((code, printed.as_str()), (Some(0), "nothing to remove\n"));
}

#[test]
fn failed_comparison_is_an_error() {
    let missing = run(env!("CARGO_BIN_EXE_portcullis"), &["diff", "--manifests", "/nonexistent"]);
    assert_eq!((missing.0, missing.1.as_str()), (Some(2), ""), "{}", missing.2);
    assert!(missing.2.contains("/nonexistent"), "{}", missing.2);
}

#[test]
fn node_in_ipvs_mode_is_compared_and_cleaned() {
    uml::inside(|| namespace::inside(compare_and_clean_ipvs));
}

fn compare_and_clean_ipvs() {
    for line in
        ["link set lo up", "link add eth0 type veth peer name peer0", "addr add 192.168.10.11/24 dev eth0"]
    {
        assert_eq!(run("ip", &line.split(' ').collect::<Vec<_>>()).0, Some(0));
    }
    let ipvs = |arguments: &[&str]| portcullis(&[arguments, &["--mode=ipvs"]].concat());
    let (code, printed, log) = ipvs(&["diff"]);
    assert_eq!(code, Some(1), "nothing is there yet: {log}");
    assert!(printed.contains("\n+-A -t 10.96.0.1:443 -s rr\n"), "{printed}");
    assert!(printed.contains("\n+add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n"), "{printed}");

    let (code, _, log) = ipvs(&["--once"]);
    assert_eq!(code, Some(0), "{log}");
    let (code, printed, log) = ipvs(&["diff"]);
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{log}");

    // Another process deletes an endpoint, an address and a set entry, and adds a virtual server.
    for line in [
        "ipvsadm -d -t 10.96.0.1:443 -r 192.168.10.11:6443",
        "ip address delete 10.96.0.10/32 dev kube-ipvs0",
        "ipset del KUBE-CLUSTER-IP 10.96.20.4,tcp:80",
        "ipvsadm -A -t 10.55.0.5:80 -s rr",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(run(words[0], &words[1..]).0, Some(0), "{line}");
    }
    let (code, printed, log) = ipvs(&["diff"]);
    assert_eq!(code, Some(1), "{log}");
    let differing: Vec<&str> =
        printed.lines().filter(|l| !l.starts_with("---") && !l.starts_with(' ')).collect();
    assert_eq!(
        differing,
        [
            "+++ wanted/objects of no Service",
            "@@ -1 +0,0 @@ virtual servers",
            "--A -t 10.55.0.5:80 -s rr",
            "+++ wanted/default/kubernetes",
            "@@ -1 +1,2 @@ virtual servers",
            "+-a -t 10.96.0.1:443 -r 192.168.10.11:6443 -m -w 1",
            "+++ wanted/kube-system/kube-dns",
            "@@ -0,0 +1 @@ addresses of kube-ipvs0",
            "+inet 10.96.0.10/32",
            "+++ wanted/shop/broken",
            "@@ -0,0 +1 @@ ipset KUBE-CLUSTER-IP",
            "+add KUBE-CLUSTER-IP 10.96.20.4,tcp:80",
        ],
        "{printed}"
    );

    let (code, printed, log) = ipvs(&["cleanup"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(printed.contains("removed link kube-ipvs0\n"), "{printed}");
    assert_eq!(
        run("ipvsadm", &["-Sn"]).1,
        "-A -t 10.55.0.5:80 -s rr\n",
        "virtual servers of other programs are kept"
    );
    assert_eq!(run("ipset", &["list", "-n"]).1, "");
    assert!(!run("iptables-save", &[]).1.contains("KUBE-"));
}
