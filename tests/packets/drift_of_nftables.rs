//! Somebody else tampers with the table of nftables mode: the kernel tells, it is put right at once, and counted.

use std::time::{Duration, Instant};

use portcullis_lab::Vantage;
use portcullis_netlink::nf_tables::{self, Table, TableFamily, UnknownObjects};

use crate::bed::{Bed, PATIENCE, Setup};
use crate::drift::{REPAIRS, tamper};
use crate::mode::Mode;
use crate::tools;

/// What somebody does, and the command lines of `nft` for it.
type Tampering = (&'static str, &'static [&'static str]);

/// `10.96.0.100` is the cluster IP of the Service `web`; 0 the number of the first of its three endpoints.
#[rustfmt::skip]
const TAMPERING: [Tampering; 38] = [
    ("the rule set is flushed", &["flush ruleset"]),
    ("the table is deleted", &["delete table ip portcullis"]),
    ("the table of IPv6 is deleted", &["delete table ip6 portcullis"]),
    ("the table is put to sleep", &["add table ip portcullis { flags dormant; }"]),
    ("the table's rules are flushed", &["flush table ip portcullis"]),
    ("a chain is flushed", &["flush chain ip portcullis services"]),
    ("a base chain is deleted", &["delete chain ip portcullis nat-prerouting"]),
    ("a base chain drops everything", &["add chain ip portcullis filter-forward { policy drop; }"]),
    ("a chain is renamed", &["rename chain ip portcullis reject-chain somebodys-chain"]),
    ("a rule is added", &["insert rule ip portcullis services tcp dport 80 return"]),
    ("a rule with a set of its own is added", &["insert rule ip portcullis filter-input tcp dport { 1, 2 } counter limit rate 3/second log prefix \"x\" drop"]),
    ("a rule is added to what Services share", &["insert rule ip portcullis service-3 accept"]),
    ("nothing is tried any more", &["flush chain ip portcullis service-ips"]),
    ("a chain of somebody's leads to ours", &["add chain ip portcullis mine", "add rule ip portcullis mine jump services"]),
    ("a set of somebody's comes", &["add set ip portcullis mine { type ipv4_addr . ether_addr; flags timeout; }"]),
    ("a quota of somebody's comes", &["add quota ip portcullis mine over 10 mbytes"]),
    ("a set is flushed", &["flush set ip portcullis service-ips"]),
    ("a map is flushed", &["flush map ip portcullis service-3"]),
    ("a Service is taken out", &["delete element ip portcullis service-ips { 10.96.0.100 . tcp . 80 }"]),
    ("an endpoint is another one", &["delete element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x1 }", "add element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x1 : 10.9.9.9 . 9 }"]),
    ("an endpoint is taken out", &["delete element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x0 }"]),
    ("a cluster IP is added", &["add element ip portcullis cluster-ips { 10.96.3.3 }"]),
    ("a source is added", &["add element ip portcullis firewall-sources { 10.96.3.3 . tcp . 80 . 10.0.0.0/8 }"]),
    ("a rule with an anonymous chain is added", &["insert rule ip portcullis services jump { counter; }"]),
    ("anonymous chains in several chains", &["insert rule ip portcullis service-ips jump { accept; }", "insert rule ip portcullis nat-prerouting goto { return; }"]),
    ("an anonymous map leads to a chain of ours", &["insert rule ip portcullis filter-input ip saddr vmap { 10.1.1.1 : jump reject-chain, 10.1.1.2 : drop }"]),
    ("a catch-all element in a set", &["add element ip portcullis cluster-ips { * }"]),
    ("a catch-all element in a verdict map", &["add element ip portcullis no-endpoint-services { * : drop }"]),
    ("a catch-all element in a map of endpoints", &["add element ip portcullis service-3 { * : 10.9.9.9 . 9 }"]),
    ("a catch-all element in a set of ranges", &["add element ip portcullis firewall-sources { * }"]),
    ("a catch-all element in the clients' memory", &["add element ip portcullis affinity { * }"]),
    ("an element of ours leads to another chain", &["add chain ip portcullis mine", "add element ip portcullis no-endpoint-services { 10.96.3.3 . tcp . 80 : goto mine }"]),
    ("a map of another process leads to our chains", &["add map ip portcullis mine { type ipv4_addr : verdict; elements = { 10.1.1.1 : jump services }; }"]),
    ("a set with counters", &["add set ip portcullis mine { type ipv4_addr; counter; }", "add counter ip portcullis mine"]),
    ("a base chain of another process", &["add chain ip portcullis mine { type filter hook input priority 0; policy drop; }"]),
    ("a base chain gets another priority", &["delete chain ip portcullis nat-prerouting", "add chain ip portcullis nat-prerouting { type nat hook prerouting priority -90; }", "add rule ip portcullis nat-prerouting jump services"]),
    ("a base chain gets another type", &["delete chain ip portcullis nat-output", "add chain ip portcullis nat-output { type route hook output priority 0; }"]),
    ("the clients' memory is deleted", &["flush table ip portcullis", "delete set ip portcullis affinity"]),
];

/// How long the last of them may take. The machine may be busy, and the tools are slow.
const WITHIN: Duration = Duration::from_secs(1);

#[test]
fn drift_is_repaired_by_nftables() {
    let bed = Setup::of("web.yaml").mode(Mode::Nftables).up();
    tamper(&bed, &TAMPERING, is_repaired);
}

/// Tampers, and waits until everything is as it was and has been counted.
fn is_repaired(bed: &Bed, node: &str, (what, commands): &Tampering) {
    let family = if what.contains("IPv6") { "IPv6" } else { "IPv4" };
    let before = held(bed, node);
    let repairs = bed.metric(node, REPAIRS, family);
    let netns = bed.lab.netns(&Vantage::node(node)).unwrap();
    let script = commands.join("; ");
    tools::output(netns.command("nft").arg(&script));
    let since = Instant::now();
    bed.wait_until(what, PATIENCE, |bed| held(bed, node) == before);
    let took = since.elapsed();
    bed.wait_until(&format!("{what}: counted"), PATIENCE, |bed| bed.metric(node, REPAIRS, family) > repairs);
    println!("{what}: repaired after {took:?}");
    assert!(took < WITHIN, "{what}: repaired after {took:?}");
}

/// The tables of both families.
fn held(bed: &Bed, node: &str) -> [Option<(Table, UnknownObjects)>; 2] {
    let read = || {
        let mut socket = nf_tables::open().unwrap().unwrap();
        [TableFamily::Ip, TableFamily::Ip6]
            .map(|family| nf_tables::read(&mut socket, family, "portcullis").unwrap())
    };
    bed.lab.netns(&Vantage::node(node)).unwrap().run(read).unwrap()
}
