//! Packets of pods with source addresses that are not theirs.

use portcullis_lab::NetNs;
use portcullis_podnet::Wiring;
use portcullis_podnet::source_check::{self, SourceCheck};

use super::node::{Namespace, Node, addresses};

/// Returns the number of echo requests that a host received.
fn echo_requests(host: &Namespace) -> u64 {
    let counters = host.run("cat /proc/net/snmp6");
    let line = counters.lines().find(|line| line.starts_with("Icmp6InEchos ")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn set(host: &NetNs, wanted: Option<Wiring>) {
    host.run(|| SourceCheck::open().unwrap().unwrap().sync(wanted).unwrap()).unwrap();
}

#[test]
fn ipv6_packets_with_a_foreign_source_are_dropped_and_counted() {
    let node = Node::new("ptp");
    let host = NetNs::new(&node.host.name);
    set(&host, Some(Wiring::Ptp));
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
    set(&host, None);
    assert_eq!(dropped(), None, "there is no table");
    send();
    assert_eq!(echo_requests(&node.outside), before + 3, "without the check they arrive");
}

/// Returns the number of echo requests of IPv4 that a host received.
fn echo_requests_v4(host: &Namespace) -> u64 {
    let counters = host.run("cat /proc/net/snmp");
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let position = names.split_whitespace().position(|name| name == "InEchos").unwrap();
    values.split_whitespace().nth(position).unwrap().parse().unwrap()
}

#[test]
fn sources_outside_of_the_pod_cidrs_of_a_bridge_are_dropped_and_counted() {
    let node = Node::new("bridge");
    let host = NetNs::new(&node.host.name);
    set(&host, Some(Wiring::Bridge));
    let (pod, _) = node.add_pod();
    let (other_pod, other) = node.add_pod();
    let other = addresses(&other);
    for target in ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", &other["6"], &other["4"]] {
        pod.assert_ping(target, "with its own source");
        node.outside.assert_ping(&other["6"], "from outside");
        node.host.assert_ping(&other["4"], "from the node");
    }
    let dropped = || host.run(|| source_check::dropped_packets().unwrap()).unwrap();
    assert_eq!(dropped(), Some(0), "neighbour discovery and own sources pass");
    // To a host outside, and to a pod on the same bridge.
    let foreign = [
        ("198.51.100.7", "192.0.2.2"),
        ("198.51.100.7", &other["4"]),
        ("fd00:bad::1", "2001:db8::2"),
        ("fd00:bad::1", &other["6"]),
    ];
    pod.run("ip addr add 198.51.100.7/32 dev lo");
    pod.run("ip addr add fd00:bad::1/128 dev lo nodad");
    let received = || {
        let hosts = [&node.outside, &other_pod];
        hosts.map(|host| echo_requests(host) + echo_requests_v4(host))
    };
    let send = || {
        for (source, target) in foreign {
            pod.try_run(&format!("ping -n -c 1 -W 1 -I {source} {target}"));
        }
    };
    let before = received();
    send();
    assert_eq!(dropped(), Some(4));
    assert_eq!(received(), before);
    // A route through the bridge permits a source: of a VPN gateway, for example.
    node.host.run("ip route add 198.51.100.0/24 dev cni0");
    node.host.run("ip -6 route add fd00:bad::/64 dev cni0");
    send();
    assert_eq!(dropped(), Some(4));
    assert_eq!(received(), before.map(|requests| requests + 2));
}
