//! Drift of iptables rules: changes by another process are reverted and counted, with the nft tool within a second,
//! with the legacy tool within the sync period.

use std::time::{Duration, Instant};

use crate::expectation::spread;
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node_port, outside, row};
use crate::testbed::{PATIENCE, Setup, Testbed};
use crate::tools::Flavour;
use crate::{drift_of_ipvs, drift_of_nftables};

const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// Description of a change, and arguments of iptables for it.
type Change = (&'static str, Vec<Vec<&'static str>>);

#[rustfmt::skip]
fn changes() -> Vec<Change> {
    vec![
        ("KUBE-SERVICES is flushed", vec![vec!["-t", "nat", "-F", "KUBE-SERVICES"]]),
        ("the jump from PREROUTING is deleted", vec![vec!["-t", "nat", "-D", "PREROUTING", "-m", "comment", "--comment", "kubernetes service portals", "-j", "KUBE-SERVICES"]]),
        ("the jump from POSTROUTING is deleted", vec![vec!["-t", "nat", "-D", "POSTROUTING", "-m", "comment", "--comment", "kubernetes postrouting rules", "-j", "KUBE-POSTROUTING"]]),
        ("a Service's chain is flushed", vec![vec!["-t", "nat", "-F", SERVICE]]),
        ("an endpoint's chain is deleted", vec![vec!["-t", "nat", "-F", SERVICE], vec!["-t", "nat", "-F", ENDPOINT], vec!["-t", "nat", "-X", ENDPOINT]]),
        ("one rule of an endpoint is deleted", vec![vec!["-t", "nat", "-D", ENDPOINT, "2"]]),
        ("the whole table nat is flushed", vec![vec!["-t", "nat", "-F"]]),
        ("the whole table nat is deleted", vec![vec!["-t", "nat", "-F"], vec!["-t", "nat", "-X"]]),
        ("KUBE-FORWARD is flushed", vec![vec!["-t", "filter", "-F", "KUBE-FORWARD"]]),
        ("the table filter is flushed", vec![vec!["-t", "filter", "-F"]]),
        ("all tables are flushed and their chains deleted, as firewalld does", TABLES.iter().flat_map(|table| [vec!["-t", table, "-F"], vec!["-t", table, "-X"]]).collect()),
    ]
}

/// Placeholders for the chains of the Service `web` and of one of its endpoints.
const SERVICE: &str = "KUBE-SVC-…";
const ENDPOINT: &str = "KUBE-SEP-…";

pub(crate) fn drift_is_reverted(mode: Mode) {
    match mode {
        Mode::Iptables(flavour) => drift_of_iptables_is_reverted(flavour),
        Mode::Ipvs => drift_of_ipvs::is_reverted(),
        Mode::Nftables => drift_of_nftables::is_reverted(),
    }
}

fn drift_of_iptables_is_reverted(flavour: Flavour) {
    // The kernel sends no notifications about legacy tables. With the nft tool, the sync period is the default.
    let args: &[&str] = if flavour == Flavour::Legacy { &["--iptables-sync-period=2s"] } else { &[] };
    let testbed = Setup::new("web.yaml").args(args).flavour(flavour).up();
    // Long enough for a comparison of unchanged rules.
    std::thread::sleep(Duration::from_millis(2500));
    // One second or one sync period, plus time for a busy machine.
    let limit = Duration::from_secs(if flavour == Flavour::Legacy { 6 } else { 3 });
    check_drift(&testbed, &changes(), |testbed, node, row| assert_reverted(testbed, node, row, limit));
}

/// Changes the rules of both nodes, each with half of the rows, and then checks that the Services are served.
pub(crate) fn check_drift<T: Sync>(
    testbed: &Testbed,
    rows: &[T],
    assert_reverted: impl Fn(&Testbed, &str, &T) + Sync,
) {
    let (first, second) = rows.split_at(rows.len() / 2);
    std::thread::scope(|scope| {
        for (node, rows) in [("node-1", first), ("node-2", second)] {
            let assert_reverted = &assert_reverted;
            scope.spawn(move || {
                assert_eq!(testbed.metric(node, REPAIRS, ""), 0.0, "{node}: no repairs yet");
                rows.iter().for_each(|row| assert_reverted(testbed, node, row));
            });
        }
    });
    #[rustfmt::skip]
    testbed.check(&[
        row("cluster IP after drift", client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("cluster IP after drift on node-2", client(2), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("node port after drift", outside(), node_port(1, "web", 80), spread(&["a", "b", "c"]).masqueraded_by(1)),
        row("node port after drift on node-2", outside(), node_port(2, "web", 80), spread(&["a", "b", "c"]).masqueraded_by(2)),
    ]);
}

pub(crate) const REPAIRS: &str = "portcullis_drift_repairs_total";

/// Applies a change, and waits until it is reverted and counted.
fn assert_reverted(testbed: &Testbed, node: &str, (what, commands): &Change, limit: Duration) {
    let service = chain_of(testbed, node, "-A KUBE-SERVICES ", "default/web:http cluster IP");
    let endpoint = chain_of(testbed, node, &format!("-A {service} "), "default/web:http ->");
    let before = rules(testbed, node);
    let repairs = testbed.metric(node, REPAIRS, "IPv4");
    let counted = |testbed: &Testbed| testbed.metric(node, REPAIRS, "IPv4") > repairs;
    // Atomic per table, so that the daemon cannot restore rules between two commands.
    testbed.iptables_restore(node, &restore_of(commands, &service, &endpoint));
    let since = Instant::now();
    testbed.wait_until(what, PATIENCE, |testbed| counted(testbed) && rules(testbed, node) == before);
    let took = since.elapsed();
    println!("{what}: reverted after {took:?}");
    assert!(took < limit, "{what}: reverted after {took:?}");
}

/// Returns the input of iptables-restore for the commands, one transaction per table.
fn restore_of(commands: &[Vec<&str>], service: &str, endpoint: &str) -> String {
    let mut restore = String::new();
    for commands in commands.chunk_by(|one, next| one[..2] == next[..2]) {
        restore += &format!("*{}\n", commands[0][1]);
        for command in commands {
            let words = command[2..].iter().map(|word| match *word {
                SERVICE => service.to_owned(),
                ENDPOINT => endpoint.to_owned(),
                word if word.contains(' ') => format!("\"{word}\""),
                word => word.to_owned(),
            });
            restore += &format!("{}\n", words.collect::<Vec<_>>().join(" "));
        }
        restore += "COMMIT\n";
    }
    restore
}

/// Returns the IPv4 rules of a node in the order of the tool, with sorted chains: the order of chains has no meaning.
fn rules(testbed: &Testbed, node: &str) -> Vec<String> {
    let of_table = move |table| {
        let text = testbed.rules(node, "iptables", table);
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        // A chain's line ends with its counters.
        let mut lines: Vec<String> =
            lines.map(|l| format!("{table} {}", l.split(" [").next().unwrap())).collect();
        lines.sort_by_key(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "));
        lines
    };
    TABLES.into_iter().flat_map(of_table).collect()
}

/// Returns the target of the first rule with this beginning and content.
fn chain_of(testbed: &Testbed, node: &str, begin: &str, contains: &str) -> String {
    let rules = testbed.rules(node, "iptables", "nat");
    let mut fitting = rules.lines().filter(|line| line.starts_with(begin) && line.contains(contains));
    let target = fitting.next().and_then(|line| line.rsplit("-j ").next());
    target.unwrap_or_else(|| panic!("no {begin}…{contains} in\n{rules}")).to_owned()
}
