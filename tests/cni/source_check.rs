//! IPv6 packets of pods with source addresses that are not theirs.

use portcullis_lab::NetNs;
use portcullis_podnet::source_check::{self, SourceCheck};

use super::node::{Namespace, Node, addresses};

/// Returns the number of echo requests that a host received.
fn echo_requests(host: &Namespace) -> u64 {
    let counters = host.run("cat /proc/net/snmp6");
    let line = counters.lines().find(|line| line.starts_with("Icmp6InEchos ")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn set(host: &NetNs, is_wanted: bool) {
    host.run(|| SourceCheck::open().unwrap().unwrap().sync(is_wanted).unwrap()).unwrap();
}

#[test]
fn packets_with_a_foreign_source_are_dropped_and_counted() {
    let node = Node::new("ptp");
    let host = NetNs::new(&node.host.name);
    set(&host, true);
    let (pod, _) = node.add_pod();
    let (_other, other) = node.add_pod();
    let other = &addresses(&other)["6"];
    for target in ["2001:db8::1", "2001:db8::2", "fe80::1%eth0", other] {
        pod.assert_ping(target, "with its own source");
    }
    node.outside.assert_ping(other, "from outside");
    let dropped = || host.run(|| source_check::dropped_packets().unwrap()).unwrap();
    assert_eq!(dropped(), Some(0), "neighbour discovery and own sources pass");
    let foreign = [other.as_str(), "fd00:bad::1", "2001:db8::7"];
    let send = || {
        for source in foreign {
            let (answered, output) = pod.try_run(&format!("ping -n -c 1 -W 1 -I {source} 2001:db8::2"));
            assert!(!answered, "{output}");
        }
    };
    foreign.iter().for_each(|source| drop(pod.run(&format!("ip addr add {source}/128 dev lo nodad"))));
    let before = echo_requests(&node.outside);
    send();
    assert_eq!(dropped(), Some(3));
    assert_eq!(echo_requests(&node.outside), before);
    set(&host, false);
    assert_eq!(dropped(), None, "there is no table");
    send();
    assert_eq!(echo_requests(&node.outside), before + 3, "without the check they arrive");
}

#[test]
fn pods_of_a_bridge_are_not_affected() {
    let node = Node::new("bridge");
    set(&NetNs::new(&node.host.name), true);
    let (pod, _) = node.add_pod();
    let (_other, other) = node.add_pod();
    for target in ["2001:db8::1", "2001:db8::2", &addresses(&other)["6"]] {
        pod.assert_ping(target, "bridge");
    }
}
