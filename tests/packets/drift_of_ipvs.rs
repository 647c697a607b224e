//! Somebody else tampers with what IPVS mode made: virtual servers, addresses, sets, rules. It is put right within the
//! sync period, and counted.

use std::time::{Duration, Instant};

use portcullis_lab::{Vantage, uml};

use crate::bed::{Bed, PATIENCE, Setup};
use crate::drift::{REPAIRS, tamper};
use crate::mode::Mode;

/// What somebody does, and the command lines for it.
type Tampering = (&'static str, &'static [&'static str]);

/// `10.96.0.100` is the cluster IP of the Service `web`, and `10.244.1.21` one of its endpoints.
#[rustfmt::skip]
const TAMPERING: [Tampering; 14] = [
    ("all virtual servers are deleted", &["ipvsadm -C"]),
    ("one virtual server is deleted", &["ipvsadm -D -t 10.96.0.100:80"]),
    ("a virtual server gets another scheduler", &["ipvsadm -E -t 10.96.0.100:80 -s sh"]),
    ("a real server is deleted", &["ipvsadm -d -t 10.96.0.100:80 -r 10.244.1.21:8080"]),
    ("a real server is added", &["ipvsadm -a -t 10.96.0.100:80 -r 10.244.1.99:8080 -m"]),
    ("a real server gets another weight", &["ipvsadm -e -t 10.96.0.100:80 -r 10.244.1.21:8080 -m -w 7"]),
    ("a cluster IP is taken from the node", &["ip address delete 10.96.0.100/32 dev kube-ipvs0"]),
    ("the link of the addresses is deleted", &["ip link delete kube-ipvs0"]),
    ("a set is flushed", &["ipset flush KUBE-CLUSTER-IP"]),
    ("an entry of a set is deleted", &["ipset del KUBE-CLUSTER-IP 10.96.0.100,tcp:80"]),
    ("KUBE-SERVICES is flushed", &["iptables -t nat -F KUBE-SERVICES"]),
    ("the jump from PREROUTING is deleted", &["iptables -t nat -D PREROUTING 1"]),
    ("the table nat is flushed", &["iptables -t nat -F"]),
    ("the table filter is deleted", &["iptables -F", "iptables -X"]),
];

#[test]
fn drift_is_repaired_by_ipvs() {
    uml::inside(|| {
        let bed = Setup::of("web.yaml").mode(Mode::Ipvs).args(&["--ipvs-sync-period=1s"]).up();
        // Long enough for a look at what nobody has touched.
        std::thread::sleep(Duration::from_millis(1500));
        tamper(&bed, &TAMPERING, is_repaired);
    });
}

/// Tampers, and waits until everything is as it was and has been counted.
fn is_repaired(bed: &Bed, node: &str, (what, commands): &Tampering) {
    let before = held(bed, node);
    let repairs = bed.metric(node, REPAIRS, "IPv4");
    let since = Instant::now();
    commands.iter().for_each(|command| drop(run(bed, node, command)));
    loop {
        let (now, counted) = (held(bed, node), bed.metric(node, REPAIRS, "IPv4") > repairs);
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
    println!("{what}: repaired after {:?}", since.elapsed());
}

/// All that the mode made on a node for IPv4, in an order that says nothing.
fn held(bed: &Bed, node: &str) -> Vec<String> {
    let listings = ["ipvsadm -Sn", "ip -o -4 address show dev kube-ipvs0", "ipset save", "iptables-save"];
    let text = listings.map(|listing| run(bed, node, listing)).concat();
    // What a set is hashed with, what a chain has counted, when rules were listed, and the number of a link are
    // another each time.
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let line = line.split(" initval ").next().unwrap_or_default().split(" [").next().unwrap_or_default();
        line.split_once(": kube-ipvs0").map_or(line, |(_, address)| address).to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// Runs a command line of plain words on a node, as somebody else would who shares it with the daemon. What it prints:
/// nothing if it fails, as when the link that is to be listed is gone.
fn run(bed: &Bed, node: &str, line: &str) -> String {
    let netns = bed.lab.netns(&Vantage::node(node)).unwrap();
    let mut words = line.split(' ');
    let output = netns.command(words.next().unwrap()).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
