//! Drift in nftables mode: changes of the table by another process are reverted immediately after the kernel's
//! notification, and counted.

use std::time::{Duration, Instant};

use portcullis_lab::Vantage;
use portcullis_netlink::nf_tables::{self, Table, TableFamily, UnknownObjects};

use crate::drift::{REPAIRS, check_drift};
use crate::mode::Mode;
use crate::testbed::{PATIENCE, Setup, Testbed};
use crate::tools;

/// Description of a change, and the command lines of `nft` for it.
type Change = (&'static str, &'static [&'static str]);

/// `10.96.0.100` is the cluster IP of the Service `web`; 0 is the number of the first of its three endpoints.
#[rustfmt::skip]
const CHANGES: [Change; 38] = [
    ("the rule set is flushed", &["flush ruleset"]),
    ("the table is deleted", &["delete table ip portcullis"]),
    ("the table of IPv6 is deleted", &["delete table ip6 portcullis"]),
    ("the table becomes dormant", &["add table ip portcullis { flags dormant; }"]),
    ("the table's rules are flushed", &["flush table ip portcullis"]),
    ("a chain is flushed", &["flush chain ip portcullis services"]),
    ("a base chain is deleted", &["delete chain ip portcullis nat-prerouting"]),
    ("a base chain drops everything", &["add chain ip portcullis filter-forward { policy drop; }"]),
    ("a chain is renamed", &["rename chain ip portcullis reject-chain somebodys-chain"]),
    ("a rule is added", &["insert rule ip portcullis services tcp dport 80 return"]),
    ("a rule with a set of its own is added", &["insert rule ip portcullis filter-input tcp dport { 1, 2 } counter limit rate 3/second log prefix \"x\" drop"]),
    ("a rule is added to a chain shared by Services", &["insert rule ip portcullis service-3 accept"]),
    ("the dispatch chain is flushed", &["flush chain ip portcullis service-ips"]),
    ("a chain of another process jumps to ours", &["add chain ip portcullis mine", "add rule ip portcullis mine jump services"]),
    ("a set of another process is added", &["add set ip portcullis mine { type ipv4_addr . ether_addr; flags timeout; }"]),
    ("a quota of another process is added", &["add quota ip portcullis mine over 10 mbytes"]),
    ("a set is flushed", &["flush set ip portcullis service-ips"]),
    ("a map is flushed", &["flush map ip portcullis service-3"]),
    ("a Service is removed", &["delete element ip portcullis service-ips { 10.96.0.100 . tcp . 80 }"]),
    ("an endpoint is replaced", &["delete element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x1 }", "add element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x1 : 10.9.9.9 . 9 }"]),
    ("an endpoint is removed", &["delete element ip portcullis service-3 { 10.96.0.100 . tcp . 80 . 0x0 }"]),
    ("a cluster IP is added", &["add element ip portcullis cluster-ips { 10.96.3.3 }"]),
    ("a source range is added", &["add element ip portcullis firewall-sources { 10.96.3.3 . tcp . 80 . 10.0.0.0/8 }"]),
    ("a rule with an anonymous chain is added", &["insert rule ip portcullis services jump { counter; }"]),
    ("anonymous chains in several chains", &["insert rule ip portcullis service-ips jump { accept; }", "insert rule ip portcullis nat-prerouting goto { return; }"]),
    ("an anonymous map jumps to a chain of ours", &["insert rule ip portcullis filter-input ip saddr vmap { 10.1.1.1 : jump reject-chain, 10.1.1.2 : drop }"]),
    ("a catch-all element in a set", &["add element ip portcullis cluster-ips { * }"]),
    ("a catch-all element in a verdict map", &["add element ip portcullis no-endpoint-services { * : drop }"]),
    ("a catch-all element in a map of endpoints", &["add element ip portcullis service-3 { * : 10.9.9.9 . 9 }"]),
    ("a catch-all element in a set of ranges", &["add element ip portcullis firewall-sources { * }"]),
    ("a catch-all element in the session-affinity map", &["add element ip portcullis affinity { * : 0x1 }"]),
    ("an element of ours goes to another chain", &["add chain ip portcullis mine", "add element ip portcullis no-endpoint-services { 10.96.3.3 . tcp . 80 : goto mine }"]),
    ("a map of another process jumps to our chains", &["add map ip portcullis mine { type ipv4_addr : verdict; elements = { 10.1.1.1 : jump services }; }"]),
    ("a set with counters", &["add set ip portcullis mine { type ipv4_addr; counter; }", "add counter ip portcullis mine"]),
    ("a base chain of another process", &["add chain ip portcullis mine { type filter hook input priority 0; policy drop; }"]),
    ("a base chain gets another priority", &["delete chain ip portcullis nat-prerouting", "add chain ip portcullis nat-prerouting { type nat hook prerouting priority -90; }", "add rule ip portcullis nat-prerouting jump services"]),
    ("a base chain gets another type", &["delete chain ip portcullis nat-output", "add chain ip portcullis nat-output { type route hook output priority 0; }"]),
    ("the session-affinity map is deleted", &["flush table ip portcullis", "delete map ip portcullis affinity"]),
];

/// Time limit, for a busy machine and slow tools.
const WITHIN: Duration = Duration::from_secs(1);

pub(crate) fn is_reverted() {
    let testbed = Setup::new("web.yaml").mode(Mode::Nftables).up();
    check_drift(&testbed, &CHANGES, assert_reverted);
}

/// Applies a change, and waits until it is reverted and counted.
fn assert_reverted(testbed: &Testbed, node: &str, (what, commands): &Change) {
    let family = if what.contains("IPv6") { "IPv6" } else { "IPv4" };
    let before = current_state(testbed, node);
    let repairs = testbed.metric(node, REPAIRS, family);
    let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
    let script = commands.join("; ");
    tools::output(netns.command("nft").arg(&script));
    let since = Instant::now();
    testbed.wait_until(what, PATIENCE, |testbed| current_state(testbed, node) == before);
    let took = since.elapsed();
    testbed.wait_until(&format!("{what}: counted"), PATIENCE, |testbed| {
        testbed.metric(node, REPAIRS, family) > repairs
    });
    println!("{what}: reverted after {took:?}");
    assert!(took < WITHIN, "{what}: reverted after {took:?}");
}

/// Returns the tables of both families.
fn current_state(testbed: &Testbed, node: &str) -> [Option<(Table, UnknownObjects)>; 2] {
    let read = || {
        let mut socket = nf_tables::open().unwrap().unwrap();
        [TableFamily::Ip, TableFamily::Ip6]
            .map(|family| nf_tables::read(&mut socket, family, "portcullis").unwrap())
    };
    testbed.lab.netns(&Vantage::node(node)).unwrap().run(read).unwrap()
}
