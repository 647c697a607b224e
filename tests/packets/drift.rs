//! Another process changes the rules: they are restored and counted, with the nft tool within a second, with the legacy tool
//! within the sync period.

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

/// What somebody does, and with which arguments of iptables.
type Tampering = (&'static str, Vec<Vec<&'static str>>);

#[rustfmt::skip]
fn tampering() -> Vec<Tampering> {
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

/// Stand for the chains of the Service `web` and of one of its endpoints.
const SERVICE: &str = "KUBE-SVC-…";
const ENDPOINT: &str = "KUBE-SEP-…";

fn drift_is_repaired(flavour: Flavour) {
    // Nothing announces changes of legacy tables. With the nft tool, the sync period is the default.
    let args: &[&str] = if flavour == Flavour::Legacy { &["--iptables-sync-period=2s"] } else { &[] };
    let bed = Setup::of("web.yaml").args(args).flavour(flavour).up();
    // Long enough for a look at rules that nobody has touched.
    std::thread::sleep(Duration::from_millis(2500));
    // A second, or the sync period, and more for a busy machine.
    let limit = Duration::from_secs(if flavour == Flavour::Legacy { 6 } else { 3 });
    tamper(&bed, &tampering(), |bed, node, row| is_repaired(bed, node, row, limit));
}

/// Has somebody tamper with both nodes, each with half of the rows, and then sees them serve.
pub(crate) fn tamper<T: Sync>(bed: &Bed, rows: &[T], is_repaired: impl Fn(&Bed, &str, &T) + Sync) {
    let (first, second) = rows.split_at(rows.len() / 2);
    std::thread::scope(|scope| {
        for (node, rows) in [("node-1", first), ("node-2", second)] {
            let is_repaired = &is_repaired;
            scope.spawn(move || {
                assert_eq!(bed.metric(node, REPAIRS, ""), 0.0, "{node}: nothing to repair yet");
                rows.iter().for_each(|row| is_repaired(bed, node, row));
            });
        }
    });
    #[rustfmt::skip]
    bed.check(&[
        row("cluster IP after repairs", client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("cluster IP after repairs on node-2", client(2), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("node port after repairs", outside(), node_port(1, "web", 80), spread(&["a", "b", "c"]).masqueraded_by(1)),
        row("node port after repairs on node-2", outside(), node_port(2, "web", 80), spread(&["a", "b", "c"]).masqueraded_by(2)),
    ]);
}

pub(crate) const REPAIRS: &str = "portcullis_drift_repairs_total";

/// Tampers, and waits until everything is as it was and has been counted.
fn is_repaired(bed: &Bed, node: &str, (what, commands): &Tampering, limit: Duration) {
    let service = chain_of(bed, node, "-A KUBE-SERVICES ", "default/web:http cluster IP");
    let endpoint = chain_of(bed, node, &format!("-A {service} "), "default/web:http ->");
    let before = rules(bed, node);
    let repairs = bed.metric(node, REPAIRS, "IPv4");
    let counted = |bed: &Bed| bed.metric(node, REPAIRS, "IPv4") > repairs;
    // A repair must not come between two commands for one table.
    bed.iptables_restore(node, &restore_of(commands, &service, &endpoint));
    let since = Instant::now();
    bed.wait_until(what, PATIENCE, |bed| counted(bed) && rules(bed, node) == before);
    let took = since.elapsed();
    println!("{what}: repaired after {took:?}");
    assert!(took < limit, "{what}: repaired after {took:?}");
}

/// What iptables-restore reads to do what these commands do, each table at once.
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

/// The IPv4 rules of a node in the order of the tool, chains sorted: where a chain stands in the listing says nothing.
fn rules(bed: &Bed, node: &str) -> Vec<String> {
    let of_table = move |table| {
        let text = bed.rules(node, "iptables", table);
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
fn chain_of(bed: &Bed, node: &str, begin: &str, contains: &str) -> String {
    let rules = bed.rules(node, "iptables", "nat");
    let mut fitting = rules.lines().filter(|line| line.starts_with(begin) && line.contains(contains));
    let target = fitting.next().and_then(|line| line.rsplit("-j ").next());
    target.unwrap_or_else(|| panic!("no {begin}…{contains} in\n{rules}")).to_owned()
}
