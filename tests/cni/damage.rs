//! `CHECK` after each kind of damage.

use std::fs;

use serde_json::{Value, json};

use super::node::{Namespace, Node, WIRINGS, addresses, host_link};

/// Damage to the pod's network.
type Damage = (&'static str, fn(&Node, &Namespace, &Value), u32, &'static str);

fn host(node: &Node, line: &str) {
    node.host.run(line);
}

const IN_BOTH: &[Damage] = &[
    (
        "the interface in the pod is gone",
        |_, pod, _| drop(pod.run("ip link del eth0")),
        102,
        "the node has no interface pc",
    ),
    (
        "its interface on the node is gone",
        |node, _, result| host(node, &format!("ip link del {}", host_link(result))),
        102,
        "the pod has no interface eth0",
    ),
    (
        "another interface in the pod",
        |_, pod, _| {
            pod.run("ip link del eth0");
            pod.run("ip link add eth0 type veth peer name other");
        },
        102,
        "the node has no interface pc",
    ),
    (
        "the interface in the pod is renamed",
        |_, pod, _| {
            pod.run("ip link set eth0 down");
            pod.run("ip link set eth0 name eth9");
        },
        102,
        "the pod has no interface eth0",
    ),
    (
        "down in the pod",
        |_, pod, _| drop(pod.run("ip link set eth0 down")),
        102,
        "interface eth0 in the pod is down",
    ),
    (
        "down on the node",
        |node, _, result| host(node, &format!("ip link set {} down", host_link(result))),
        102,
        "on the node is down",
    ),
    (
        "no IPv4 address",
        |_, pod, result| {
            drop(pod.run(&format!("ip addr del {} dev eth0", result["ips"][0]["address"].as_str().unwrap())))
        },
        102,
        "lacks the address 10.244.1.",
    ),
    (
        "no IPv6 address",
        |_, pod, result| {
            drop(pod.run(&format!("ip addr del {} dev eth0", result["ips"][1]["address"].as_str().unwrap())))
        },
        102,
        "lacks the address fd00:",
    ),
    (
        "no IPv4 default route",
        |_, pod, _| drop(pod.run("ip route del default")),
        102,
        "no route to 0.0.0.0/0 via",
    ),
    (
        "no IPv6 default route",
        |_, pod, _| drop(pod.run("ip -6 route del default")),
        102,
        "no route to ::/0 via",
    ),
    (
        "another default route",
        |_, pod, _| drop(pod.run("ip route replace default dev eth0")),
        102,
        "no route to 0.0.0.0/0 via",
    ),
    (
        "another MTU in the pod",
        |_, pod, _| drop(pod.run("ip link set eth0 mtu 1300")),
        102,
        "eth0 in the pod has MTU 1300; expected 1400",
    ),
    (
        "another MTU on the node",
        |node, _, result| host(node, &format!("ip link set {} mtu 1300", host_link(result))),
        102,
        "on the node has MTU 1300; expected 1400",
    ),
    (
        "another Ethernet address",
        |_, pod, _| drop(pod.run("ip link set eth0 address 02:00:00:00:00:99")),
        102,
        "Ethernet address 02:00:00:00:00:99",
    ),
    (
        "another alias",
        |node, _, result| host(node, &format!("ip link set {} alias x", host_link(result))),
        102,
        "lacks its alias",
    ),
    (
        "router advertisements of the pod are accepted",
        |node, _, result| host(node, &format!("sysctl -qw net.ipv6.conf.{}.accept_ra=1", host_link(result))),
        102,
        "accept_ra on the node is 1; expected 0",
    ),
    (
        "no record",
        |node, pod, _| fs::remove_file(node.state(&format!("attachments/{}@eth0", pod.name))).unwrap(),
        102,
        "no addresses are reserved for",
    ),
    (
        "a record of other addresses",
        |node, pod, _| {
            let path = node.state(&format!("attachments/{}@eth0", pod.name));
            let text = fs::read_to_string(&path).unwrap().replace("fd00:10:244:1::", "fd00:10:244:1::f");
            fs::write(path, text).unwrap();
        },
        102,
        "is not reserved for",
    ),
    (
        "no namespace",
        |_, pod, _| drop(super::node::run(&format!("ip netns del {}", pod.name))),
        102,
        "CNI_NETNS",
    ),
    ("never added", |node, pod, _| node.del(pod), 3, "was not added"),
];

const IN_PTP: &[Damage] = &[
    (
        "the pod may send from other addresses",
        |node, _, result| host(node, &format!("sysctl -qw net.ipv4.conf.{}.rp_filter=0", host_link(result))),
        102,
        "rp_filter on the node is 0; expected 1",
    ),
    (
        "no answers to ARP",
        |node, _, result| host(node, &format!("sysctl -qw net.ipv4.conf.{}.proxy_arp=0", host_link(result))),
        102,
        "proxy_arp on the node is 0; expected 1",
    ),
    (
        "another Ethernet address of the gateway",
        |_, pod, _| {
            drop(pod.run("ip neigh replace 169.254.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent"))
        },
        102,
        "the neighbour 169.254.1.1 of interface eth0 in the pod has Ethernet address 02:00:00:00:00:99",
    ),
    (
        "no IPv4 route on the node",
        |node, _, result| host(node, &format!("ip route del {}", addresses(result)["4"])),
        102,
        "the node has no route to 10.244.1.",
    ),
    (
        "no IPv6 route on the node",
        |node, _, result| host(node, &format!("ip -6 route del {}", addresses(result)["6"])),
        102,
        "the node has no route to fd00:",
    ),
    (
        "no gateway of IPv6",
        |node, _, result| host(node, &format!("ip addr del fe80::1/64 dev {}", host_link(result))),
        102,
        "lacks the address fe80::1/64",
    ),
];

const IN_BRIDGE: &[Damage] = &[
    ("no bridge", |node, _, _| host(node, "ip link del cni0"), 102, "the node has no bridge cni0"),
    ("the bridge is down", |node, _, _| host(node, "ip link set cni0 down"), 102, "bridge cni0 is down"),
    (
        "no gateway on the bridge",
        |node, _, _| host(node, "ip addr del 10.244.1.1/24 dev cni0"),
        102,
        "bridge cni0 lacks the address 10.244.1.1/24",
    ),
    (
        "not a port",
        |node, _, result| host(node, &format!("ip link set {} nomaster", host_link(result))),
        102,
        "is not a port of bridge cni0",
    ),
    (
        "no hairpin mode",
        |node, _, result| host(node, &format!("bridge link set dev {} hairpin off", host_link(result))),
        102,
        "is not in hairpin mode",
    ),
];

#[test]
fn check_names_each_kind_of_damage() {
    for wiring in WIRINGS {
        let of_wiring = if wiring == "ptp" { IN_PTP } else { IN_BRIDGE };
        for (case, damage, code, part) in IN_BOTH.iter().chain(of_wiring) {
            println!("{wiring}: {case}");
            let node = Node::new(wiring);
            let (pod, result) = node.add_pod();
            assert!(node.check(&pod, &result).succeeded, "{:?}", node.check(&pod, &result));
            damage(&node, &pod, &result);
            node.check(&pod, &result).assert_error(*code, &[part]);
            assert!(node.plugin("DEL", &pod).succeeded, "a damaged pod can be removed");
            // Reservations without a record.
            let none = json!({ "cni.dev/valid-attachments": [] });
            assert!(node.plugin_with("GC", "", "", &none).succeeded);
            node.assert_empty(case);
        }
    }
}

#[test]
fn check_reports_all_damages_together() {
    let node = Node::new("ptp");
    let (pod, result) = node.add_pod();
    pod.run("ip link set eth0 mtu 1300");
    node.host.run(&format!("ip route del {}", addresses(&result)["4"]));
    node.check(&pod, &result).assert_error(102, &["MTU 1300", "no route to 10.244.1."]);
}

#[test]
fn results_without_mtu_allow_a_smaller_one() {
    // The plugin "tuning" changes the MTU, and results of this version do not have it.
    let node = Node::new("ptp");
    let pod = Namespace::new();
    let old = json!({ "cniVersion": "0.4.0" });
    let result = node.plugin_with("ADD", &pod.path(), &pod.name, &old).result();
    let check = || {
        let changes = json!({ "cniVersion": "0.4.0", "prevResult": result });
        node.plugin_with("CHECK", &pod.path(), &pod.name, &changes)
    };
    pod.run("ip link set eth0 mtu 1300");
    assert!(check().succeeded);
    pod.run("ip link set eth0 mtu 1450");
    check().assert_error(102, &["MTU 1450"]);
}

#[test]
fn check_needs_the_interface_in_the_result() {
    let node = Node::new("ptp");
    let (pod, mut result) = node.add_pod();
    result["interfaces"][1]["name"] = json!("eth7");
    node.check(&pod, &result).assert_error(7, &["prevResult.interfaces has no eth0"]);
}
