//! Drift in IPVS mode: changes of virtual servers, addresses, sets and rules by another process are reverted within the
//! sync period, and counted.

use std::time::{Duration, Instant};

use portcullis_lab::Vantage;

use crate::drift::{REPAIRS, check_drift};
use crate::mode::Mode;
use crate::testbed::{PATIENCE, Setup, Testbed};

/// Description of a change, and the command lines for it.
type Change = (&'static str, &'static [&'static str]);

/// `10.96.0.100` is the cluster IP of the Service `web`, and `10.244.1.21` one of its endpoints.
#[rustfmt::skip]
const CHANGES: [Change; 14] = [
    ("all virtual servers are deleted", &["ipvsadm -C"]),
    ("one virtual server is deleted", &["ipvsadm -D -t 10.96.0.100:80"]),
    ("a virtual server gets another scheduler", &["ipvsadm -E -t 10.96.0.100:80 -s sh"]),
    ("a real server is deleted", &["ipvsadm -d -t 10.96.0.100:80 -r 10.244.1.21:8080"]),
    ("a real server is added", &["ipvsadm -a -t 10.96.0.100:80 -r 10.244.1.99:8080 -m"]),
    ("a real server gets another weight", &["ipvsadm -e -t 10.96.0.100:80 -r 10.244.1.21:8080 -m -w 7"]),
    ("a cluster IP is removed from the node", &["ip address delete 10.96.0.100/32 dev kube-ipvs0"]),
    ("the link kube-ipvs0 is deleted", &["ip link delete kube-ipvs0"]),
    ("a set is flushed", &["ipset flush KUBE-CLUSTER-IP"]),
    ("an entry of a set is deleted", &["ipset del KUBE-CLUSTER-IP 10.96.0.100,tcp:80"]),
    ("KUBE-SERVICES is flushed", &["iptables -t nat -F KUBE-SERVICES"]),
    ("the jump from PREROUTING is deleted", &["iptables -t nat -D PREROUTING 1"]),
    ("the table nat is flushed", &["iptables -t nat -F"]),
    ("the table filter is deleted", &["iptables -F", "iptables -X"]),
];

pub(crate) fn is_reverted() {
    let testbed = Setup::new("web.yaml").mode(Mode::Ipvs).args(&["--ipvs-sync-period=1s"]).up();
    // Long enough for a comparison of the unchanged state.
    std::thread::sleep(Duration::from_millis(1500));
    check_drift(&testbed, &CHANGES, assert_reverted);
}

/// Applies a change, and waits until it is reverted and counted.
fn assert_reverted(testbed: &Testbed, node: &str, (what, commands): &Change) {
    let before = current_state(testbed, node);
    let repairs = testbed.metric(node, REPAIRS, "IPv4");
    let since = Instant::now();
    commands.iter().for_each(|command| drop(run(testbed, node, command)));
    loop {
        let (now, counted) = (current_state(testbed, node), testbed.metric(node, REPAIRS, "IPv4") > repairs);
        if now == before && counted {
            break;
        }
        let differs: Vec<&String> = now
            .iter()
            .filter(|line| !before.contains(line))
            .chain(before.iter().filter(|line| !now.contains(line)))
            .collect();
        assert!(
            since.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}; counted: {counted}; differs: {differs:#?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{what}: reverted after {:?}", since.elapsed());
}

/// Returns all IPv4 objects of the mode on a node, sorted.
fn current_state(testbed: &Testbed, node: &str) -> Vec<String> {
    let listings = ["ipvsadm -Sn", "ip -o -4 address show dev kube-ipvs0", "ipset save", "iptables-save"];
    let text = listings.map(|listing| run(testbed, node, listing)).concat();
    // Hash seeds of sets, chain counters, times of listings and interface numbers vary.
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let line = line.split(" initval ").next().unwrap_or_default().split(" [").next().unwrap_or_default();
        line.split_once(": kube-ipvs0").map_or(line, |(_, address)| address).to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// Runs a command line of plain words on a node, as another process would. Returns its output, which is empty if it
/// fails, e.g. because the link to list does not exist.
fn run(testbed: &Testbed, node: &str, line: &str) -> String {
    let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
    let mut words = line.split(' ');
    let output = netns.command(words.next().unwrap()).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
