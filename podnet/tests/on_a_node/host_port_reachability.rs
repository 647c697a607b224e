//! Clients of host ports, the addresses at which they connect, and the source address that the pod sees.

use std::net::UdpSocket;
use std::time::Duration;

use portcullis_podnet::host_ports::{HostPortRecords, HostPorts, PodHostPorts, PortMapping};
use serde_json::json;

use crate::node::{
    NODE, NODE_IPS, Node, OUTSIDE, OUTSIDE_IPS, POD_1, POD_1_IPS, POD_2, POD_2_IPS, addresses,
};
use crate::traffic::{serve, tcp, udp};

pub(crate) fn mapping(host_port: u16, container_port: u16, protocol: &str, host_ip: &str) -> PortMapping {
    serde_json::from_value(json!({
        "hostPort": host_port, "containerPort": container_port, "protocol": protocol, "hostIP": host_ip,
    }))
    .unwrap()
}

pub(crate) fn pod(ips: [&str; 2], mappings: &[PortMapping]) -> PodHostPorts {
    PodHostPorts { addresses: addresses(ips), mappings: mappings.to_vec() }
}

pub(crate) fn records(pods: Vec<PodHostPorts>) -> Result<HostPortRecords, String> {
    Ok(HostPortRecords { pods, is_complete: true })
}

pub(crate) fn add(node: &Node, pod: &PodHostPorts, interface: &str) {
    node.inside(NODE, || {
        let mut host_ports = HostPorts::open(node.state.path()).unwrap();
        host_ports.add(pod, interface, |_| true).unwrap().unwrap();
    });
}

#[test]
fn host_ports_are_reached_from_everywhere() {
    let node = Node::new();
    serve(&node, POD_1, 80);
    serve(&node, POD_2, 80);
    let mappings = [mapping(8080, 80, "tcp", ""), mapping(8080, 80, "udp", "")];
    add(&node, &pod(POD_1_IPS, &mappings), "pcp1");
    for family in 0..2 {
        let loopback = ["127.0.0.1", "::1"][family];
        // The client, the address at which it connects, and the source address that the pod sees; none if it is masqueraded.
        let rows = [
            (OUTSIDE, NODE_IPS[family], Some(OUTSIDE_IPS[family])),
            (NODE, NODE_IPS[family], Some(NODE_IPS[family])),
            (NODE, loopback, None),
            (POD_2, NODE_IPS[family], Some(POD_2_IPS[family])),
            (POD_1, NODE_IPS[family], None),
        ];
        for (from, to, source) in rows {
            for reply in [tcp(&node, from, to, 8080), udp(&node, from, to, 8080)] {
                let place = format!("from {from} to {to}: {reply}");
                let seen = reply.strip_prefix("pod1 ").unwrap_or_else(|| panic!("{place}"));
                match source {
                    Some(source) => assert_eq!(seen, source, "{place}"),
                    None => assert!(![loopback, POD_1_IPS[family]].contains(&seen), "{place}"),
                }
            }
        }
        // The ports of pods themselves, and other ports of the node, are what they were.
        assert_eq!(tcp(&node, OUTSIDE, POD_2_IPS[family], 80), format!("pod2 {}", OUTSIDE_IPS[family]));
        assert_eq!(tcp(&node, OUTSIDE, NODE_IPS[family], 8081), "refused");
        assert_eq!(tcp(&node, OUTSIDE, POD_2_IPS[family], 8080), "refused", "only at addresses of the node");
    }
}

#[test]
fn a_host_ip_limits_where_the_port_is_served() {
    let node = Node::new();
    serve(&node, POD_1, 80);
    serve(&node, POD_2, 80);
    node.ip(NODE, "addr add 192.0.2.3/24 dev uplink");
    let one = [mapping(81, 80, "tcp", "192.0.2.3"), mapping(82, 80, "tcp", "127.0.0.1")];
    let families =
        [mapping(83, 80, "tcp", "0.0.0.0"), mapping(84, 80, "tcp", "::"), mapping(85, 80, "tcp", "::1")];
    add(&node, &pod(POD_1_IPS, &[&one[..], &families[..]].concat()), "pcp1");
    add(&node, &pod(POD_2_IPS, &[mapping(81, 80, "tcp", "")]), "pcp2");
    let rows = [
        (OUTSIDE, "192.0.2.3", 81, "pod1"),
        (OUTSIDE, "192.0.2.1", 81, "pod2"),
        (OUTSIDE, "2001:db8::1", 81, "pod2"),
        (OUTSIDE, "192.0.2.3", 82, "refused"),
        (NODE, "127.0.0.1", 82, "pod1"),
        (NODE, "192.0.2.1", 82, "refused"),
        (OUTSIDE, "192.0.2.1", 83, "pod1"),
        (OUTSIDE, "2001:db8::1", 83, "refused"),
        (OUTSIDE, "192.0.2.1", 84, "refused"),
        (OUTSIDE, "2001:db8::1", 84, "pod1"),
        (NODE, "::1", 85, "pod1"),
        (OUTSIDE, "2001:db8::1", 85, "refused"),
    ];
    for (from, to, port, expected) in rows {
        let reply = tcp(&node, from, to, port);
        assert_eq!(reply.split(' ').next(), Some(expected), "from {from} to {to}, port {port}: {reply}");
    }
}

/// Host ports on 127.0.0.1 set `route_localnet`, which would open all ports of 127.0.0.1 to pods. Replies from 127.0.0.1 do not
/// reach a pod, so the test looks at what arrives.
#[test]
fn loopback_addresses_are_reached_by_the_node_alone() {
    let node = Node::new();
    let mappings = [mapping(8080, 80, "udp", "127.0.0.1"), mapping(8081, 80, "udp", "")];
    add(&node, &pod(POD_1_IPS, &mappings), "pcp1");
    assert_eq!(node.run(NODE, "cat /proc/sys/net/ipv4/conf/pcp1/route_localnet").trim(), "1");
    let receiver = |name, address: &str| {
        let socket = node.inside(name, || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    };
    let (daemon, server) = (receiver(NODE, "127.0.0.1:6000"), receiver(POD_1, "0.0.0.0:80"));
    let send = |from, port: u16| {
        let to = ("127.0.0.1", port);
        node.inside(from, || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", to).unwrap());
    };
    let arrived = |socket: &UdpSocket| socket.recv(&mut [0; 10]).is_ok();
    for port in [8080, 8081] {
        send(NODE, port);
        assert!(arrived(&server), "the node itself, port {port}");
    }
    let senders =
        [(POD_1, "eth0", "169.254.1.1"), (POD_2, "eth0", "169.254.1.1"), (OUTSIDE, "uplink", "192.0.2.1")];
    for (name, interface, gateway) in senders {
        node.sysctl(name, &format!("ipv4/conf/{interface}/route_localnet"), "1");
        let delete =
            "route del local 127.0.0.0/8 dev lo table local\nroute del local 127.0.0.1 dev lo table local";
        node.ip(name, delete);
        node.ip(name, &format!("route add 127.0.0.1 via {gateway} dev {interface}"));
        for port in [8080, 8081, 6000] {
            send(name, port);
            assert!(!arrived(&daemon) && !arrived(&server), "from {name} to port {port}");
        }
    }
    // The packets of this test arrive without the rules that prevent it.
    node.run(NODE, "nft insert rule inet portcullis-host-ports nat-prerouting jump host-ports");
    send(OUTSIDE, 8081);
    assert!(arrived(&server));
    node.run(NODE, "nft flush chain inet portcullis-host-ports filter-input");
    send(POD_1, 6000);
    assert!(arrived(&daemon));
}

#[test]
fn services_have_precedence() {
    let node = Node::new();
    serve(&node, POD_1, 80);
    serve(&node, POD_2, 80);
    serve(&node, NODE, 443);
    add(&node, &pod(POD_1_IPS, &[mapping(30000, 80, "tcp", ""), mapping(443, 80, "tcp", "")]), "pcp1");
    assert_eq!(tcp(&node, OUTSIDE, NODE_IPS[0], 30000).split(' ').next(), Some("pod1"));
    // As all proxy modes translate node ports: at the priority dstnat.
    for (family, hook) in [("ip", "prerouting"), ("ip", "output")] {
        let table = format!("nft add table {family} services");
        node.run(NODE, &table);
        node.run(
            NODE,
            &format!("nft add chain ip services {hook} {{ type nat hook {hook} priority -100 ; }}"),
        );
        node.run(
            NODE,
            &format!("nft add rule ip services {hook} tcp dport 30000 dnat to {}:80", POD_2_IPS[0]),
        );
    }
    for from in [OUTSIDE, NODE] {
        assert_eq!(tcp(&node, from, NODE_IPS[0], 30000).split(' ').next(), Some("pod2"), "from {from}");
    }
    // A ClusterIP in IPVS mode is an address of the node, and IPVS comes after this table.
    for ip in ["10.96.0.1", "fd00:10:96::1"] {
        let flags = if ip.contains(':') { "nodad" } else { "" };
        node.ip(NODE, &format!("link add kube-ipvs0 type bridge\naddr add {ip} dev kube-ipvs0 {flags}\nlink set kube-ipvs0 up"));
        assert_eq!(tcp(&node, POD_2, ip, 443).split(' ').next(), Some("pod1"), "not excluded yet");
        node.inside(NODE, || {
            let pods = || vec![pod(POD_1_IPS, &[mapping(30000, 80, "tcp", ""), mapping(443, 80, "tcp", "")])];
            HostPorts::open(node.state.path()).unwrap().restore(|| records(pods())).unwrap();
        });
        for from in [POD_2, NODE] {
            assert_eq!(tcp(&node, from, ip, 443).split(' ').next(), Some("node"), "from {from} to {ip}");
        }
        assert_eq!(tcp(&node, POD_2, NODE_IPS[0], 443).split(' ').next(), Some("pod1"));
        node.ip(NODE, "link del kube-ipvs0");
    }
}

/// The daemon knows the Service before its address is on the interface. An external IP that is an address of the node keeps host ports.
#[test]
fn a_new_service_in_ipvs_mode_takes_its_traffic_at_once() {
    let node = Node::new();
    serve(&node, POD_1, 80);
    serve(&node, NODE, 443);
    let exclude = |services: &[&str]| {
        let services: Vec<std::net::IpAddr> = services.iter().map(|ip| ip.parse().unwrap()).collect();
        node.inside(NODE, || {
            let host_ports = HostPorts::open(node.state.path()).unwrap();
            host_ports.with_service_addresses(&services).exclude_services().unwrap().total()
        })
    };
    assert_eq!(exclude(&["10.96.0.1"]), 0, "without host ports, no table is created");
    add(&node, &pod(POD_1_IPS, &[mapping(443, 80, "tcp", "")]), "pcp1");
    assert_eq!(exclude(&["10.96.0.1", "fd00:10:96::1", NODE_IPS[0]]), 2);
    node.ip(NODE, "link add kube-ipvs0 type bridge\nlink set kube-ipvs0 up");
    node.ip(NODE, "addr add 10.96.0.1 dev kube-ipvs0\naddr add fd00:10:96::1 dev kube-ipvs0 nodad");
    for ip in ["10.96.0.1", "fd00:10:96::1"] {
        assert_eq!(tcp(&node, POD_2, ip, 443).split(' ').next(), Some("node"), "{ip}");
    }
    assert_eq!(tcp(&node, POD_2, NODE_IPS[0], 443).split(' ').next(), Some("pod1"));
}
