//! Packets between pods, their node, and a host outside.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::node::{Namespace, Node, WIRINGS, addresses, host_link};

#[test]
fn pods_reach_pods_nodes_and_the_outside() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let (first, result) = node.add_pod();
        // Each address must work with the first packet after `ADD`.
        for address in addresses(&result).values() {
            node.host.assert_ping(address, &format!("{wiring}: node to pod"));
        }
        for target in ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"] {
            first.assert_ping(target, &format!("{wiring}: pod to node and outside"));
        }
        let (second, other) = node.add_pod();
        for address in addresses(&other).values() {
            first.assert_ping(address, &format!("{wiring}: pod to pod"));
            node.outside.assert_ping(address, &format!("{wiring}: outside to pod"));
        }
        for address in addresses(&result).values() {
            second.assert_ping(address, &format!("{wiring}: second pod to first"));
        }
        for pod in [&first, &second] {
            let shown = pod.run("ip -6 addr show dev eth0");
            assert!(!shown.contains("tentative") && shown.contains("scope link"), "{wiring}: {shown}");
            assert!(pod.run("ip link show dev eth0").contains("mtu 1400"));
        }
        // A packet of the full size in both families.
        for address in addresses(&other).values() {
            let size = if address.contains(':') { 1400 - 48 } else { 1400 - 28 };
            first.run(&format!("ping -n -c 1 -W 2 -M do -s {size} {address}"));
        }
        node.del(&first);
        node.del(&second);
        node.assert_empty(wiring);
    }
}

#[test]
fn pods_of_one_family_have_one_address() {
    for wiring in WIRINGS {
        for (range, family, absent) in [("10.244.1.0/24", "4", "fd00"), ("fd00:10:244:1::/64", "6", "10.244")]
        {
            let mut node = Node::new(wiring);
            node.configuration["podCIDRs"] = json!([range]);
            let (pod, result) = node.add_pod();
            let (_other, other) = node.add_pod();
            assert_eq!(result["ips"].as_array().unwrap().len(), 1);
            assert!(!pod.run("ip addr").contains(absent));
            let case = format!("{wiring}, {range}");
            pod.assert_ping(&addresses(&other)[family], &case);
            pod.assert_ping(if family == "4" { "192.0.2.2" } else { "2001:db8::2" }, &case);
            assert!(node.check(&pod, &result).succeeded);
            node.del(&pod);
        }
    }
}

#[test]
fn a_reused_address_works_immediately() {
    for wiring in WIRINGS {
        let mut node = Node::new(wiring);
        // Five addresses for pods.
        node.configuration["podCIDRs"] = json!(["10.244.1.0/29", "fd00:10:244:1::/125"]);
        let (observer, _) = node.add_pod();
        let (previous, result) = node.add_pod();
        let reused = addresses(&result);
        for address in reused.values() {
            observer.assert_ping(address, "the previous pod");
            node.host.assert_ping(address, "the previous pod, from the node");
        }
        node.del(&previous);
        // Until the addresses come round.
        let next = (0..6).find_map(|_| {
            let (pod, result) = node.add_pod();
            if addresses(&result)["4"] == reused["4"] {
                return Some((pod, result));
            }
            node.del(&pod);
            None
        });
        let (_next, result) = next.expect("the address is used again");
        let next = addresses(&result);
        for address in next.values() {
            observer.assert_ping(address, &format!("{wiring}: another pod with the address"));
            node.host.assert_ping(address, &format!("{wiring}: another pod with the address, from the node"));
        }
    }
}

#[test]
fn a_pod_on_a_bridge_announces_its_addresses_to_other_pods() {
    let node = Node::new("bridge");
    let (observer, _) = node.add_pod();
    let advertisements = || -> u64 {
        let counters = observer.run("cat /proc/net/snmp6");
        let line = counters.lines().find(|line| line.starts_with("Icmp6InNeighborAdvertisements")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = advertisements();
    let (pod, result) = node.add_pod();
    // The kernel delivers them after `ADD`.
    let until = Instant::now() + Duration::from_secs(20);
    while advertisements() == before {
        assert!(Instant::now() < until, "no neighbour advertisement of {result} arrived");
        thread::sleep(Duration::from_millis(10));
    }
    // The second `ADD` gives the same addresses. ARP only changes entries that exist.
    let address = &addresses(&result)["4"];
    observer.run(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
    let result = node.plugin("ADD", &pod).result();
    let of_pod = result["interfaces"].as_array().unwrap().last().unwrap();
    while !observer.run("ip neigh").contains(of_pod["mac"].as_str().unwrap()) {
        assert!(Instant::now() < until, "no gratuitous ARP of {address} arrived");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ipv6_is_enabled_where_the_runtime_disabled_it() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        node.host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let pod = Namespace::new();
        pod.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let result = node.plugin("ADD", &pod).result();
        node.host.assert_ping(&addresses(&result)["6"], wiring);
        pod.assert_ping("2001:db8::2", wiring);
    }
}

#[test]
fn a_ptp_pod_cannot_send_from_an_address_that_is_not_its_own() {
    let node = Node::new("ptp");
    let (pod, _) = node.add_pod();
    let (victim, result) = node.add_pod();
    let address = &addresses(&result)["4"];
    pod.run(&format!("ip addr add {address}/32 dev lo"));
    victim.run("ip link set eth0 down");
    let (answered, _) = pod.try_run(&format!("ping -n -c 1 -W 1 -I {address} 192.0.2.2"));
    assert!(!answered);
    let received = node.outside.run("cat /proc/net/snmp");
    let icmp: Vec<&str> = received.lines().filter(|line| line.starts_with("Icmp: ")).collect();
    let position = icmp[0].split(' ').position(|name| name == "InEchos").unwrap();
    assert_eq!(icmp[1].split(' ').nth(position), Some("0"), "the node drops it");
}

#[test]
fn the_node_answers_a_pod_that_has_no_neighbour_entries() {
    let node = Node::new("ptp");
    // ARP is answered for addresses that are routed elsewhere, after a random delay.
    node.host.run("ip route add default via 192.0.2.2");
    let (pod, result) = node.add_pod();
    node.host.run(&format!("sysctl -qw net.ipv4.neigh.{}.proxy_delay=0", host_link(&result)));
    pod.run("ip neigh flush all nud permanent");
    assert!(!pod.run("ip neigh").contains("PERMANENT"));
    for target in ["2001:db8::2", "192.0.2.2"] {
        pod.assert_ping(target, "after a flush of neighbours");
    }
}

#[test]
fn router_advertisements_are_ignored() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        node.host.run("sysctl -qw net.ipv6.conf.default.accept_ra=2");
        let (pod, _) = node.add_pod();
        let link = if wiring == "ptp" { node.pod_links().remove(0) } else { "cni0".to_owned() };
        assert_eq!(node.host.run(&format!("cat /proc/sys/net/ipv6/conf/{link}/accept_ra")).trim(), "0");
        assert_eq!(pod.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim(), "0");
    }
}
