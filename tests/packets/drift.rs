//! Somebody else tampers with the rules: they are put right within the sync period, and counted.

use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE, Setup};
use crate::expectation::spread;
use crate::row::{client, cluster_ip, node_port, outside, row};
use crate::tools::Flavour;

const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

#[test]
fn drift_is_repaired_by_the_nft_tool() {
    drift_is_repaired(Flavour::Nft);
}

#[test]
fn drift_is_repaired_by_the_legacy_tool() {
    drift_is_repaired(Flavour::Legacy);
}

fn drift_is_repaired(flavour: Flavour) {
    let bed = Setup::of("web.yaml").args(&["--iptables-sync-period=2s"]).flavour(flavour).up();
    let service = chain_of(&bed, "-A KUBE-SERVICES ", "default/web:http cluster IP");
    let endpoint = chain_of(&bed, &format!("-A {service} "), "default/web:http ->");
    #[rustfmt::skip]
    let tampering: Vec<(&str, Vec<Vec<&str>>)> = vec![
        ("KUBE-SERVICES is flushed", vec![vec!["-t", "nat", "-F", "KUBE-SERVICES"]]),
        ("the jump from PREROUTING is deleted", vec![vec!["-t", "nat", "-D", "PREROUTING", "-m", "comment", "--comment", "kubernetes service portals", "-j", "KUBE-SERVICES"]]),
        ("the jump from POSTROUTING is deleted", vec![vec!["-t", "nat", "-D", "POSTROUTING", "-m", "comment", "--comment", "kubernetes postrouting rules", "-j", "KUBE-POSTROUTING"]]),
        ("a Service's chain is flushed", vec![vec!["-t", "nat", "-F", &service]]),
        ("an endpoint's chain is deleted", vec![vec!["-t", "nat", "-F", &service], vec!["-t", "nat", "-F", &endpoint], vec!["-t", "nat", "-X", &endpoint]]),
        ("one rule of an endpoint is deleted", vec![vec!["-t", "nat", "-D", &endpoint, "2"]]),
        ("the whole table nat is flushed", vec![vec!["-t", "nat", "-F"]]),
        ("the whole table nat is deleted", vec![vec!["-t", "nat", "-F"], vec!["-t", "nat", "-X"]]),
        ("KUBE-FORWARD is flushed", vec![vec!["-t", "filter", "-F", "KUBE-FORWARD"]]),
        ("the table filter is flushed", vec![vec!["-t", "filter", "-F"]]),
    ];
    for (what, commands) in tampering {
        let before = rules(&bed);
        let repairs = bed.metric("node-1", "portcullis_drift_repairs_total", "IPv4");
        for command in &commands {
            bed.iptables("node-1", command);
        }
        assert!(repaired(&bed, repairs) || rules(&bed) != before, "{what}: the rules were changed");
        let since = Instant::now();
        bed.wait_until(what, PATIENCE, |bed| repaired(bed, repairs) && rules(bed) == before);
        let took = since.elapsed();
        println!("{what}: repaired after {took:?}");
        // The sync period, and as much again for a busy machine.
        assert!(took < Duration::from_secs(5), "{what}: repaired after {took:?}");
    }
    #[rustfmt::skip]
    bed.check(&[
        row("cluster IP after repairs", client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("node port after repairs", outside(), node_port(1, "web", 80), spread(&["a", "b", "c"]).masqueraded_by(1)),
    ]);
    // The other node was left alone, and so it had nothing to repair.
    assert_eq!(bed.metric("node-2", "portcullis_drift_repairs_total", ""), 0.0);
}

fn repaired(bed: &Bed, repairs: f64) -> bool {
    bed.metric("node-1", "portcullis_drift_repairs_total", "IPv4") > repairs
}

/// The IPv4 rules of node-1 in the order of the tool, chains sorted: where a chain stands in the listing says nothing.
fn rules(bed: &Bed) -> Vec<String> {
    let of_table = |table| {
        let text = bed.rules("node-1", "iptables", table);
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        // A chain's line ends in its counters.
        let mut lines: Vec<String> =
            lines.map(|l| format!("{table} {}", l.split(" [").next().unwrap())).collect();
        lines.sort_by_key(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "));
        lines
    };
    TABLES.into_iter().flat_map(of_table).collect()
}

/// The target of the first rule that begins and contains so.
fn chain_of(bed: &Bed, begin: &str, contains: &str) -> String {
    let rules = bed.rules("node-1", "iptables", "nat");
    let mut fitting = rules.lines().filter(|line| line.starts_with(begin) && line.contains(contains));
    let target = fitting.next().and_then(|line| line.rsplit("-j ").next());
    target.unwrap_or_else(|| panic!("no {begin}…{contains} in\n{rules}")).to_owned()
}
