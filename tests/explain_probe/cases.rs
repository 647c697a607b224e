//! Probes whose packets are delivered, dropped or lost, compared with `fixtures/explain-probe`.
//!
//! `BLESS=1` regenerates the files. Ports of clients and names of labs differ between runs and are replaced.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_lab::Families;

use crate::testbed::{Run, Testbed};

/// A probe.
struct Case {
    /// The file of the expected output.
    name: &'static str,
    /// The node that runs it, and its arguments.
    run: (&'static str, &'static str),
    /// The exit status: 0 if the probe agrees with the prediction, 1 if not, 2 if it does not show it.
    status: i32,
    /// A part of the output.
    says: &'static str,
    /// Changes before the probe: a node or a pod, and the command line.
    before: &'static [(&'static str, &'static str)],
    /// Changes after it.
    after: &'static [(&'static str, &'static str)],
}

const SAME_NODE: &str = "--from shop/api --to service/shop/db:5432 --family ipv4";
const OTHER_NODE: &str = "--from shop/web --to pod/shop/api:8000 --family ipv4";

const CORP: [(&str, &str); 2] = [
    ("node-2", "nft add table inet corp"),
    ("node-2", "nft add chain inet corp egress-filter { type filter hook forward priority 10 ; }"),
];
const WITHOUT_CORP: &[(&str, &str)] = &[("node-2", "nft delete table inet corp")];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "delivered-by-a-service", run: ("node-2", SAME_NODE), status: 0, says: "DELIVERED: 10.244.2.3:5432 accepted",
        before: &[], after: &[] },
    Case { name: "delivered-to-another-node", run: ("node-1", OTHER_NODE), status: 0, says: "DELIVERED: 10.244.2.2:8000 accepted",
        before: &[], after: &[] },
    Case { name: "delivered-by-ipv6", run: ("node-2", "--from shop/api --to pod/shop/db:5432 --family ipv6"), status: 0,
        says: "DELIVERED: [fd00:10:244:2::3]:5432 accepted", before: &[], after: &[] },
    Case { name: "delivered-by-udp", run: ("node-1", "--from infra/monitor --to service/infra/names:53/udp --family ipv4"), status: 0,
        says: "DELIVERED: 10.244.1.3:53 replied", before: &[], after: &[] },
    Case { name: "delivered-from-a-node", run: ("node-2", "--from node/node-2 --to service/infra/names:53/tcp --family ipv4"), status: 0,
        says: "DELIVERED: 10.244.1.3:53 accepted", before: &[], after: &[] },
    Case { name: "dropped-by-policies-of-the-client", run: ("node-1", "--from shop/web --to pod/shop/db:5432 --family ipv4"), status: 0,
        says: "DROPPED: by table inet portcullis-policy", before: &[], after: &[] },
    Case { name: "dropped-by-policies-of-another-node", run: ("node-1", "--from infra/monitor --to pod/shop/db:5432 --family ipv4 --probe-timeout 0.5"),
        status: 0, says: "NO REPLY: it left by eth0 for 10.244.2.3:5432", before: &[], after: &[] },
    Case { name: "no-process-listens", run: ("node-1", "--from infra/monitor --to pod/infra/names:9999 --family ipv4"), status: 0,
        says: "REFUSED BY THE DESTINATION: 10.244.1.3:9999", before: &[], after: &[] },
    Case { name: "dropped-by-another-firewall", run: ("node-2", SAME_NODE), status: 1, says: "DROPPED: by table inet corp, chain egress-filter: tcp dport 5432 counter drop",
        before: &[CORP[0], CORP[1], ("node-2", "nft add rule inet corp egress-filter tcp dport 5432 counter drop")], after: WITHOUT_CORP },
    Case { name: "dropped-by-a-policy-of-a-chain", run: ("node-2", SAME_NODE), status: 1, says: "DROPPED: by table inet corp, chain egress-filter: policy drop",
        before: &[CORP[0], ("node-2", "nft add chain inet corp egress-filter { type filter hook forward priority 10 ; policy drop ; }")], after: WITHOUT_CORP },
    Case { name: "rejected-by-another-firewall", run: ("node-2", SAME_NODE), status: 1, says: "REJECTED: by table inet corp, chain egress-filter: tcp dport 5432 reject with tcp reset",
        before: &[CORP[0], CORP[1], ("node-2", "nft add rule inet corp egress-filter tcp dport 5432 reject with tcp reset")], after: WITHOUT_CORP },
    Case { name: "reply-dropped-by-another-firewall", run: ("node-2", "--from shop/api --to service/shop/db:5432 --family ipv4 --probe-timeout 0.5"), status: 1,
        says: "REPLY DROPPED: 10.244.2.3:5432 replied, and the reply was dropped by table inet corp, chain egress-filter: tcp sport 5432 drop",
        before: &[CORP[0], CORP[1], ("node-2", "nft add rule inet corp egress-filter tcp sport 5432 drop")], after: WITHOUT_CORP },
    Case { name: "dropped-in-the-pod", run: ("node-2", SAME_NODE), status: 1, says: "DROPPED: by table ip mesh, chain out: tcp dport 5432 drop in the pod's network namespace",
        before: &[("shop/api", "nft add table ip mesh"), ("shop/api", "nft add chain ip mesh out { type filter hook output priority 0 ; }"),
            ("shop/api", "nft add rule ip mesh out tcp dport 5432 drop")],
        after: &[("shop/api", "nft delete table ip mesh")] },
    Case { name: "redirected-in-the-pod", run: ("node-2", SAME_NODE), status: 2, says: "ANSWERED IN THE POD",
        before: &[("shop/api", "nft add table ip mesh"), ("shop/api", "nft add chain ip mesh out { type nat hook output priority -100 ; }"),
            ("shop/api", "nft add rule ip mesh out tcp dport 5432 redirect to :8000")],
        after: &[("shop/api", "nft delete table ip mesh")] },
    Case { name: "dropped-by-iptables-legacy", run: ("node-2", "--from shop/api --to service/shop/db:5432 --family ipv4 --probe-timeout 0.5"), status: 1,
        says: "DROPPED: by the iptables legacy table filter, chain FORWARD",
        before: &[("node-2", "iptables-legacy -w -A FORWARD -p tcp --dport 5432 -j DROP")],
        after: &[("node-2", "iptables-legacy -w -F FORWARD")] },
    Case { name: "dropped-by-iptables-nft", run: ("node-2", SAME_NODE), status: 1, says: "DROPPED: by table ip filter, chain FORWARD",
        before: &[("node-2", "iptables-nft -A FORWARD -p tcp --dport 5432 -m comment --comment corp -j DROP")],
        after: &[("node-2", "nft delete table ip filter")] },
    Case { name: "no-route", run: ("node-1", OTHER_NODE), status: 1, says: "LOST: this node has no route to 10.244.2.2",
        before: &[("node-1", "ip route del 10.244.2.0/24"), ("node-1", "ip route del default")],
        after: &[("node-1", "ip route add default via 192.168.77.2"), ("node-1", "ip route add 10.244.2.0/24 via 192.168.77.12")] },
    Case { name: "no-route-by-ipv6", run: ("node-1", "--from shop/web --to pod/shop/api:8000 --family ipv6"), status: 1,
        says: "LOST: this node has no route to fd00:10:244:2::2",
        before: &[("node-1", "ip -6 route del fd00:10:244:2::/64"), ("node-1", "ip -6 route del default")],
        after: &[("node-1", "ip -6 route add default via fd00:77::2"), ("node-1", "ip -6 route add fd00:10:244:2::/64 via fd00:77::12")] },
    Case { name: "unreachable-route", run: ("node-1", OTHER_NODE), status: 1, says: "LOST: this node's route to 10.244.2.2 is of type unreachable",
        before: &[("node-1", "ip route add unreachable 10.244.2.2/32")], after: &[("node-1", "ip route del unreachable 10.244.2.2/32")] },
    Case { name: "reverse-path-filter", run: ("node-1", "--from shop/web --to pod/shop/api:8000 --family ipv4 --probe-timeout 0.5"), status: 1,
        says: "LOST: reverse path filtering on cni0 drops packets from 10.244.1.4: its way back is by eth0",
        before: &[("node-1", "sysctl -qw net.ipv4.conf.cni0.rp_filter=1"), ("node-1", "ip route add 10.244.1.4/32 via 192.168.77.2")],
        after: &[("node-1", "ip route del 10.244.1.4/32"), ("node-1", "sysctl -qw net.ipv4.conf.cni0.rp_filter=0")] },
    Case { name: "forwarding-off", run: ("node-1", OTHER_NODE), status: 1, says: "LOST: this node does not forward packets (net.ipv4.conf.cni0.forwarding is 0)",
        before: &[("node-1", "sysctl -qw net.ipv4.conf.cni0.forwarding=0")], after: &[("node-1", "sysctl -qw net.ipv4.conf.cni0.forwarding=1")] },
    Case { name: "pod-without-a-route", run: ("node-2", SAME_NODE), status: 1, says: "NOT SENT: the pod's network namespace has no route to 10.96.0.10",
        before: &[("shop/api", "ip route del default")], after: &[("shop/api", "ip route add default via 10.244.2.1")] },
];

/// Cases after the daemon of node-1 has stopped, so that it does not restore its rules.
#[rustfmt::skip]
const TAMPERED: &[Case] = &[
    Case { name: "policies-removed-by-another-process", run: ("node-1", "--from infra/monitor --to pod/shop/web:8080 --family ipv4"), status: 1,
        says: "DISAGREES with the prediction: predicted: ingress denied",
        before: &[("node-1", "nft flush chain inet portcullis-policy postrouting"), ("node-1", "nft flush chain inet portcullis-policy ingress")], after: &[] },
    Case { name: "service-removed-by-another-process", run: ("node-1", "--from infra/monitor --to service/infra/names:53/tcp --family ipv4 --probe-timeout 0.5"), status: 1,
        says: "DISAGREES with the prediction: predicted: allowed to 10.244.1.3:53",
        before: &[("node-1", "nft flush chain ip portcullis nat-prerouting")], after: &[] },
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain-probe")
}

/// Replaces what differs between runs: the client's port, names of labs, and numbers of counters.
fn normalized(run: &Run) -> String {
    let mut text = format!("{}{}exit status {}\n", run.text, run.errors, run.status);
    let source =
        text.lines().find(|line| line.starts_with("  probe ")).and_then(|line| line.split(", sent").next());
    if let Some(port) = source.and_then(|line| line.rsplit(':').next()).map(str::to_owned) {
        text = text.replace(&format!(":{port}"), ":PORT");
    }
    // A masqueraded connection has a random port.
    let masqueraded = text
        .lines()
        .find(|line| line.contains("of the reply") && line.ends_with(|c: char| c.is_ascii_digit()));
    let masqueraded = masqueraded.and_then(|line| line.rsplit(':').next()).filter(|port| port.len() > 3);
    if let Some(port) = masqueraded.map(str::to_owned) {
        text = text.replace(&format!(":{port}\n"), ":PORT\n");
    }
    while let Some(at) = text.find("/pcl-") {
        let end = text[at + 5..].find('-').unwrap() + at + 5;
        text.replace_range(at..end, "/LAB");
    }
    text
}

/// Returns the part of an output about the probe.
fn probe_of(printed: &str) -> &str {
    &printed[printed.find("  probe ").unwrap()..printed.find("exit status").unwrap()]
}

#[test]
fn documentation_has_the_output_of_probes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(folder.join("docs/explain.md")).unwrap();
    for case in ["dropped-by-another-firewall", "reverse-path-filter"] {
        let printed = fs::read_to_string(fixtures().join(case)).unwrap();
        assert!(page.contains(probe_of(&printed)), "docs/explain.md must have:\n{}", probe_of(&printed));
    }
}

fn check(testbed: &Testbed, cases: &[Case], prefix: &str) {
    let mut wrong = String::new();
    for case in cases {
        case.before.iter().for_each(|(place, line)| _ = testbed.run(place, line));
        let run = testbed.explain(case.run.0, case.run.1);
        case.after.iter().for_each(|(place, line)| _ = testbed.run(place, line));
        let printed = normalized(&run);
        let file = fixtures().join(format!("{prefix}{}", case.name));
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(fixtures()).unwrap();
            fs::write(&file, &printed).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if printed != expected || run.status != case.status || !printed.contains(case.says) {
            writeln!(
                wrong,
                "== {}: expected status {} and {:?}\n-- expected\n{expected}-- printed\n{printed}",
                case.name, case.status, case.says
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn probes_show_where_packets_end() {
    let mut testbed = Testbed::up("nftables", Families::Dual);
    check(&testbed, CASES, "");
    testbed.lab.stop_daemon("node-1").unwrap();
    check(&testbed, TAMPERED, "");
}

#[test]
fn rules_of_iptables_mode_are_shown() {
    #[rustfmt::skip]
    let cases = [
        Case { name: "delivered-by-a-service", run: ("node-2", SAME_NODE), status: 0, says: "DELIVERED: 10.244.2.3:5432 accepted",
            before: &[], after: &[] },
        Case { name: "dropped-by-another-firewall", run: ("node-2", SAME_NODE), status: 1, says: "DROPPED: by table inet corp, chain egress-filter: tcp dport 5432 counter drop",
            before: &[CORP[0], CORP[1], ("node-2", "nft add rule inet corp egress-filter tcp dport 5432 counter drop")], after: WITHOUT_CORP },
    ];
    let testbed = Testbed::up("iptables", Families::V4);
    check(&testbed, &cases, "iptables-mode-");
}
